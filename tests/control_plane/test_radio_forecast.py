"""Forecasts of UEs' links on made-up rides: fades that are foreseen, noise that is not, and records that say which."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.monitoring.estimates import (
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    apply_radio,
    apply_reports,
    snapshot,
)
from mec_platform.control_plane.monitoring.radio_forecast import RadioState, UeState, forecast_link, observe_radio
from mec_platform.control_plane.monitoring.settings import RadioSettings
from mec_platform.control_plane.monitoring.signal_map import SignalMap
from mec_platform.domain.capacity import LinkCapacity
from mec_platform.domain.radio import RadioMeasurement

SETTINGS = RadioSettings()
LINK = LinkCapacity("gateway", "car", 2e6, 0.02)


def ride(*legs: tuple[float, float, float], cell: str = "a", jitter_s: float = 0.0) -> Iterator[RadioMeasurement]:
    """Legs of (seconds, RSRP at their begin, at their end), ten measurements a second; the round trip grows as RSRP falls."""
    noise = random.Random(4)
    at_s = 0.0
    for seconds, begin, end in legs:
        for number in range(int(seconds * 10)):
            rsrp = begin + (end - begin) * number / (seconds * 10)
            trip = 0.010 + 0.002 * (-60 - rsrp) + abs(noise.gauss(0, jitter_s))
            yield RadioMeasurement(at_s, "ue-1", cell, round(rsrp), round((rsrp + 100) / 2), trip)
            at_s += 0.1


def follow(measurements: Iterator[RadioMeasurement]) -> Iterator[tuple[RadioMeasurement, UeState]]:
    state = RadioState()
    for measurement in measurements:
        state = observe_radio(state, measurement, SETTINGS)
        yield measurement, state.ues["ue-1"]


def at_end(measurements: Iterator[RadioMeasurement]) -> UeState:
    *_, (_, ue) = follow(measurements)
    return ue


def test_a_fade_like_one_before_is_foretold_and_believed() -> None:
    up_and_down = [(20.0, -70.0, -100.0), (20.0, -100.0, -70.0)] * 3
    ue = at_end(ride(*up_and_down, (10.0, -70.0, -85.0)))
    assert ue.forecast is not None
    assert ue.record.told < 0.5 * ue.record.persistence
    assert ue.record.confidence > 0.5
    expected_s = 0.010 + 0.002 * (-60 + 85 + 1.5 * SETTINGS.after_s)
    assert ue.forecast.round_trip_s == pytest.approx(expected_s, rel=0.1)
    assert ue.forecast.rate_factor < 0.9


def test_a_rate_that_falls_with_the_signal_is_foretold_and_believed() -> None:
    ue = at_end(ride((24.0, -62.0, -110.0)))
    assert ue.forecast is not None
    sinr_db = (-110 + 100) / 2
    now, then = ((1 + 10 ** (db / 10)) for db in (sinr_db, sinr_db - SETTINGS.after_s))
    assert ue.forecast.rate_factor == pytest.approx((then - 1) / (now - 1), rel=0.2)
    assert ue.signal_record.confidence > 0.6


def test_round_trips_that_have_nothing_to_do_with_the_signal_are_not_claimed_to_be_foreseen() -> None:
    noise = random.Random(7)
    flat = (
        replace(each, round_trip_s=0.02 + (1.0 if noise.random() < 0.02 else 0.0))
        for each in ride((60.0, -80.0, -80.0))
    )
    ue = at_end(flat)
    assert ue.forecast is not None
    assert ue.forecast.round_trip_s == pytest.approx(0.02)
    walk = [0.05]
    for _ in range(599):  # of a random walk the latest value is the best forecast there is
        walk.append(max(0.01, walk[-1] + noise.gauss(0, 0.004)))
    wandering = (replace(each, round_trip_s=w) for each, w in zip(ride((60.0, -80.0, -80.0)), walk, strict=True))
    assert at_end(wandering).record.confidence < 0.3


def test_a_still_world_gives_no_confidence_to_forecasts_that_say_nothing() -> None:
    ue = at_end(ride((30.0, -80.0, -80.0)))
    assert ue.forecast is not None
    assert ue.forecast.confidence == 0.0
    assert ue.forecast.rate_factor == 1.0
    assert ue.forecast.breaks_in_s is None


def test_a_break_is_foreseen_at_the_edge_and_where_cells_were_left_before() -> None:
    warned = [(m.at_s, ue.forecast.breaks_in_s) for m, ue in follow(ride((20.0, -90.0, -112.0))) if ue.forecast]
    first_s, in_s = next((at_s, breaks) for at_s, breaks in warned if breaks is not None)
    assert first_s + in_s == pytest.approx(20.0, abs=1.5)
    assert in_s > 4.0
    first = list(ride((10.0, -70.0, -90.0)))
    second = (replace(m, at_s=m.at_s + 10.0, cell="b") for m in ride((8.0, -70.0, -86.0)))
    ue = at_end(iter([*first, *second]))
    assert ue.cell == "b"
    assert ue.left_dbm == (pytest.approx(-89.0, abs=1.0),)
    assert ue.forecast is not None
    assert ue.forecast.breaks_in_s == pytest.approx(1.5, abs=1.0)
    assert "where it left cells before" in ue.forecast.reason


def test_breaks_that_do_not_come_are_believed_less() -> None:
    dips = [(12.0, -90.0, -106.0), (8.0, -106.0, -90.0), (8.0, -90.0, -90.0)] * 3
    ue = at_end(ride(*dips))
    assert len(ue.breaks.came) == 3
    assert not any(ue.breaks.came)
    assert ue.breaks.confidence < 0.4
    left = at_end(iter([*ride((20.0, -90.0, -111.0)), RadioMeasurement(20.0, "ue-1", "b", -80.0, 10.0, 0.03)]))
    assert left.breaks.came == (True,)
    assert left.breaks.confidence == 0.75


def test_cells_and_ues_of_long_ago_are_forgotten() -> None:
    state = RadioState()
    for number in range(60):
        state = observe_radio(state, RadioMeasurement(100.0 * number, f"ue-{number}", "a", -80.0, 10.0, 0.02), SETTINGS)
        state = observe_radio(state, RadioMeasurement(100.0 * number, "bus", f"c{number}", -80.0, 10.0, 0.02), SETTINGS)
    assert len(state.ues) == 38  # those of the last hour, and the bus
    assert list(state.ues["bus"].by_sinr) == [f"c{number}" for number in range(44, 60)]


def test_a_stall_does_not_teach_that_the_signal_is_bad() -> None:
    known = SignalMap()
    for number in range(300):
        known = known.learn(10.0, 30.0 if number % 10 == 9 else 0.02)
    assert known.round_trip_s(10.0) == pytest.approx(0.02, rel=0.1)


@given(st.lists(st.tuples(st.floats(-20, 40), st.floats(1e-3, 60)), min_size=1, max_size=60))
@settings(derandomize=True, deadline=None)
def test_better_signal_never_means_a_longer_round_trip(measured: list[tuple[float, float]]) -> None:
    known = SignalMap()
    for signal_db, round_trip_s in measured:
        known = known.learn(signal_db, round_trip_s)
    told = [known.round_trip_s(signal / 2) for signal in range(-60, 100)]
    assert all(a is not None and b is not None and a >= b - 1e-9 for a, b in pairwise(told))


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(-140, -40), st.floats(-20, 40), st.none() | st.floats(0, 40)),
        min_size=1,
        max_size=40,
    )
)
@settings(derandomize=True, deadline=None, max_examples=50)
def test_whatever_is_measured_forecasts_are_finite_and_confidence_is_a_share(
    steps: list[tuple[float, float, float, float | None]],
) -> None:
    state, now_s = RadioState(), 0.0
    for number, (step_s, rsrp, sinr, round_trip_s) in enumerate(steps):
        now_s += step_s
        state = observe_radio(
            state, RadioMeasurement(now_s, "u", f"c{number // 9}", rsrp, sinr, round_trip_s), SETTINGS
        )
        told = forecast_link(LINK, ("u",), state, now_s, SETTINGS)
        assert told is not None
        assert 0.0 <= told.confidence <= 1.0
        assert 0.1 * LINK.bytes_per_s <= told.bytes_per_s <= 2 * LINK.bytes_per_s
        assert told.round_trip_s > 0
        assert told.breaks_in_s is None or 0 <= told.breaks_in_s <= SETTINGS.break_horizon_s


def test_links_of_members_behind_a_ue_get_its_forecast_and_no_others(world: SimpleNamespace) -> None:
    monitoring = MonitoringSettings()

    def report(name: str, ue: str) -> MemberReported:
        links = tuple((peer, 1e6, 0.02) for peer in ("car", "hub", "rack") if peer != name)
        return MemberReported(
            19.9, "node", name, f"{name}:1", "1", True, world.hardware, world.model(), 10, 0.001, 0.002, 1e-4, 0, 0.0, 0,
            links=links, ue=ue,
        )  # fmt: skip

    state, _ = apply_reports(
        MonitoringState(0.0), [report("car", "ue-1"), report("hub", ""), report("rack", "")], monitoring
    )
    bare = snapshot(state, 19.9, None, monitoring)
    for measurement in ride((20.0, -80.0, -104.0)):
        state = apply_radio(state, measurement, monitoring)
    seen = snapshot(state, 19.9, None, monitoring)
    behind = {(link.source, link.target) for link in seen.links if link.forecast is not None}
    assert behind == {("car", "hub"), ("car", "rack"), ("hub", "car"), ("rack", "car")}
    forecast = next(link.forecast for link in seen.links if link.forecast is not None)
    assert forecast.bytes_per_s < 1e6
    assert forecast.round_trip_s > 0.02
    assert forecast.breaks_in_s is not None
    untouched = {id(link) for link in bare.links}
    assert all(id(link) in untouched for link in seen.links if link.forecast is None)
    stale = snapshot(state, 26.0, None, monitoring)
    assert all(link.forecast is None for link in stale.links)
