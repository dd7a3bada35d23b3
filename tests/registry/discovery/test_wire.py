"""Discovery over protobuf: what is said arrives, and what a stranger may send is a query or told why not."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import ServiceInfo, ServiceState
from mec_platform.registry.discovery import wire
from mec_platform.registry.discovery.chain import find_chain
from mec_platform.registry.discovery.chain_query import ChainQuery
from mec_platform.registry.discovery.discover import discover
from mec_platform.registry.discovery.measures import Direction
from mec_platform.registry.discovery.query import DiscoveryQuery, Preference
from mec_platform.rpc.v1 import capabilities_pb2, discovery_pb2, registry_pb2, types_pb2
from tests.registry.discovery.services import HERE, NEXT_DOOR, service, state_of

NOW = 1_700_000_000 * 10**9


def query(**fields: Any) -> DiscoveryQuery:
    return wire.query_from_message(discovery_pb2.DiscoveryQuery(**fields), HERE)


def chain_query(**fields: Any) -> ChainQuery:
    return wire.chain_query_from_message(discovery_pb2.ChainQuery(**fields), HERE)


def blocks(start: int, stop: int) -> types_pb2.LayerRange:
    return types_pb2.LayerRange(start=start, stop=stop)


def record(service: ServiceInfo) -> registry_pb2.RegisteredService:
    return registry_pb2.RegisteredService(instance_id=service.service_id, name=service.name)


def test_an_empty_message_asks_for_all_that_is_active_from_this_host():
    assert query() == DiscoveryQuery(consumer=HERE)


def test_everything_that_can_be_asked_arrives():
    preference = discovery_pb2.Preference(
        measure="rtt_ms", direction=discovery_pb2.DIRECTION_MINIMISE, weight=2.0, half=5.0
    )
    asked = query(
        consumer=wire.locality_to_message(NEXT_DOOR),
        service_ids=["a"],
        names=["n", "n"],
        category_ids=["c"],
        states=["SUSPENDED", "INACTIVE"],
        model="m",
        covers=blocks(1, 2),
        intersects=blocks(0, 5),
        quantisations=["int4"],
        hardware_targets=["gpu"],
        trust_at_least=2,
        labels={"tier": "gold"},
        scope_of_locality="ZONE",
        must_be_local=True,
        condition="kpi.load < 0.5",
        preferences=[preference],
        max_kpi_age_s=2.5,
        limit=7,
        explain_rejected=True,
    )
    assert asked == DiscoveryQuery(
        consumer=NEXT_DOOR,
        service_ids=frozenset("a"),
        names=frozenset("n"),
        category_ids=frozenset("c"),
        states=frozenset({ServiceState.SUSPENDED, ServiceState.INACTIVE}),
        model="m",
        covers=LayerRange(1, 2),
        intersects=LayerRange(0, 5),
        quantisations=frozenset({"int4"}),
        hardware_targets=frozenset({"gpu"}),
        trust_at_least=2,
        labels={"tier": "gold"},
        scope_of_locality=LocalityType.ZONE,
        must_be_local=True,
        condition="kpi.load < 0.5",
        preferences=(Preference(measure="rtt_ms", direction=Direction.MINIMISE, weight=2.0, half=5.0),),
        max_kpi_age_s=2.5,
        limit=7,
        explain_rejected=True,
    )
    assert query(any_state=True).states == frozenset()
    assert query(states=["ACTIVE"], any_state=True).states == {ServiceState.ACTIVE}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"states": ["ASLEEP"]}, "states has no value 'ASLEEP'; there are ACTIVE, INACTIVE, SUSPENDED"),
        ({"scope_of_locality": "PLANET"}, "scope_of_locality has no value 'PLANET'; there are MEC_SYSTEM"),
        ({"consumer": capabilities_pb2.Locality(zone="z")}, "a locality needs its mec_host"),
        ({"consumer": capabilities_pb2.Locality(mec_host="x" * 257)}, "a value of locality has at most 256"),
        ({"covers": blocks(3, 3)}, r"a layer range needs 0 <= start < stop, not \[3, 3\)"),
        ({"limit": 0}, "limit must be from 1 to 1000, found 0"),
        ({"max_kpi_age_s": nan}, "max_kpi_age_s must be a finite number"),
        ({"names": [str(number) for number in range(257)]}, "names takes at most 256 values"),
        ({"preferences": [discovery_pb2.Preference(measure="load")]}, "whether to minimise or to maximise 'load'"),
        ({"preferences": [discovery_pb2.Preference(measure="load", direction=7)]}, "whether to minimise"),
        (
            {"preferences": [discovery_pb2.Preference(measure="load", direction=1, weight=inf)]},
            "the weight of load must be above 0 and at most",
        ),
        ({"preferences": [discovery_pb2.Preference()] * 17}, "at most 16 preferences, found 17"),
    ],
)
def test_what_no_query_has_is_told_why(fields: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        query(**fields)


def test_chains_can_be_asked_for():
    assert chain_query(model="m", blocks=blocks(0, 30)) == ChainQuery(
        consumer=HERE, model="m", blocks=LayerRange(0, 30)
    )
    full = chain_query(
        model="m",
        blocks=blocks(0, 30),
        trust_at_least=1,
        trusted_first=0,
        trusted_last=2,
        quantisations=["int4"],
        max_kpi_age_s=3.0,
        max_latency_ms=50.0,
        max_calls=3,
    )
    assert full == ChainQuery(
        consumer=HERE,
        model="m",
        blocks=LayerRange(0, 30),
        trust_at_least=1,
        trusted_first=0,
        trusted_last=2,
        quantisations=frozenset({"int4"}),
        max_kpi_age_s=3.0,
        max_latency_ms=50.0,
        max_calls=3,
    )
    with pytest.raises(ValueError, match="a chain needs the blocks"):
        chain_query(model="m")
    with pytest.raises(ValueError, match="at most 1024 blocks"):
        chain_query(model="m", blocks=blocks(0, 2**32 - 1))


def test_a_ranking_says_why_each_is_where_it_is():
    services = [
        service("a", model="m", trust_level=1),
        service("b"),
        service("c", state=ServiceState.INACTIVE),
    ]
    kpis = {"a": Kpis(measured_unix_ns=NOW - 2 * 10**9, rtt_ms=20.0)}
    asked = DiscoveryQuery(
        consumer=HERE,
        preferences=(Preference(measure="rtt_ms", direction=Direction.MINIMISE),),
        explain_rejected=True,
    )
    message = wire.ranking_to_message(discover(state_of(services), kpis, asked, NOW), record)
    first, second = message.candidates
    assert (first.service_id, first.service.name, first.score, first.kpi_age_s) == ("a", "inference", 0.5, 2.0)
    assert first.contributions[0] == discovery_pb2.Contribution(
        measure="rtt_ms",
        direction=discovery_pb2.DIRECTION_MINIMISE,
        weight=1,
        value=20,
        normalised=0.5,
        contribution=0.5,
    )
    assert wire.kpis_from_message(first.kpis) == kpis["a"]
    assert wire.capabilities_from_message(first.capabilities) == services[0].capabilities
    assert not any(map(second.HasField, ("kpis", "kpi_age_s", "capabilities")))
    assert not second.contributions[0].HasField("value")
    assert second.contributions[0].note == "not measured: counts as worst"
    assert (message.matched, dict(message.rejected)) == (2, {"not ACTIVE": 1})
    assert [(each.service_id, each.reason) for each in message.rejections] == [("c", "not ACTIVE: INACTIVE")]


def test_a_chain_and_the_lack_of_one_are_told_apart():
    made = service("a", model="m", layers=(0, 10))
    asked = ChainQuery(consumer=HERE, model="m", blocks=LayerRange(0, 10))
    kpis = {"a": Kpis(measured_unix_ns=NOW, tokens_per_s=100.0, rtt_ms=2.0)}

    def answer(**changes: Any) -> discovery_pb2.ChainAnswer:
        return wire.chain_to_message(find_chain([made], kpis, replace(asked, **changes), NOW))

    found = answer().chain
    assert (found.calls[0].service_id, found.calls[0].layers) == ("a", blocks(0, 10))
    assert (found.calls[0].hop_ms, found.calls[0].compute_ms, found.latency_ms) == (2.0, 10.0, 12.0)
    assert found.explanation == "a [0, 10) (2.00 ms hop, 10.00 ms compute): 12.00 ms a token"
    missed = answer(max_latency_ms=11.0)
    assert missed.WhichOneof("answer") == "none"
    assert missed.none.cheapest == found
    gap = answer(blocks=LayerRange(0, 12)).none
    assert list(gap.uncovered) == [blocks(10, 12)]
    assert not gap.HasField("cheapest")


NAMES = st.text(max_size=8)


@given(
    st.builds(
        Capabilities,
        model=NAMES,
        layers=st.none()
        | st.builds(lambda start, size: LayerRange(start, start + size), st.integers(0, 99), st.integers(1, 9)),
        quantisation=NAMES,
        hardware_target=NAMES,
        trust_level=st.integers(0, 9),
        labels=st.dictionaries(NAMES, NAMES, max_size=3),
    ),
    st.builds(
        Kpis,
        measured_unix_ns=st.integers(0, 2**63),
        load=st.none() | st.floats(0, 1),
        capacity=st.none() | st.floats(0, 1e9),
        free_memory_bytes=st.none() | st.integers(0, 2**50),
        radio_quality_db=st.none() | st.floats(-50, 50),
    ),
    st.builds(Locality, mec_host=st.text(min_size=1, max_size=8), zone=NAMES, nfvi_node=NAMES),
)
def test_values_survive_the_way(capabilities: Capabilities, kpis: Kpis, locality: Locality):
    assert wire.capabilities_from_message(wire.capabilities_to_message(capabilities)) == capabilities
    assert wire.kpis_from_message(wire.kpis_to_message(kpis)) == kpis
    assert wire.locality_from_message(wire.locality_to_message(locality)) == locality


def test_kpis_and_capabilities_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="load is a part of the capacity"):
        wire.kpis_from_message(capabilities_pb2.Kpis(load=2))
    with pytest.raises(ValueError, match="at most 32 labels"):
        wire.capabilities_from_message(capabilities_pb2.Capabilities(labels={str(number): "" for number in range(33)}))


@given(st.binary(max_size=64))
def test_whatever_bytes_come_are_a_query_or_a_value_error(payload: bytes):
    for message, read in (
        (discovery_pb2.DiscoveryQuery(), wire.query_from_message),
        (discovery_pb2.ChainQuery(), wire.chain_query_from_message),
    ):
        try:
            message.ParseFromString(payload)
            read(message, HERE)
        except (DecodeError, ValueError):
            pass
