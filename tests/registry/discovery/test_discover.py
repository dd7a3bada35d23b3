"""Discovery as a consumer meets it: requirements, ranking, reasons; and what holds for every answer."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, nextafter
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mec_platform.domain.capabilities import KPI_NAMES, Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import ServiceInfo, ServiceState
from mec_platform.registry.discovery.discover import discover
from mec_platform.registry.discovery.grammar import ConditionError
from mec_platform.registry.discovery.measures import DISTANCE, SCALES, TRUST_LEVEL, Direction, Linear, Saturating
from mec_platform.registry.discovery.narrow import narrow
from mec_platform.registry.discovery.query import (
    MOST_PREFERENCES,
    MOST_RESULTS,
    MOST_VALUES,
    DiscoveryQuery,
    Preference,
    Ranking,
    Rejection,
)
from mec_platform.registry.discovery.ranking import MOST_WORK, rank
from mec_platform.registry.discovery.requirements import requirements_of
from mec_platform.registry.events import Occurrence, ServiceRemoved, ServiceUpdated
from mec_platform.registry.state_codec import decode_state, encode_state
from mec_platform.registry.transitions import apply_events
from tests.registry.discovery.services import FAR, HERE, NEXT_DOOR, service, state_of

NOW = 1_700_000_000 * 10**9
LOW_RTT = Preference(measure="rtt_ms", direction=Direction.MINIMISE)


def kpis(age_s: float = 0.0, **values: Any) -> Kpis:
    return Kpis(measured_unix_ns=NOW - round(age_s * 1e9), **values)


def ask(services: list[ServiceInfo], measured: dict[str, Kpis] | None = None, **query: Any) -> Ranking:
    return discover(state_of(services), measured or {}, DiscoveryQuery(**{"consumer": HERE, **query}), NOW)


def ids(ranking: Ranking) -> list[str]:
    return [each.service.service_id for each in ranking.candidates]


# Requirements


SERVICES = [
    service("a", name="chat", category="ai", model="m", layers=(0, 10), trust_level=2, quantisation="int4"),
    service("b", name="chat", model="m", layers=(5, 20), hardware_target="gpu", labels={"tier": "gold", "x": "1"}),
    service("c", name="maps", category="geo", locality=FAR, labels={"tier": "iron"}),
    service("d", name="chat", state=ServiceState.SUSPENDED, model="n", layers=(0, 10)),
    service("e", name="plain"),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, "abce"),
        ({"states": frozenset()}, "abcde"),
        ({"states": frozenset({ServiceState.SUSPENDED})}, "d"),
        ({"names": frozenset({"chat", "maps"})}, "abc"),
        ({"service_ids": frozenset({"b", "d", "gone"})}, "b"),
        ({"category_ids": frozenset({"ai", "geo"})}, "ac"),
        ({"model": "m"}, "ab"),
        ({"covers": LayerRange(5, 10)}, "ab"),
        ({"covers": LayerRange(0, 10)}, "a"),
        ({"intersects": LayerRange(10, 30)}, "b"),
        ({"quantisations": frozenset({"int4", "int8"})}, "a"),
        ({"hardware_targets": frozenset({"gpu"})}, "b"),
        ({"trust_at_least": 1}, "a"),
        ({"labels": {"tier": "gold"}}, "b"),
        ({"labels": {"tier": "gold", "x": "2"}}, ""),
        ({"scope_of_locality": LocalityType.ZONE}, ""),
        ({"scope_of_locality": LocalityType.MEC_HOST}, "abce"),
        ({"must_be_local": True}, "abe"),
        ({"must_be_local": True, "consumer": FAR}, "c"),
        ({"names": frozenset({"chat"}), "model": "m", "hardware_targets": frozenset({"gpu"})}, "b"),
        ({"condition": "service.trust_level > 0 || service.category == 'geo'"}, "ac"),
        ({"limit": 2}, "ab"),
    ],
)
def test_requirements_are_met_by(query: dict[str, Any], found: str):
    assert ids(ask(SERVICES, **query)) == list(found)


def test_what_is_kept_from_the_consumer_is_not_even_counted():
    secret = service("secret", locality=FAR, consumed_local_only=True)
    ranking = ask([secret], explain_rejected=True, states=frozenset({ServiceState.INACTIVE}))
    assert (ranking.candidates, ranking.rejected, ranking.rejections) == ((), {}, ())
    assert ids(ask([secret], consumer=FAR)) == ["secret"]


# Reasons


def test_says_why_others_are_not_there():
    services = [service(f"s-{number}") for number in range(6)]
    services[0] = replace(services[0], state=ServiceState.INACTIVE)
    measured = {
        "s-1": kpis(load=0.9),
        "s-2": kpis(age_s=12.34, load=0.1),
        "s-3": kpis(capacity=3),
        "s-5": kpis(age_s=9.9, load=0.1),
    }
    ranking = ask(services, measured, condition="kpi.load < 0.5", max_kpi_age_s=10.0, explain_rejected=True)
    assert ids(ranking) == ["s-5"]
    assert ranking.why_not_others() == "2 without kpi.load, 1 KPIs older than 10 s, 1 condition false, 1 not ACTIVE"
    assert ranking.rejections == (
        Rejection("s-0", "not ACTIVE: INACTIVE"),
        Rejection("s-1", "the condition is false"),
        Rejection("s-2", "the condition needs kpi.load, and the KPIs are 12.3 s old"),
        Rejection("s-3", "the condition needs kpi.load, which the service is without"),
        Rejection("s-4", "the condition needs kpi.load, which the service is without"),
    )


def test_reasons_one_by_one_are_given_where_they_are_asked_for():
    assert ask(SERVICES).rejected == {"not ACTIVE": 1}
    assert ask(SERVICES).rejections == ()


def test_each_requirement_says_what_it_found():
    query: dict[str, Any] = {
        "states": frozenset(),
        "model": "m",
        "quantisations": frozenset({"int4"}),
        "trust_at_least": 1,
        "covers": LayerRange(0, 10),
    }
    near = [
        service("1", model="m", quantisation="int8", trust_level=1, layers=(0, 10)),
        service("2", model="m", quantisation="int4", layers=(0, 10)),
        service("3", model="m", quantisation="int4", trust_level=1, layers=(0, 9)),
        service("4", model="m", quantisation="int4", trust_level=1),
    ]
    assert [each.reason for each in ask(near, explain_rejected=True, **query).rejections] == [
        "of another quantisation: int8",
        "trusted less than 1: 0",
        "without all blocks of [0, 10): [0, 9)",
        "without all blocks of [0, 10): says nothing",
    ]


def test_a_condition_that_is_none_fails_the_query_and_not_the_services():
    with pytest.raises(ConditionError, match=r"there is no kpi\.laod"):
        ask(SERVICES, condition="kpi.laod < 0.5")


def test_a_condition_over_too_many_services_is_refused_before_it_holds_up_others():
    long = " || ".join(["kpi.load < 0.0"] * 26)
    query = DiscoveryQuery(consumer=HERE, condition=long)
    many = [service(str(number)) for number in range(MOST_WORK // 100)]
    with pytest.raises(ValueError, match=r"more than [0-9]+ services; shorten it, or ask for names"):
        discover(state_of(many), {}, query, NOW)
    assert discover(state_of(many), {}, replace(query, names=frozenset({"none"})), NOW).matched == 0


# Ranking


def test_the_better_ones_come_first_with_the_reason():
    measured = {"near": kpis(age_s=2.0, rtt_ms=20.0, load=0.5), "far": kpis(rtt_ms=60.0, load=0.0)}
    preferences = (
        replace(LOW_RTT, weight=3.0),
        Preference(measure="load", direction=Direction.MINIMISE),
    )
    ranking = ask([service("far"), service("near")], measured, preferences=preferences)
    assert ids(ranking) == ["near", "far"]
    near, far = ranking.candidates
    assert (near.score, far.score) == (0.5, 0.25 * 0.75 + 0.25)
    rtt, load = near.contributions
    assert (rtt.value, rtt.normalised, rtt.contribution, rtt.note) == (20.0, 0.5, 0.375, "")
    assert (load.value, load.normalised, load.contribution) == (0.5, 0.5, 0.125)
    assert near.kpis == measured["near"]
    assert near.kpi_age_s == 2.0


def test_what_is_missing_or_too_old_counts_as_worst_and_says_so():
    measured = {"old": kpis(age_s=61.25, rtt_ms=1.0), "bad": kpis(rtt_ms=500.0)}
    services = [service(each) for each in ("unknown", "old", "bad")]
    ranking = ask(services, measured, preferences=(LOW_RTT,), max_kpi_age_s=60.0)
    assert ids(ranking) == ["bad", "old", "unknown"]
    assert [each.contributions[0].note for each in ranking.candidates] == [
        "",
        "61.2 s old, more than 60 s: counts as worst",
        "not measured: counts as worst",
    ]
    assert [each.kpi_age_s for each in ranking.candidates] == [0.0, 61.25, None]
    assert [each.score for each in ranking.candidates[1:]] == [0.0, 0.0]


def test_kpis_of_a_clock_that_is_ahead_are_new():
    ahead = ask([service("a")], {"a": kpis(age_s=-5, rtt_ms=20.0)}, preferences=(LOW_RTT,), max_kpi_age_s=1.0)
    assert (ahead.candidates[0].kpi_age_s, ahead.candidates[0].score) == (0.0, 0.5)


def test_nearer_and_more_trusted_services_can_be_preferred():
    services = [service("a", locality=FAR, trust_level=2), service("b", locality=NEXT_DOOR), service("c")]
    near = Preference(measure=DISTANCE, direction=Direction.MINIMISE)
    assert ids(ask(services, preferences=(near,))) == ["c", "b", "a"]
    assert [each.contributions[0].value for each in ask(services, preferences=(near,)).candidates] == [0, 3, 5]
    assert ids(ask(services, preferences=(Preference(measure=TRUST_LEVEL, direction=Direction.MAXIMISE),))) == [*"abc"]


def test_a_preference_may_say_what_is_worth_one_half():
    ranking = ask([service("a")], {"a": kpis(rtt_ms=2.0)}, preferences=(replace(LOW_RTT, half=2.0),))
    assert ranking.candidates[0].score == 0.5


def test_the_limit_cuts_the_answer_and_not_the_count():
    ranking = ask([service(str(number)) for number in range(5)], limit=2)
    assert (ids(ranking), ranking.matched) == (["0", "1"], 5)


VALUES = {
    name: st.floats(0, 1)
    if name == "load"
    else st.floats(-60, 60)
    if name == "radio_quality_db"
    else st.floats(0, 1e12)
    for name in KPI_NAMES
}
SOME_KPIS = st.builds(kpis, st.floats(0, 20), **{name: st.none() | value for name, value in VALUES.items()})
PREFERENCES = st.lists(
    st.builds(
        Preference,
        measure=st.sampled_from(list(SCALES)),
        direction=st.sampled_from(Direction),
        weight=st.floats(1e-3, 1e3),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each.measure,
).map(tuple)
POPULATION = [
    service(each, locality=place, trust_level=trust)
    for each, place, trust in zip("abcdef", 2 * [HERE, NEXT_DOOR, FAR], range(6), strict=True)
]
MEASURED = st.dictionaries(st.sampled_from("abcdef"), SOME_KPIS)


@given(MEASURED, PREFERENCES, st.sampled_from("abcdef"), st.data())
def test_becoming_better_never_costs_a_place(
    measured: dict[str, Kpis], preferences: tuple[Preference, ...], chosen: str, data: st.DataObject
):
    query = DiscoveryQuery(consumer=HERE, preferences=preferences, max_kpi_age_s=10.0)
    preferred = data.draw(st.sampled_from(preferences))
    assume(preferred.measure in KPI_NAMES)
    before = measured.get(chosen, kpis(age_s=5.0))
    value, better = data.draw(VALUES[preferred.measure]), getattr(before, preferred.measure)
    # What becomes known at last is better as well.
    if better is not None and (value < better) is not (preferred.direction is Direction.MINIMISE):
        value = better
    after = {**measured, chosen: replace(before, **{preferred.measure: value})}

    def place(known: dict[str, Kpis]) -> int:
        return ids(rank(POPULATION, known, query, NOW, None)).index(chosen)

    assert place(after) <= place({**measured, chosen: before})


@given(MEASURED, PREFERENCES)
def test_scores_are_fractions_that_their_contributions_explain(
    measured: dict[str, Kpis], preferences: tuple[Preference, ...]
):
    ranking = rank(POPULATION, measured, DiscoveryQuery(consumer=HERE, preferences=preferences), NOW, None)
    scores = [each.score for each in ranking.candidates]
    assert scores == sorted(scores, reverse=True)
    assert [(-each.score, each.service.service_id) for each in ranking.candidates] == sorted(
        (-each.score, each.service.service_id) for each in ranking.candidates
    )
    for each in ranking.candidates:
        assert 0 <= each.score <= 1
        assert sum(part.contribution for part in each.contributions) == pytest.approx(each.score)
        assert all(0 <= part.normalised <= 1 for part in each.contributions)


@given(MEASURED, PREFERENCES, st.permutations(POPULATION))
def test_the_order_of_the_candidates_does_not_matter(
    measured: dict[str, Kpis], preferences: tuple[Preference, ...], shuffled: list[ServiceInfo]
):
    query = DiscoveryQuery(consumer=HERE, preferences=preferences)
    assert rank(shuffled, measured, query, NOW, None) == rank(POPULATION, measured, query, NOW, None)


# A value whose successor would be worth less if worth were written as value / (half + value).
@example(Saturating(20.0), Direction.MAXIMISE, 56.52491278935117, 1)
@given(
    st.one_of(st.builds(Saturating, st.floats(1e-6, 1e9)), st.builds(Linear, st.floats(-50, 0), st.floats(1, 50))),
    st.sampled_from(Direction),
    st.floats(-1e3, 1e15),
    st.integers(1, 4),
)
def test_a_better_value_is_never_worth_less_down_to_the_last_bit(
    scale: Linear | Saturating, direction: Direction, value: float, ulps: int
):
    value = abs(value) if isinstance(scale, Saturating) else value
    more = value
    for _ in range(ulps):
        more = nextafter(more, inf)
    low, high = scale.worth(value, direction), scale.worth(more, direction)
    assert 0 <= low <= 1
    assert low <= high if direction is Direction.MAXIMISE else low >= high


# Indexes

POOL = [
    service(
        f"{name}{model}{target}{host}",
        name=name,
        model=model,
        hardware_target=target,
        category=name if model else "",
        locality=HERE if host else FAR,
        consumed_local_only=not model,
    )
    for name in ("x", "y")
    for model in ("", "m", "n")
    for target in ("", "cpu", "gpu")
    for host in (0, 1)
]
SETS = {
    "service_ids": st.frozensets(st.sampled_from([each.service_id for each in POOL] + ["gone"])),
    "names": st.frozensets(st.sampled_from(["x", "y", "z"])),
    "category_ids": st.frozensets(st.sampled_from(["x", "z"])),
    "model": st.sampled_from(["", "m", "n", "o"]),
    "hardware_targets": st.frozensets(st.sampled_from(["cpu", "gpu"])),
}


@given(st.fixed_dictionaries({}, optional=SETS), st.sampled_from([HERE, FAR]))
def test_the_sharpest_index_loses_nobody(query: dict[str, Any], consumer: Locality):
    wanted = DiscoveryQuery(consumer=consumer, **query)
    found = [each.service_id for each in narrow(state_of(POOL), wanted)]
    assert len(found) == len(set(found))
    meets = [
        each.service_id
        for each in POOL
        if each.is_offered_at(consumer) and all(one.holds(each) for one in requirements_of(wanted))
    ]
    assert set(meets) <= set(found)
    assert sorted(ids(discover(state_of(POOL), {}, wanted, NOW))) == sorted(meets)


def test_narrow_takes_the_index_with_the_fewest_services():
    services = [
        service(f"s-{each}", name="chat", model=f"m-{each % 10}", hardware_target=f"t-{each}") for each in range(50)
    ]
    state = state_of(services)
    query = DiscoveryQuery(consumer=HERE, names=frozenset({"chat"}), model="m-3")
    assert len(list(narrow(state, query))) == 5
    assert len(list(narrow(state, replace(query, hardware_targets=frozenset({"t-3", "t-4"}))))) == 2
    assert len(list(narrow(state, replace(query, service_ids=frozenset({"s-1"}))))) == 1


def test_capabilities_that_change_or_go_leave_no_trace_in_the_index():
    state = state_of([service("a", model="m", hardware_target="cpu")])
    assert list(state.services_with(("model", "m"))) == list(state.services_with(("target", "cpu"))) == ["a"]
    moved = service("a", model="n", hardware_target="cpu")
    state, _ = apply_events(state, [Occurrence(state.revision + 1, 7, ServiceUpdated(moved))])
    assert (list(state.services_with(("model", "m"))), list(state.services_with(("model", "n")))) == ([], ["a"])
    restored = decode_state(b"".join(encode_state(state)))
    assert restored.services_by == state.services_by
    state, _ = apply_events(state, [Occurrence(state.revision + 1, 8, ServiceRemoved("a"))])
    assert not state.services_by


# Bounds


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"names": frozenset(map(str, range(MOST_VALUES + 1)))}, "names takes at most 256 values, found 257"),
        ({"quantisations": frozenset({"x" * 257})}, "a value of quantisations has at most 256 characters"),
        ({"model": "x" * 257}, "a value of model has at most 256"),
        ({"labels": {str(number): "" for number in range(33)}}, "labels takes at most"),
        ({"trust_at_least": -1}, "trust_at_least must be 0 or more, found -1"),
        ({"limit": 0}, "limit must be from 1 to 1000, found 0"),
        ({"limit": MOST_RESULTS + 1}, "limit must be from 1 to 1000"),
        ({"max_kpi_age_s": 0.0}, "max_kpi_age_s must be a finite number above 0"),
        ({"max_kpi_age_s": nan}, "max_kpi_age_s must be a finite number above 0"),
        ({"max_kpi_age_s": inf}, "max_kpi_age_s must be a finite number above 0"),
        ({"preferences": (LOW_RTT, replace(LOW_RTT, weight=2))}, "rtt_ms is preferred by twice"),
        ({"preferences": (LOW_RTT,) * (MOST_PREFERENCES + 1)}, "at most 16 preferences, found 17"),
    ],
)
def test_queries_are_bounded(query: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        DiscoveryQuery(consumer=HERE, **query)


@pytest.mark.parametrize(
    ("preference", "problem"),
    [
        ({"measure": "speed"}, "there is no measure 'speed' to prefer by; there are load, .*, distance, trust_level"),
        ({"weight": 0.0}, "the weight of rtt_ms must be above 0"),
        ({"weight": nan}, "the weight of rtt_ms must be above 0"),
        ({"weight": 1e7}, "at most 1e\\+06, found 10000000"),
        ({"half": -1.0}, "the half of rtt_ms must be a finite number above 0"),
        ({"measure": "load", "half": 0.5}, "load has a scale with two ends; leave its half out"),
    ],
)
def test_preferences_are_bounded(preference: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        Preference(**{"measure": "rtt_ms", "direction": Direction.MINIMISE, **preference})


@given(
    st.builds(Locality, mec_host=st.sampled_from("ab"), zone=st.sampled_from(["", "z"]), mec_system=st.just("s")),
    st.builds(Locality, mec_host=st.sampled_from("ab"), zone=st.sampled_from(["", "z"])),
)
def test_distance_is_the_same_both_ways_and_nothing_on_one_node(here: Locality, there: Locality):
    assert here.steps_to(here) == 0
    assert here.steps_to(there) == there.steps_to(here)
    assert (here.steps_to(there) == 0) is (here.mec_host == there.mec_host)
