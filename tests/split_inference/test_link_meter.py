"""What frames tell of a link, on links made of arithmetic: rates are found, noise is none, probing keeps to its budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_apps.split_inference.link_meter import (
    ASK_AGAIN_S,
    ASK_EVERY_S,
    FRAME_OVERHEAD_BYTES,
    LOST_AFTER_S,
    PROBE_SHARE,
    SMALL_FRAME_BYTES,
    LinkMeter,
    ProbeBudget,
)

PEER_CLOCK_AHEAD_S = 12_345.678


class Wire:
    """One direction at a rate and a round trip; whatever is sent waits for what was sent before."""

    def __init__(self, bytes_per_s: float, round_trip_s: float) -> None:
        self.meter = LinkMeter()
        self.rate = bytes_per_s
        self.round_trip_s = round_trip_s
        self.now_s = 0.0
        self._free_s = 0.0
        self._answers: list[tuple[float, float]] = []
        self.asked = 0

    def send(self, size_bytes: int, at_s: float, receiver_delay_s: float = 0.0) -> None:
        """A frame that is ready at `at_s`; answers that are due until then have come."""
        self.settle(at_s)
        asks = self.meter.ask(size_bytes, at_s, at_s)
        self.meter.wrote(at_s)
        self._free_s = max(self._free_s, at_s) + size_bytes / self.rate
        if asks:
            self.asked += 1
            arrived_s = self._free_s + self.round_trip_s / 2 + receiver_delay_s
            self._answers.append((arrived_s + self.round_trip_s / 2, arrived_s + PEER_CLOCK_AHEAD_S))

    def settle(self, until_s: float) -> None:
        while self._answers and self._answers[0][0] <= until_s:
            answered_s, peer_clock_s = self._answers.pop(0)
            self.meter.arrived(peer_clock_s, answered_s)


@given(st.floats(20e3, 20e6), st.floats(0.0005, 0.2))
@settings(derandomize=True, deadline=None)
def test_large_frames_that_find_the_link_at_rest_tell_its_rate(rate: float, round_trip_s: float) -> None:
    wire = Wire(rate, round_trip_s)
    size = int(rate * 0.05)  # fifty milliseconds of it
    if size <= SMALL_FRAME_BYTES:
        return
    for number in range(4):
        wire.send(size, number * 1.0)
    wire.settle(10.0)
    assert wire.meter.take_rate(round_trip_s).bytes_per_s == pytest.approx(rate, rel=0.01)


@given(st.floats(50e3, 20e6), st.floats(0.0005, 0.2))
@settings(derandomize=True, deadline=None)
def test_frames_in_a_row_tell_the_rate_by_the_receivers_clock_alone(rate: float, round_trip_s: float) -> None:
    wire = Wire(rate, round_trip_s)
    wire.meter.take_rate(round_trip_s)
    for _ in range(6):
        wire.send(max(8192, int(rate * 0.05)), 1.0)
    wire.settle(100.0)
    assert wire.meter.take_rate(round_trip_s).bytes_per_s == pytest.approx(rate, rel=0.01)


def test_frames_that_are_not_asked_for_count_with_the_next_one_that_is() -> None:
    wire = Wire(100e3, 0.002)
    wire.meter.take_rate(0.002)
    wire.send(9000, 1.0)
    for _ in range(3):
        wire.send(2000, 1.0)
    wire.send(9000, 1.0)
    wire.settle(10.0)
    assert wire.asked == 2
    assert wire.meter.take_rate(0.002).bytes_per_s == pytest.approx(100e3, rel=0.01)


def test_a_delayed_receiver_makes_no_slow_link() -> None:
    """Half of the frames wait for a busy receiver; the quickest of them say what the link does, or nothing."""
    noise = random.Random(3)
    fast = Wire(1e9, 0.001)
    for number in range(40):
        fast.send(2304, 0.25 * number, receiver_delay_s=noise.choice([0.0, 0.02]))
    fast.settle(20.0)
    told = fast.meter.take_rate(0.001)
    assert told.bytes_per_s == 0.0
    assert told.at_least > 500e3
    slow = Wire(50e3, 0.001)
    for number in range(40):
        slow.send(2304, 0.25 * number, receiver_delay_s=noise.choice([0.0, 0.02]))
    slow.settle(20.0)
    assert slow.meter.take_rate(0.001).bytes_per_s == pytest.approx(50e3, rel=0.01)


def test_small_frames_tell_the_round_trip_and_ask_a_few_times_a_second_only() -> None:
    wire = Wire(10e6, 0.03)
    for number in range(500):
        wire.send(52, number * 0.04)
    wire.settle(100.0)
    assert wire.asked == pytest.approx(500 * 0.04 / ASK_EVERY_S, rel=0.1)
    assert wire.meter.take_round_trip_s() == pytest.approx(0.03, rel=0.01)
    assert wire.meter.take_round_trip_s() == 0.0


@pytest.mark.parametrize(("rate", "every_s"), [(10e6, ASK_EVERY_S), (150e3, ASK_AGAIN_S)], ids=["quick", "slow"])
def test_frames_ask_more_often_where_they_take_long(rate: float, every_s: float) -> None:
    wire = Wire(rate, 0.002)
    wire.meter.take_rate(0.002)
    for number in range(200):
        wire.send(2304, number * 0.05)
    assert wire.asked == pytest.approx(200 * 0.05 / every_s, rel=0.35)


def test_what_a_broken_stream_left_unanswered_is_not_taken_for_the_next_ones() -> None:
    wire = Wire(100e3, 0.002)
    wire.send(9000, 1.0)
    wire.meter.reset()
    wire.settle(5.0)
    assert wire.meter.is_at_rest
    assert wire.meter.take_rate(0.002).at_least == 0.0


def test_a_peer_that_does_not_answer_is_asked_in_spells() -> None:
    meter = LinkMeter()
    asked = [at_s / 10 for at_s in range(400) if meter.ask(9000, at_s / 10, at_s / 10)]
    assert len(asked) <= 0.6 * 400
    assert asked[-1] > 40 - 2 * LOST_AFTER_S - 1  # it may have come to answer them since


@given(
    st.lists(st.tuples(st.floats(0.05, 5), st.floats(1e3, 1e8)), min_size=5, max_size=60), st.sampled_from([512, 4096])
)
@settings(derandomize=True, deadline=None)
def test_probing_costs_no_more_than_its_share_whatever_the_rate_becomes(
    steps: list[tuple[float, float]], size: int
) -> None:
    budget, now_s, carried, spent, known = ProbeBudget(), 0.0, 0.0, 0, steps[0][1]
    budget.know(known, 0.0)
    for step_s, rate in steps:
        now_s += step_s
        carried += known * step_s
        if budget.allows(size, now_s):
            budget.spend(size)
            spent += size + FRAME_OVERHEAD_BYTES
        budget.know(rate, now_s)
        known = rate
    assert spent <= PROBE_SHARE * carried + 1e-6


def test_first_probes_are_free_and_owed() -> None:
    budget = ProbeBudget()
    assert budget.allows(4096, 0.0)
    budget.spend(4096)
    budget.know(50e3, 0.1)
    assert not budget.allows(0, 5.0)
    assert budget.allows(0, 9.0)
