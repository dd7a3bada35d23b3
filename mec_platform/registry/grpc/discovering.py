"""Discovery's questions and answers as messages. Questions come from strangers: whatever they hold that a value cannot be is
told them. The counterpart of `registry.discovery`, which answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo, ServiceState
from mec_platform.registry.discovery.chain_query import Chain, ChainQuery, NoChain
from mec_platform.registry.discovery.measures import Direction
from mec_platform.registry.discovery.query import (
    MOST_PREFERENCES,
    Contribution,
    DiscoveryQuery,
    Preference,
    RankedService,
    Ranking,
    check_texts,
)
from mec_platform.registry.grpc import wire
from mec_platform.registry.grpc.reading import SCOPES, STATES, InvalidRequest, Violation
from mec_platform.rpc.convert import layers_from_message, layers_to_message
from mec_platform.rpc.v1 import registry_pb2 as pb

_DIRECTIONS = {
    pb.DIRECTION_MINIMISE: Direction.MINIMISE,
    pb.DIRECTION_MAXIMISE: Direction.MAXIMISE,
}
_DIRECTION_NUMBERS = {direction: number for number, direction in _DIRECTIONS.items()}

_Kind = TypeVar("_Kind", bound=StrEnum)

WriteRecord = Callable[[ServiceInfo, Kpis | None], bytes]

_SCORE, _AGE = wire.double(2), wire.double(4)
_VALUE, _NORMALISED, _CONTRIBUTION = wire.double(4), wire.double(5), wire.double(6)
_CANDIDATES, _RECORD, _CONTRIBUTIONS = 1, 1, 3
"""Numbers of fields of `Ranking`, `RankedService` and `Contribution`."""


def read_discovery(message: pb.DiscoveryQuery, here: Locality) -> DiscoveryQuery:
    """What is asked, by a consumer on this host (`here`) where it does not say where it is. Raises InvalidRequest."""
    with told("query"):
        return _query(message, here)


def read_chain(message: pb.ChainQuery, here: Locality) -> ChainQuery:
    """What chain is asked for, by a consumer on this host (`here`) where it does not say where it is. Raises InvalidRequest."""
    with told("query"):
        return _chain_query(message, here)


@contextmanager
def told(field: str) -> Iterator[None]:
    """Questions that cannot be asked, or not of so many services, are ValueErrors within; raises InvalidRequest for them."""
    try:
        yield
    except ValueError as error:
        raise InvalidRequest([Violation(field, str(error))]) from error


def _query(message: pb.DiscoveryQuery, here: Locality) -> DiscoveryQuery:
    if len(message.preferences) > MOST_PREFERENCES:
        raise ValueError(f"a query has at most {MOST_PREFERENCES} preferences, found {len(message.preferences)}")
    states = frozenset(_known("states", STATES, number) for number in message.states)
    if not states and not message.any_state:
        states = frozenset({ServiceState.ACTIVE})
    scope = message.scope_of_locality
    return DiscoveryQuery(
        consumer=_consumer(message, here),
        service_ids=frozenset(message.service_ids),
        names=frozenset(message.names),
        category_ids=frozenset(message.category_ids),
        states=states,
        model=message.model,
        covers=layers_from_message(message.covers) if message.HasField("covers") else None,
        intersects=layers_from_message(message.intersects) if message.HasField("intersects") else None,
        quantisations=frozenset(message.quantisations),
        hardware_targets=frozenset(message.hardware_targets),
        trust_at_least=message.trust_at_least,
        labels=dict(message.labels),
        scope_of_locality=_known("scope_of_locality", SCOPES, scope) if scope else None,
        must_be_local=message.must_be_local,
        condition=message.condition,
        preferences=tuple(map(_preference, message.preferences)),
        explain_rejected=message.explain_rejected,
        **_present(message, "max_kpi_age_s", "limit"),
    )


def _chain_query(message: pb.ChainQuery, here: Locality) -> ChainQuery:
    if not message.HasField("blocks"):
        raise ValueError("a chain needs the blocks that it is to cover")
    return ChainQuery(
        consumer=_consumer(message, here),
        model=message.model,
        blocks=layers_from_message(message.blocks),
        trust_at_least=message.trust_at_least,
        quantisations=frozenset(message.quantisations),
        **_present(message, "trusted_first", "trusted_last", "max_kpi_age_s", "max_latency_ms", "max_calls"),
    )


def write_ranking(ranking: Ranking, revision: int, record: WriteRecord) -> bytes:
    """The answer to a question that was put to the registry at this revision; `record` gives a service as it is written."""
    rest = pb.Ranking(
        revision=revision,
        matched=ranking.matched,
        rejected=ranking.rejected,
        rejections=[pb.Rejection(service_id=each.service_id, reason=each.reason) for each in ranking.rejections],
    )
    known: dict[str, bytes] = {}
    candidates = [
        wire.nested(_CANDIDATES, _ranked(ranked, record(ranked.service, ranked.kpis), known))
        for ranked in ranking.candidates
    ]
    return b"".join(candidates) + rest.SerializeToString()


def write_chain(answer: Chain | NoChain) -> pb.ChainAnswer:
    """The answer to a query for a chain."""
    if isinstance(answer, Chain):
        return pb.ChainAnswer(chain=_chain(answer))
    none = pb.NoChain(reason=answer.reason, uncovered=map(layers_to_message, answer.uncovered))
    if answer.cheapest is not None:
        none.cheapest.CopyFrom(_chain(answer.cheapest))
    return pb.ChainAnswer(none=none)


def _locality(message: pb.Locality) -> Locality:
    names = {each.name: getattr(message, each.name) for each in fields(Locality)}
    check_texts("locality", names.values())
    if not names["mec_host"]:
        raise ValueError("a locality needs its mec_host")
    return Locality(**names)


def _consumer(message: pb.DiscoveryQuery | pb.ChainQuery, here: Locality) -> Locality:
    return _locality(message.consumer) if message.HasField("consumer") else here


def _present(message: Any, *names: str) -> dict[str, Any]:
    """The fields among these that the message has, so that the others keep the value's own defaults."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _known(field: str, kinds: Mapping[int, _Kind], number: int) -> _Kind:
    if number not in kinds:
        raise ValueError(f"{field} has no value {number}; there are {', '.join(kinds.values())}")
    return kinds[number]


