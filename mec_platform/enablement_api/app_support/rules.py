"""DNS and traffic rules of application instances (ETSI GS MEC 011 clauses 7.2.7 to 7.2.10): read, and replaced one by one.

Both kinds are the same resource with another content, so there is one set of handlers. What a rule looks like is
`rule_messages`; who enforces it is `data_plane`, later and elsewhere: a rule that this host cannot enforce is kept and
answered like any other, and the administration API says why it has no effect. The standard has no answer for that, and a
data plane that is slow or away must not decide whether an application may state what it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from aiohttp import web

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.credentials import Scope
from mec_platform.domain.rules import DnsRule, TrafficRule
from mec_platform.enablement_api.app_support import rule_messages
from mec_platform.enablement_api.app_support.handlers import ROOT
from mec_platform.enablement_api.exchange import check_if_match, entity_tag, json_response, read_message
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.problem_details import BadRequest
from mec_platform.registry.applications import Applications, find_rule

Rule = TypeVar("Rule", bound=DnsRule | TrafficRule)
Message = TypeVar("Message")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResource(Generic[Rule, Message]):
    """One kind of rule: its names in URIs and bodies, its message, and where an application instance has it."""

    collection: str
    id_name: str
    words: str
    message_type: type[Message]
    to_rule: Callable[[Message], Rule]
    from_rule: Callable[[Rule], Message]
    rules_of: Callable[[AppInstance], tuple[Rule, ...]]
    change: Callable[[str, Rule, Callable[[Rule], None]], Coroutine[Any, Any, None]]


class AppRules(Generic[Rule, Message]):
    """Handlers for one kind of rule of all application instances."""

    def __init__(self, applications: Applications, resource: RuleResource[Rule, Message]) -> None:
        self._applications = applications
        self._resource = resource

    def operations(self) -> list[Operation]:
        """The list, and the individual resource."""
        resource = self._resource
        row = partial(Operation, tag="Application support", scope=Scope.APP_SUPPORT)
        rules = f"{ROOT}/applications/{{appInstanceId}}/{resource.collection}"
        rule = f"{rules}/{{{resource.id_name}}}"
        name = resource.id_name.removesuffix("Id")
        name = name[:1].upper() + name[1:]
        return [
            row(
                method="GET",
                path=rules,
                operation_id=f"list{name}s",
                summary=f"List the {resource.words}s of an application instance",
                handler=self.get_all,
                answers={HTTPStatus.OK: list[resource.message_type]},  # type: ignore[name-defined]
            ),
            row(
                method="GET",
                path=rule,
                operation_id=f"get{name}",
                summary=f"Read a {resource.words}",
                handler=self.get,
                answers={HTTPStatus.OK: resource.message_type},
                etag=True,
            ),
            row(
                method="PUT",
                path=rule,
                operation_id=f"replace{name}",
                summary=f"Activate, deactivate or change a {resource.words}",
                handler=self.replace,
                body=resource.message_type,
                answers={HTTPStatus.OK: resource.message_type},
                errors=frozenset({HTTPStatus.CONFLICT}),
                etag=True,
            ),
        ]

    async def get_all(self, request: web.Request) -> web.Response:
        """GET all rules of an application instance (clauses 7.2.7.3.1 and 7.2.9.3.1)."""
        app = self._applications.get(request.match_info["appInstanceId"])
        return json_response([self._resource.from_rule(rule) for rule in self._resource.rules_of(app)])

    async def get(self, request: web.Request) -> web.Response:
        """GET one rule, with its ETag (clauses 7.2.8.3.1 and 7.2.10.3.1)."""
        message = self._resource.from_rule(self._find(request))
        return json_response(message, etag=entity_tag(message))

    async def replace(self, request: web.Request) -> web.Response:
        """PUT one rule (clauses 7.2.8.3.2 and 7.2.10.3.2); with If-Match, only if nobody else has changed it."""
        before = self._find(request)
        # Conditions come before content (RFC 9110 clause 13.2.1); what counts is the check where the change is decided.
        self._check(request, before)
        rule = self._resource.to_rule(await read_message(request, self._resource.message_type))
        if rule.rule_id != before.rule_id:
            raise BadRequest(
                f"{self._resource.id_name} must be {before.rule_id!r}, as in the path: rules keep their ids"
            )
        await self._resource.change(request.match_info["appInstanceId"], rule, partial(self._check, request))
        message = self._resource.from_rule(rule)
        return json_response(message, etag=entity_tag(message))

    def _find(self, request: web.Request) -> Rule:
        app = self._applications.get(request.match_info["appInstanceId"])
        return find_rule(self._resource.rules_of(app), request.match_info[self._resource.id_name])

    def _check(self, request: web.Request, before: Rule) -> None:
        check_if_match(request, entity_tag(self._resource.from_rule(before)))


def rule_operations(applications: Applications) -> list[Operation]:
    """The rows for both kinds of rules."""
    dns = RuleResource(
        collection="dns_rules",
        id_name="dnsRuleId",
        words="DNS rule",
        message_type=rule_messages.DnsRuleMessage,
        to_rule=rule_messages.to_dns_rule,
        from_rule=rule_messages.from_dns_rule,
        rules_of=lambda app: app.dns_rules,
        change=applications.change_dns_rule,
    )
    traffic = RuleResource(
        collection="traffic_rules",
        id_name="trafficRuleId",
        words="traffic rule",
        message_type=rule_messages.TrafficRuleMessage,
        to_rule=rule_messages.to_traffic_rule,
        from_rule=rule_messages.from_traffic_rule,
        rules_of=lambda app: app.traffic_rules,
        change=applications.change_traffic_rule,
    )
    return AppRules(applications, dns).operations() + AppRules(applications, traffic).operations()
