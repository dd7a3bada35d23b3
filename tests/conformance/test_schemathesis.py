"""Whatever clients send, the platform answers as its own OpenAPI document says: requests made from the served document.

Every run makes the same requests. Cases are of three kinds: the document's examples, systematic ones about each of its
keywords (valid and not), and random ones. Ids in paths are those of what the platform holds, most of the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from zlib import crc32

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.schemas import APIOperation, BaseSchema

from mec_platform.enablement_api.notifications.messages import RADIO_INFORMATION_ROOT as RADIO
from mec_platform.enablement_api.security.token_endpoint import TOKEN
from tests.conformance.served_platform import (
    APP,
    CLIENT,
    DNS_RULE,
    OPERATOR,
    OPERATOR_SECRET,
    RADIO_SUBSCRIPTION,
    SERVICE,
    SUBSCRIPTIONS,
    TRAFFIC_RULE,
    ServedPlatform,
    served_platform,
)

IDS = {
    "appInstanceId": (APP,),
    "serviceId": (SERVICE,),
    "subscriptionId": tuple(SUBSCRIPTIONS.values()),
    "dnsRuleId": (DNS_RULE,),
    "trafficRuleId": (TRAFFIC_RULE,),
    "clientId": (CLIENT,),
}
"""What the platform holds, by the names that ids have in paths."""

RADIO_IDS = IDS | {"subscriptionId": (RADIO_SUBSCRIPTION,)}
"""The same in paths of MEC 012."""

ENDLESS = "watchServices"
"""Its answer is a stream of events that a client ends."""

OTHER_IDS = 8
"""One id in so many is left as it was made up."""

LEAST_CASES, LEAST_CASES_WITH_TOKENS, MANY_CASES = 2_000, 300, 10_000
"""A run with fewer has lost some."""


class Requests:
    """Sends the cases of one schema to one platform, and counts what was answered."""

    def __init__(self, platform: ServedPlatform, token: str = "") -> None:
        self._platform = platform
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        schema = schemathesis.openapi.from_url(f"{platform.url}/openapi.json", config=SchemathesisConfig())
        self.schema = schema.exclude(operation_id=ENDLESS)
        checks = self.schema.config.checks
        # Rules between attributes, parameters and the state are no part of a schema: identities exclude each other, ids in
        # bodies are those of the path, a domain name is one; what breaks them is 400 (MEC 011), and If-Match comes first.
        checks.positive_data_acceptance.enabled = False
        # The condition is looked at before the content (RFC 9110 clause 13.2.1); targets beyond a length are not read.
        refusals = checks.negative_data_rejection.expected_statuses
        checks.negative_data_rejection.expected_statuses = [*refusals, "412", "414"]
        self.answers: Counter[tuple[str, str, int]] = Counter()

    @property
    def cases(self) -> int:
        return sum(self.answers.values())

    def send(self, case: schemathesis.Case) -> None:
        """Raises where the answer is not as the document says."""
        self._platform.restore()
        _name_what_exists(case)
        answer = case.call(headers=self._headers)
        self.answers[case.method, case.operation.path, answer.status_code] += 1
        ignored = []
        if answer.status_code < 300 and self._is_right_without_nulls(case):
            ignored = [schemathesis.checks.negative_data_rejection]
        case.validate_response(answer, headers=self._headers, excluded_checks=ignored)

    def _is_right_without_nulls(self, case: schemathesis.Case) -> bool:
        """An attribute that is null counts as absent, as the document's description says: no schema can."""
        content = case.operation.definition.raw.get("requestBody", {}).get("content", {})
        if case.media_type not in content or not isinstance(case.body, dict):
            return False
        schema = content[case.media_type]["schema"] | {"components": self.schema.raw_schema["components"]}
        return jsonschema.Draft202012Validator(schema).is_valid(_without_nulls(case.body))