def _preference(message: pb.Preference) -> Preference:
    if message.direction not in _DIRECTIONS:
        raise ValueError(f"say whether to minimise or to maximise {message.measure[:40]!r}: set its direction")
    return Preference(
        measure=message.measure, direction=_DIRECTIONS[message.direction], **_present(message, "weight", "half")
    )


def _ranked(ranked: RankedService, record: bytes, known: dict[str, bytes]) -> bytes:
    pieces = [wire.nested(_RECORD, record), _SCORE(ranked.score)]
    pieces += [wire.nested(_CONTRIBUTIONS, _contribution(each, known)) for each in ranked.contributions]
    if ranked.kpi_age_s is not None:
        pieces.append(_AGE(ranked.kpi_age_s))
    return b"".join(pieces)


def _contribution(contribution: Contribution, known: dict[str, bytes]) -> bytes:
    """`known` keeps, by measure, what is the same for all candidates."""
    preference, value = contribution.preference, contribution.value
    written = known.get(preference.measure)
    if written is None:
        written = known[preference.measure] = pb.Contribution(
            measure=preference.measure,
            direction=_DIRECTION_NUMBERS[preference.direction],
            weight=preference.weight,
        ).SerializeToString()
    worth = written + _NORMALISED(contribution.normalised) + _CONTRIBUTION(contribution.contribution)
    if value is not None:
        return worth + _VALUE(value)
    return worth + pb.Contribution(note=contribution.note).SerializeToString()


def _chain(chain: Chain) -> pb.Chain:
    return pb.Chain(
        calls=[
            pb.Call(
                service_id=call.service_id,
                layers=layers_to_message(call.layers),
                hop_ms=call.hop_ms,
                compute_ms=call.compute_ms,
            )
            for call in chain.calls
        ],
        return_ms=chain.return_ms,
        latency_ms=chain.latency_ms,
        explanation=chain.explanation(),
        left_out=chain.left_out,
    )
