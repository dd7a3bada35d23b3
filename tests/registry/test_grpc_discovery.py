"""Discovery over protobuf: what is said arrives, and what a stranger may send is a query or told why not."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import inf, nan
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import ServiceState
from mec_platform.registry.discovery.chain import find_chain
from mec_platform.registry.discovery.chain_query import ChainQuery
from mec_platform.registry.discovery.discover import discover
from mec_platform.registry.discovery.measures import Direction
from mec_platform.registry.discovery.query import DiscoveryQuery, Preference
from mec_platform.registry.grpc.discovering import read_chain, read_discovery, write_chain, write_ranking
from mec_platform.registry.grpc.reading import InvalidRequest
from mec_platform.registry.grpc.writing import RecordWriter
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import types_pb2
from tests.registry.discovery.services import HERE, NEXT_DOOR, service, state_of
from tests.registry.grpc_serving import described, refusal_of, serving
from tests.registry.services import make_app, running_host

NOW = 1_700_000_000 * 10**9


def query(**fields: Any) -> DiscoveryQuery:
    return read_discovery(pb.DiscoveryQuery(**fields), HERE)


def chain_query(**fields: Any) -> ChainQuery:
    return read_chain(pb.ChainQuery(**fields), HERE)


def blocks(start: int, stop: int) -> types_pb2.LayerRange:
    return types_pb2.LayerRange(start=start, stop=stop)


def place(locality: Locality) -> pb.Locality:
    return pb.Locality(**asdict(locality))


def test_an_empty_message_asks_for_all_that_is_active_from_this_host():
    assert query() == DiscoveryQuery(consumer=HERE)


def test_everything_that_can_be_asked_arrives():
    preference = pb.Preference(measure="rtt_ms", direction=pb.DIRECTION_MINIMISE, weight=2.0, half=5.0)
    asked = query(
        consumer=place(NEXT_DOOR),
        service_ids=["a"],
        names=["n", "n"],
        category_ids=["c"],
        states=[pb.SERVICE_STATE_SUSPENDED, pb.SERVICE_STATE_INACTIVE],
        model="m",
        covers=blocks(1, 2),
        intersects=blocks(0, 5),
        quantisations=["int4"],
        hardware_targets=["gpu"],
        trust_at_least=2,
        labels={"tier": "gold"},
        scope_of_locality=pb.LOCALITY_SCOPE_ZONE,
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
    assert query(states=[pb.SERVICE_STATE_ACTIVE], any_state=True).states == {ServiceState.ACTIVE}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"states": [9]}, "states has no value 9; there are ACTIVE, INACTIVE, SUSPENDED"),
        ({"scope_of_locality": 9}, "scope_of_locality has no value 9; there are MEC_SYSTEM"),
        ({"consumer": pb.Locality(zone="z")}, "a locality needs its mec_host"),
        ({"consumer": pb.Locality(mec_host="x" * 257)}, "a value of locality has at most 256"),
        ({"covers": blocks(3, 3)}, r"a layer range needs 0 <= start < stop, not \[3, 3\)"),
        ({"limit": 0}, "limit must be from 1 to 1000, found 0"),
        ({"max_kpi_age_s": nan}, "max_kpi_age_s must be a finite number"),
        ({"names": [str(number) for number in range(257)]}, "names takes at most 256 values"),
        ({"preferences": [pb.Preference(measure="load")]}, "whether to minimise or to maximise 'load'"),
        ({"preferences": [pb.Preference(measure="load", direction=7)]}, "whether to minimise"),
        (
            {"preferences": [pb.Preference(measure="load", direction=1, weight=inf)]},
            "the weight of load must be above 0 and at most",
        ),
        ({"preferences": [pb.Preference()] * 17}, "at most 16 preferences, found 17"),
    ],
)
def test_what_no_query_has_is_told_why(fields: dict[str, Any], problem: str):
    with pytest.raises(InvalidRequest, match=problem):
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
    with pytest.raises(InvalidRequest, match="a chain needs the blocks"):
        chain_query(model="m")
    with pytest.raises(InvalidRequest, match="at most 1024 blocks"):
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
    message = pb.Ranking.FromString(
        write_ranking(discover(state_of(services), kpis, asked, NOW), 7, RecordWriter().record)
    )
    first, second = message.candidates
    assert (first.service.service_id, first.service.description.name) == ("a", "inference")
    assert (first.score, first.kpi_age_s, message.revision) == (0.5, 2.0, 7)
    assert first.contributions[0] == pb.Contribution(
        measure="rtt_ms",
        direction=pb.DIRECTION_MINIMISE,
        weight=1,
        value=20,
        normalised=0.5,
        contribution=0.5,
    )
    assert (first.service.kpis.rtt_ms, first.service.description.capabilities.model) == (20.0, "m")
    assert not second.service.HasField("kpis")
    assert not second.HasField("kpi_age_s")
    assert not second.contributions[0].HasField("value")
    assert second.contributions[0].note == "not measured: counts as worst"
    assert (message.matched, dict(message.rejected)) == (2, {"not ACTIVE": 1})
    assert [(each.service_id, each.reason) for each in message.rejections] == [("c", "not ACTIVE: INACTIVE")]


def test_a_chain_and_the_lack_of_one_are_told_apart():
    made = service("a", model="m", layers=(0, 10))
    asked = ChainQuery(consumer=HERE, model="m", blocks=LayerRange(0, 10))
    kpis = {"a": Kpis(measured_unix_ns=NOW, tokens_per_s=100.0, rtt_ms=2.0)}

    def answer(**changes: Any) -> pb.ChainAnswer:
        return write_chain(find_chain([made], kpis, replace(asked, **changes), NOW))

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


@given(st.binary(max_size=64))
def test_whatever_bytes_come_are_a_query_or_refused(payload: bytes):
    for message, read in (
        (pb.DiscoveryQuery(), read_discovery),
        (pb.ChainQuery(), read_chain),
    ):
        try:
            message.ParseFromString(payload)
            read(message, HERE)
        except (DecodeError, InvalidRequest):
            pass


def block_server(model: str, start: int, stop: int) -> pb.ServiceDescription:
    return described(
        "blocks", capabilities=pb.ServiceCapabilities(model=model, layers=blocks(start, stop), trust_level=1)
    )


async def test_services_are_found_by_what_they_can_do_and_how_they_are_doing(clock):
    async with running_host(clock) as host, serving(host) as stub:
        app_id = await make_app(host)
        ids = []
        for start, stop in ((0, 12), (12, 30), (0, 30)):
            request = pb.RegisterRequest(app_instance_id=app_id, description=block_server("m", start, stop))
            ids.append((await stub.Register(request)).service.service_id)
        await stub.Register(pb.RegisterRequest(app_instance_id=app_id, description=described("other")))
        loads = (0.5, 0.1, 0.9)
        heartbeats = [
            pb.ServiceHeartbeat(service_id=each, kpis=pb.ServiceKpis(load=load, tokens_per_s=100, rtt_ms=1))
            for each, load in zip(ids, loads, strict=True)
        ]
        renewing = stub.Renew()
        await renewing.write(pb.RenewRequest(heartbeats=heartbeats))
        await renewing.read()
        lightly = pb.Preference(measure="load", direction=pb.DIRECTION_MINIMISE)
        found = await stub.Discover(
            pb.DiscoveryQuery(model="m", condition="kpi.load < 0.8", preferences=[lightly], explain_rejected=True)
        )
        assert [each.service.service_id for each in found.candidates] == [ids[1], ids[0]]
        assert found.candidates[0].service.kpis.load == 0.1
        assert [each.service_id for each in found.rejections] == [ids[2]]
        assert found.revision == host.registry.state.revision
        fastest = await stub.Chain(pb.ChainQuery(model="m", blocks=blocks(0, 30), trust_at_least=1))
        assert [call.service_id for call in fastest.chain.calls] == [ids[2]]
        refused = await stub.Chain(pb.ChainQuery(model="m", blocks=blocks(0, 31)))
        assert list(refused.none.uncovered) == [blocks(30, 31)]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (pb.DiscoveryQuery(condition="kpi.load <"), "condition"),
        (pb.DiscoveryQuery(condition="service.nme == 'x'"), "nme"),
        (pb.DiscoveryQuery(limit=0), "limit"),
    ],
)
async def test_a_question_that_cannot_be_asked_is_an_invalid_argument_that_says_why(clock, query, words):
    async with running_host(clock) as host, serving(host) as stub:
        code, reason, details = await refusal_of(stub.Discover(query))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        (violation,) = details["BadRequest"].field_violations
        assert words in f"{violation.field} {violation.description}"