def _name_what_exists(case: schemathesis.Case) -> None:
    """Puts ids of what exists into most paths, and what is in the path into the body, as a function of the case alone."""
    die = crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "surrogatepass"))
    known = RADIO_IDS if RADIO in case.operation.path else IDS
    for name in sorted(set(case.path_parameters) & set(known)):
        if die % OTHER_IDS:
            case.path_parameters[name] = known[name][die // OTHER_IDS % len(known[name])]
        if die % 2 and isinstance(case.body, dict) and isinstance(case.body.get(name), str):
            case.body = case.body | {name: case.path_parameters[name]}
        die //= 3
    if case.headers and (die % 2 or case.operation.definition.raw["operationId"] in TOO_MANY_CASES):
        case.headers.pop("If-Match", None)  # Else hardly a PUT would come as far as its body.


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


RANDOM_CASES = 10
EVERY_KIND = tuple(HypothesisTestMode)
NOT_SYSTEMATIC = (HypothesisTestMode.EXAMPLES, HypothesisTestMode.FUZZING)
TOO_MANY_CASES = ("createRadioSubscription", "replaceRadioSubscription", "queryLayerTwoMeasurements")
"""Bodies of nine types and forty parameters: their systematic cases would be more than those of all other operations together."""


def check_every_operation(
    schema: BaseSchema,
    send: Callable[[schemathesis.Case], None],
    subtests: pytest.Subtests,
    *,
    kinds: Iterable[HypothesisTestMode] = EVERY_KIND,
    random_cases: int = RANDOM_CASES,
) -> None:
    """Each operation is one subtest; `random_cases` come on top of the systematic ones."""
    how = settings(
        max_examples=random_cases,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        few = operation.definition.raw["operationId"] in TOO_MANY_CASES
        modes = [each for each in kinds if not few or each in NOT_SYSTEMATIC]
        config = HypothesisTestConfig(project=schema.config, modes=modes, settings=how)
        with subtests.test(operation.label):
            create_test(operation=operation, test_func=partial(send), config=config)()
            if few and "requestBody" in operation.definition.raw:
                send(_as_documented(operation))


def _as_documented(operation: APIOperation) -> schemathesis.Case:
    """The document's own example of a body, for what exists. What is generated depends on which modules are loaded, and may
    have no body of several types that is right for the one that is there."""
    content = operation.definition.raw["requestBody"]["content"]["application/json"]
    example = content.get("example") or next(iter(content["examples"].values()))["value"]
    names = {parameter.name for parameter in operation.path_parameters}
    return operation.Case(
        path_parameters={name: RADIO_IDS[name][0] for name in names}, body=example, media_type="application/json"
    )


def check_that_all_were_answered(sent: Requests) -> None:
    """Each operation did at least once what it is for, but those that want a secret or an upgrade of the connection."""
    operations = [found.ok() for found in sent.schema.get_all_operations()]
    wanted = {
        (each.method.upper(), each.path)
        for each in operations
        if "101" not in each.definition.raw["responses"] and each.path != TOKEN
    }
    assert wanted - {(method, path) for method, path, status in sent.answers if status < 300} == set()


def operator_token(platform: ServedPlatform) -> str:
    form = {"grant_type": "client_credentials", "client_id": OPERATOR, "client_secret": OPERATOR_SECRET}
    return str(requests.post(f"{platform.url}{TOKEN}", data=form, timeout=10).json()["access_token"])


def test_answers_every_request_as_the_document_says(subtests):
    with served_platform() as platform:
        sent = Requests(platform)
        check_every_operation(sent.schema, sent.send, subtests)
    assert sent.cases >= LEAST_CASES
    check_that_all_were_answered(sent)


def test_answers_clients_with_a_token_as_the_document_says(subtests):
    with served_platform(authenticate=True) as platform:
        sent = Requests(platform, operator_token(platform))
        check_every_operation(sent.schema, sent.send, subtests, kinds=NOT_SYSTEMATIC)
    assert sent.cases >= LEAST_CASES_WITH_TOKENS
    check_that_all_were_answered(sent)


def test_without_a_token_nothing_is_answered_that_has_a_scope(subtests):
    asked = Counter[str]()

    def send(case: schemathesis.Case) -> None:
        _name_what_exists(case)
        answer = case.call()
        case.validate_response(answer)
        asked[case.operation.label] += 1
        if case.operation.definition.raw["security"]:
            assert answer.status_code == 401

    with served_platform(authenticate=True) as platform:
        platform.restore()
        state = platform.host.registry.state
        schema = Requests(platform).schema
        check_every_operation(schema, send, subtests, kinds=[HypothesisTestMode.FUZZING], random_cases=4)
        assert platform.host.registry.state == state
    assert len(asked) > 40


@pytest.mark.thorough
def test_answers_many_more_requests_as_the_document_says(subtests):
    with served_platform() as platform:
        sent = Requests(platform)
        check_every_operation(sent.schema, sent.send, subtests, random_cases=400)

    assert sent.cases >= MANY_CASES
    check_that_all_were_answered(sent)
