"""Discovery's questions and answers as protobuf messages. Messages come from strangers: whatever they hold that a value cannot
be is a ValueError whose message is meant for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, TypeVar

from mec_platform.domain.capabilities import KPI_NAMES, Capabilities, Kpis
from mec_platform.domain.locality import Locality, LocalityType
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
from mec_platform.rpc.convert import layers_from_message, layers_to_message
from mec_platform.rpc.v1 import capabilities_pb2, discovery_pb2, registry_pb2

_DIRECTIONS = {
    discovery_pb2.DIRECTION_MINIMISE: Direction.MINIMISE,
    discovery_pb2.DIRECTION_MAXIMISE: Direction.MAXIMISE,
}
_DIRECTION_NUMBERS = {direction: number for number, direction in _DIRECTIONS.items()}

_Choice = TypeVar("_Choice", ServiceState, LocalityType)


def query_from_message(message: discovery_pb2.DiscoveryQuery, here: Locality) -> DiscoveryQuery:
    """What is asked, by a consumer on this host (`here`) where it does not say where it is.

    Raises:
        ValueError: a field has a value that no query has.
    """
    if len(message.preferences) > MOST_PREFERENCES:
        raise ValueError(f"a query has at most {MOST_PREFERENCES} preferences, found {len(message.preferences)}")
    states = frozenset(_choices("states", ServiceState, message.states))
    if not states and not message.any_state:
        states = frozenset({ServiceState.ACTIVE})
    scopes = _choices("scope_of_locality", LocalityType, filter(None, (message.scope_of_locality,)))
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
        scope_of_locality=scopes[0] if scopes else None,
        must_be_local=message.must_be_local,
        condition=message.condition,
        preferences=tuple(map(_preference_from_message, message.preferences)),
        explain_rejected=message.explain_rejected,
        **_present(message, "max_kpi_age_s", "limit"),
    )


def chain_query_from_message(message: discovery_pb2.ChainQuery, here: Locality) -> ChainQuery:
    """What chain is asked for, by a consumer on this host (`here`) where it does not say where it is.

    Raises:
        ValueError: a field has a value that no query has, or the blocks are missing.
    """
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


def ranking_to_message(
    ranking: Ranking, record: Callable[[ServiceInfo], registry_pb2.RegisteredService]
) -> discovery_pb2.Ranking:
    """The answer to a query; `record` gives the message of a service's record."""
    return discovery_pb2.Ranking(
        candidates=[_ranked_to_message(ranked, record(ranked.service)) for ranked in ranking.candidates],
        matched=ranking.matched,
        rejected=ranking.rejected,
        rejections=[
            discovery_pb2.Rejection(service_id=each.service_id, reason=each.reason) for each in ranking.rejections
        ],
    )


def chain_to_message(answer: Chain | NoChain) -> discovery_pb2.ChainAnswer:
    """The answer to a query for a chain."""
    if isinstance(answer, Chain):
        return discovery_pb2.ChainAnswer(chain=_chain_to_message(answer))
    none = discovery_pb2.NoChain(reason=answer.reason, uncovered=map(layers_to_message, answer.uncovered))
    if answer.cheapest is not None:
        none.cheapest.CopyFrom(_chain_to_message(answer.cheapest))
    return discovery_pb2.ChainAnswer(none=none)


def capabilities_from_message(message: capabilities_pb2.Capabilities) -> Capabilities:
    """Raises ValueError where these are no capabilities."""
    return Capabilities(
        model=message.model,
        layers=layers_from_message(message.layers) if message.HasField("layers") else None,
        quantisation=message.quantisation,
        hardware_target=message.hardware_target,
        trust_level=message.trust_level,
        labels=dict(message.labels),
    )


def capabilities_to_message(capabilities: Capabilities) -> capabilities_pb2.Capabilities:
    """What a service can do, as a message."""
    return capabilities_pb2.Capabilities(
        model=capabilities.model,
        layers=None if capabilities.layers is None else layers_to_message(capabilities.layers),
        quantisation=capabilities.quantisation,
        hardware_target=capabilities.hardware_target,
        trust_level=capabilities.trust_level,
        labels=capabilities.labels,
    )


def kpis_from_message(message: capabilities_pb2.Kpis) -> Kpis:
    """Raises ValueError where a number is none that can be measured."""
    return Kpis(measured_unix_ns=message.measured_unix_ns, **_present(message, *KPI_NAMES))


def kpis_to_message(kpis: Kpis) -> capabilities_pb2.Kpis:
    """How a service is doing, as a message."""
    return capabilities_pb2.Kpis(**{each.name: getattr(kpis, each.name) for each in fields(Kpis)})


def locality_from_message(message: capabilities_pb2.Locality) -> Locality:
    """Raises ValueError where the host is missing or a name is too long."""
    names = {each.name: getattr(message, each.name) for each in fields(Locality)}
    check_texts("locality", names.values())
    if not names["mec_host"]:
        raise ValueError("a locality needs its mec_host")
    return Locality(**names)


def locality_to_message(locality: Locality) -> capabilities_pb2.Locality:
    """A place, as a message."""
    return capabilities_pb2.Locality(**{each.name: getattr(locality, each.name) for each in fields(Locality)})


def _consumer(message: discovery_pb2.DiscoveryQuery | discovery_pb2.ChainQuery, here: Locality) -> Locality:
    return locality_from_message(message.consumer) if message.HasField("consumer") else here


def _present(message: Any, *names: str) -> dict[str, Any]:
    """The fields among these that the message has, so that the others keep the value's own defaults."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _choices(field: str, kind: type[_Choice], texts: Iterable[str]) -> list[_Choice]:
    known = {each.value: each for each in kind}
    found = list(texts)
    for text in found:
        if text not in known:
            raise ValueError(f"{field} has no value {text[:40]!r}; there are {', '.join(known)}")
    return [known[text] for text in found]


def _preference_from_message(message: discovery_pb2.Preference) -> Preference:
    if message.direction not in _DIRECTIONS:
        raise ValueError(f"say whether to minimise or to maximise {message.measure[:40]!r}: set its direction")
    return Preference(
        measure=message.measure, direction=_DIRECTIONS[message.direction], **_present(message, "weight", "half")
    )


def _ranked_to_message(ranked: RankedService, record: registry_pb2.RegisteredService) -> discovery_pb2.RankedService:
    capabilities = ranked.service.capabilities
    return discovery_pb2.RankedService(
        service_id=ranked.service.service_id,
        service=record,
        score=ranked.score,
        contributions=map(_contribution_to_message, ranked.contributions),
        kpis=None if ranked.kpis is None else kpis_to_message(ranked.kpis),
        kpi_age_s=ranked.kpi_age_s,
        capabilities=None if capabilities is None else capabilities_to_message(capabilities),
    )


def _contribution_to_message(contribution: Contribution) -> discovery_pb2.Contribution:
    preference = contribution.preference
    return discovery_pb2.Contribution(
        measure=preference.measure,
        direction=_DIRECTION_NUMBERS[preference.direction],
        weight=preference.weight,
        value=contribution.value,
        normalised=contribution.normalised,
        contribution=contribution.contribution,
        note=contribution.note,
    )


def _chain_to_message(chain: Chain) -> discovery_pb2.Chain:
    return discovery_pb2.Chain(
        calls=[
            discovery_pb2.Call(
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
