"""Chains of services over a model's blocks: examples that read as sentences, and exactness against trying everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.services import ServiceInfo, ServiceState
from mec_platform.registry.discovery.chain import find_chain
from mec_platform.registry.discovery.chain_query import Chain, ChainQuery, HopTime, NoChain
from mec_platform.registry.discovery.discover import discover_chain
from tests.registry.discovery.services import FAR, HERE, service, state_of

NOW = 1_700_000_000 * 10**9
QUERY = ChainQuery(consumer=HERE, model="m", blocks=LayerRange(0, 10))


def part(service_id: str, start: int, stop: int, **attributes: Any) -> ServiceInfo:
    return service(service_id, model="m", layers=(start, stop), **attributes)


def pace(service: ServiceInfo, block_ms: float, rtt_ms: float | None = 1.0, age_s: float = 0.0) -> Kpis:
    """KPIs of a service whose blocks take so long each."""
    assert service.capabilities is not None
    assert service.capabilities.layers is not None
    blocks = len(service.capabilities.layers)
    return Kpis(measured_unix_ns=NOW - round(age_s * 1e9), tokens_per_s=1000 / (block_ms * blocks), rtt_ms=rtt_ms)


def ask(offers: list[tuple[ServiceInfo, Kpis | None]], hop_ms: HopTime | None = None, **query: Any) -> Chain | NoChain:
    services = [service for service, _ in offers]
    kpis = {service.service_id: known for service, known in offers if known is not None}
    return find_chain(services, kpis, replace(QUERY, **query), NOW, hop_ms)


def offer(
    service_id: str, start: int, stop: int, block_ms: float, rtt_ms: float = 1.0, **attributes: Any
) -> tuple[ServiceInfo, Kpis]:
    made = part(service_id, start, stop, **attributes)
    return made, pace(made, block_ms, rtt_ms)


def calls(answer: Chain | NoChain) -> list[tuple[str, str]]:
    assert isinstance(answer, Chain), answer
    return [(call.service_id, str(call.layers)) for call in answer.calls]


def refused(answer: Chain | NoChain) -> NoChain:
    assert isinstance(answer, NoChain), answer
    return answer


def test_one_service_that_has_all_blocks_is_a_chain():
    answer = ask([offer("all", 0, 12, 2.0)])
    assert calls(answer) == [("all", "[0, 10)")]
    assert isinstance(answer, Chain)
    assert answer.latency_ms == pytest.approx(21.0)
    assert answer.explanation() == "all [0, 10) (1.00 ms hop, 20.00 ms compute): 21.00 ms a token"


def test_services_that_have_a_part_each_are_put_together_and_cut_where_it_is_fastest():
    answer = ask([offer("slow", 0, 7, 3.0), offer("fast", 4, 10, 1.0)])
    assert calls(answer) == [("slow", "[0, 4)"), ("fast", "[4, 10)")]


def test_a_hop_that_costs_more_than_it_gains_is_not_taken():
    assert calls(ask([offer("all", 0, 10, 1.0), offer("faster", 5, 10, 0.5, rtt_ms=2.0)])) == [
        ("all", "[0, 5)"),
        ("faster", "[5, 10)"),
    ]
    assert calls(ask([offer("all", 0, 10, 1.0), offer("faster", 5, 10, 0.5, rtt_ms=3.0)])) == [("all", "[0, 10)")]


def test_a_service_may_be_called_again_around_a_faster_one():
    answer = ask([offer("wide", 0, 10, 2.0), offer("quick", 3, 7, 0.1)])
    assert calls(answer) == [("wide", "[0, 3)"), ("quick", "[3, 7)"), ("wide", "[7, 10)")]
    assert calls(ask([offer("wide", 0, 10, 2.0), offer("quick", 3, 7, 0.1)], max_calls=2)) == [("wide", "[0, 10)")]


def test_blocks_that_nobody_has_are_named():
    answer = refused(ask([offer("a", 1, 3, 1.0), offer("b", 5, 7, 1.0)]))
    assert answer.uncovered == (LayerRange(0, 1), LayerRange(3, 5), LayerRange(7, 10))
    assert answer.reason == "no service may serve blocks [0, 1), [3, 5), [7, 10) of 'm'; left out: none"


def test_who_was_left_out_and_why_is_counted():
    made = part("unmeasured", 0, 10)
    stale = part("stale", 0, 10)
    still = part("still", 0, 10)
    answer = refused(
        ask(
            [
                offer("suspended", 0, 10, 1.0, state=ServiceState.SUSPENDED),
                offer("elsewhere", 10, 20, 1.0),
                (replace(made, service_id="other", capabilities=replace(made.capabilities, model="n")), None),
                (made, None),
                (replace(made, service_id="no-rtt"), pace(made, 1.0, rtt_ms=None)),
                (stale, pace(stale, 1.0, age_s=11)),
                (still, Kpis(measured_unix_ns=NOW, tokens_per_s=0, rtt_ms=1)),
                offer("strange", 0, 10, 1.0, trust_level=1),
            ],
            max_kpi_age_s=10.0,
            trust_at_least=2,
        )
    )
    assert answer.uncovered == (LayerRange(0, 10),)
    assert answer.reason.endswith(
        "left out: 1 not ACTIVE, 1 of another model, 5 trusted less than 2, 1 without a block of [0, 10)"
    )
    trusting = ask(
        [
            (still, Kpis(measured_unix_ns=NOW, tokens_per_s=0, rtt_ms=1)),
            (stale, pace(stale, 1.0, age_s=11)),
            (made, None),
            offer("z", 0, 10, 1.0),
        ],
        max_kpi_age_s=10.0,
    )
    assert isinstance(trusting, Chain)
    assert trusting.left_out == {
        "at 0 tokens per second": 1,
        "KPIs older than 10 s": 1,
        "without measured tokens_per_s and rtt_ms": 1,
    }


def test_all_blocks_need_trust_unless_ends_are_named():
    offers = [offer("open", 0, 10, 1.0), offer("own", 0, 10, 5.0, trust_level=1)]
    assert calls(ask(offers, trust_at_least=1)) == [("own", "[0, 10)")]
    assert calls(ask(offers, trust_at_least=1, trusted_first=2, trusted_last=1)) == [
        ("own", "[0, 2)"),
        ("open", "[2, 9)"),
        ("own", "[9, 10)"),
    ]
    assert calls(ask(offers, trust_at_least=1, trusted_first=2)) == [("own", "[0, 2)"), ("open", "[2, 10)")]
    assert calls(ask(offers, trust_at_least=1, trusted_first=6, trusted_last=6)) == [("own", "[0, 10)")]


def test_a_bound_on_latency_that_is_missed_says_by_how_much():
    offers = [offer("a", 0, 10, 2.0)]
    assert isinstance(ask(offers, max_latency_ms=21.0), Chain)
    answer = refused(ask(offers, max_latency_ms=20.0))
    assert answer.reason == "the cheapest chain takes 21.00 ms a token, more than 20 ms"
    assert answer.cheapest is not None
    assert answer.cheapest.latency_ms == pytest.approx(21.0)


def test_a_bound_on_calls_that_is_missed_says_how_many_it_takes():
    offers = [offer("a", 0, 4, 1.0), offer("b", 4, 8, 1.0), offer("c", 8, 10, 1.0)]
    answer = refused(ask(offers, max_calls=2))
    assert answer.reason == (
        "no chain of at most 2 calls covers blocks [0, 10) of 'm'; without that limit the cheapest makes 3"
    )
    assert answer.cheapest is not None
    assert calls(answer.cheapest) == [("a", "[0, 4)"), ("b", "[4, 8)"), ("c", "[8, 10)")]


def links(**ms: float) -> Callable[[str | None, str | None], float | None]:
    """Hop times by names of both ends, the consumer being `me`."""
    return lambda source, target: ms.get(f"{source or 'me'}_{target or 'me'}")


def test_with_links_each_service_hands_over_to_the_next():
    offers = [offer("a", 0, 5, 1.0), offer("b", 5, 10, 1.0), offer("c", 5, 10, 0.9)]
    answer = ask(offers, links(me_a=1, a_b=2, a_c=9, b_me=3, c_me=3))
    assert calls(answer) == [("a", "[0, 5)"), ("b", "[5, 10)")]
    assert isinstance(answer, Chain)
    assert ([call.hop_ms for call in answer.calls], answer.return_ms) == ([1, 2], 3)
    assert answer.explanation().endswith(
        "-> b [5, 10) (2.00 ms hop, 5.00 ms compute) -> back (3.00 ms): 16.00 ms a token"
    )


def test_services_that_no_link_joins_are_no_chain():
    offers = [offer("a", 0, 5, 1.0), offer("b", 5, 10, 1.0)]
    answer = refused(ask(offers, links(me_a=1, me_b=1, a_me=1, b_me=1)))
    assert answer.reason == "services cover blocks [0, 10) of 'm', but no links join them to a chain"


@pytest.mark.parametrize("ms", [-1.0, nan, inf])
def test_hops_are_times(ms: float):
    with pytest.raises(ValueError, match="a hop takes a finite number of milliseconds"):
        ask([offer("a", 0, 10, 1.0)], lambda source, target: ms)


def test_chains_that_are_too_many_to_search_are_refused():
    offers = [offer(str(number), 0, 1024, 1.0) for number in range(50)]
    blocks = LayerRange(0, 1024)
    with pytest.raises(ValueError, match="50 services for 1024 blocks are too many to search; ask for fewer blocks"):
        ask(offers, lambda source, target: 1.0, blocks=blocks)


def test_the_registry_is_asked_for_services_of_the_model_that_the_consumer_may_learn_of():
    near, far = part("near", 0, 10), part("far", 0, 10, locality=FAR, consumed_local_only=True)
    kpis = {"near": pace(near, 2.0), "far": pace(far, 1.0)}
    state = state_of([near, far, service("else")])
    answer = discover_chain(state, kpis, QUERY, NOW)
    assert calls(answer) == [("near", "[0, 10)")]
    assert isinstance(answer, Chain)
    assert answer.left_out == {}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"model": ""}, "needs the model"),
        ({"blocks": LayerRange(0, 1025)}, "at most 1024 blocks, found 1025"),
        ({"max_calls": 0}, "max_calls must be from 1 to 64, found 0"),
        ({"trusted_first": -1}, "trusted_first must be 0 or more, found -1"),
        ({"trusted_last": -2}, "trusted_last must be 0 or more"),
        ({"trust_at_least": -1}, "trust_at_least must be 0 or more"),
        ({"max_latency_ms": nan}, "max_latency_ms must be a finite number above 0"),
        ({"max_latency_ms": 0.0}, "max_latency_ms must be a finite number above 0"),
        ({"max_kpi_age_s": -1.0}, "max_kpi_age_s must be"),
        ({"quantisations": frozenset({"x" * 257})}, "a value of quantisations has at most"),
    ],
)
def test_queries_are_bounded(query: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        replace(QUERY, **query)


# Exactness

BLOCKS = 5
OFFERS = st.lists(
    st.tuples(
        st.integers(0, BLOCKS - 1),
        st.integers(1, BLOCKS + 1),
        st.sampled_from([0.5, 1.0, 1.5, 4.0]),
        st.sampled_from([0.0, 0.5, 2.0]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=4,
)


def best_of_all(offers: list[tuple[ServiceInfo, Kpis]], query: ChainQuery, hop_ms: HopTime) -> tuple[float, int] | None:
    """The lowest latency and with it the fewest calls, by trying every sequence of services and cuts."""
    found: list[tuple[float, int]] = []

    def may_serve(offered: ServiceInfo, block: int) -> bool:
        assert offered.capabilities is not None
        position, rest = block - query.blocks.start, query.blocks.stop - block - 1
        ends_only = query.trusted_first is not None or query.trusted_last is not None
        exposed = position < (query.trusted_first or 0) or rest < (query.trusted_last or 0) if ends_only else True
        return block in list(offered.capabilities.layers or ()) and (
            offered.capabilities.trust_level >= query.trust_at_least or not exposed
        )

    def extend(block: int, last: str | None, cost: float, made: int) -> None:
        if block == query.blocks.stop:
            back = hop_ms(last, None)
            if back is not None:
                found.append((round(cost + back, 6), made))
            return
        if made == query.max_calls:
            return
        for offered, kpis in offers:
            way = hop_ms(last, offered.service_id)
            if way is None or offered.service_id == last:
                continue
            assert kpis.tokens_per_s is not None
            block_ms = 1000 / kpis.tokens_per_s / len(offered.capabilities.layers)
            stop = block
            while stop < query.blocks.stop and may_serve(offered, stop):
                stop += 1
                extend(stop, offered.service_id, cost + way + (stop - block) * block_ms, made + 1)

    extend(query.blocks.start, None, 0.0, 0)
    return min(found, default=None)


@settings(max_examples=200)
@given(
    OFFERS,
    st.integers(0, 2),
    st.sampled_from([None, 0, 1, 2]),
    st.sampled_from([None, 0, 1]),
    st.integers(1, 5),
    st.booleans(),
    st.data(),
)
def test_no_chain_is_faster_than_the_one_that_is_found(
    drawn: list[tuple[int, int, float, float, int]],
    trust: int,
    first: int | None,
    last: int | None,
    most: int,
    linked: bool,
    data: st.DataObject,
):
    offers = [
        offer(f"s{number}", start, max(stop, start + 1), block_ms, rtt_ms, trust_level=level)
        for number, (start, stop, block_ms, rtt_ms, level) in enumerate(drawn)
    ]
    query = replace(
        QUERY,
        blocks=LayerRange(0, BLOCKS),
        trust_at_least=trust,
        trusted_first=first,
        trusted_last=last,
        max_calls=most,
    )
    ends = [None, *(service.service_id for service, _ in offers)]
    if linked:
        times = {
            (source, target): data.draw(st.sampled_from([None, 0.0, 0.5, 3.0])) for source in ends for target in ends
        }
    else:
        times = {(source, service.service_id): kpis.rtt_ms for source in ends for service, kpis in offers} | {
            (source, None): 0.0 for source in ends
        }

    def hop_ms(source: str | None, target: str | None) -> float | None:
        return times[source, target]

    answer = find_chain(
        [service for service, _ in offers],
        {service.service_id: kpis for service, kpis in offers},
        query,
        NOW,
        hop_ms if linked else None,
    )
    best = best_of_all(offers, query, hop_ms)
    if isinstance(answer, NoChain):
        assert best is None
        return
    assert best is not None
    assert (answer.latency_ms, len(answer.calls)) == (pytest.approx(best[0]), best[1])
    assert [block for call in answer.calls for block in call.layers] == list(query.blocks)
