"""Replays of traces: paced like the trace, faster where asked, over and over, and never without saying so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mec_platform.domain.radio import RadioMeasurement
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.replay import TEST_NETWORK, ReplaySettings, Trace, TraceReplay
from mec_platform.radio.reports import MeasurementReported, Report, UeDetached
from mec_platform.radio.values import AssociateKind, Technology
from mec_platform.traces.radio import read_radio_trace

LINES = """pub sub delay x y heading velocity cell sinr rsrp
1000 1020 20 1 1 0 0 5C4225714 23 -77
1050 1070 20 1 1 0 0 5C4225714 22 -78 more
1100 1130 30 1 1 0 0 5C422503D 9 -95
"""


class SteppingClock:
    """Whoever sleeps has slept; `slept` says for how long."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return round(self.now_s * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class Taken:
    """Implements `RadioSink`; `full` once so many reports have come."""

    def __init__(self, clock: SteppingClock, number: int) -> None:
        self.reports: list[tuple[float, Report, str]] = []
        self.full = asyncio.Event()
        self._clock, self._number = clock, number

    def take(self, report: Report, source: str) -> None:
        if len(self.reports) < self._number:
            self.reports.append((round(self._clock.now_s, 6), report, source))
        if len(self.reports) == self._number:
            self.full.set()


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    path = tmp_path / "a.txt"
    path.write_text(LINES)
    return Trace(path.name, read_radio_trace(path, "car"))


async def replay(trace: Trace, settings: ReplaySettings, number: int) -> list[tuple[float, Report, str]]:
    clock = SteppingClock()
    sink = Taken(clock, number)
    replayed = TraceReplay({"car": trace}, sink, clock, settings)
    replayed.start()
    await sink.full.wait()
    await replayed.stop()
    return sink.reports


async def test_reports_are_as_far_apart_as_the_lines_and_loop(trace):
    taken = await replay(trace, ReplaySettings(), 5)
    assert [at_s for at_s, _, _ in taken] == [0, 0.05, 0.1, 0.15, 0.2]
    assert taken[3][1] == taken[0][1]


async def test_a_replay_is_as_fast_as_asked_and_ends_where_it_is_not_to_loop(trace):
    taken = await replay(trace, ReplaySettings(speed=10, loops=False), 4)
    assert [at_s for at_s, _, _ in taken] == [0, 0.005, 0.01, 0.01]
    assert isinstance(taken[-1][1], UeDetached)


async def test_a_line_becomes_a_measurement_of_a_cell_in_the_network_for_tests(trace, caplog):
    ((_, first, source), *_) = await replay(trace, ReplaySettings(), 1)
    assert isinstance(first, MeasurementReported)
    assert first.cell is not None
    assert (first.cell.plmn, first.cell.cell_id, first.cell.technology) == (TEST_NETWORK, "5C4225714", Technology.NR)
    assert first.ue.associates[0].kind is AssociateKind.NAME
    quality = first.measurement.quality
    assert (quality.rsrp_dbm, quality.sinr_db, quality.rsrq_db) == (-77, 23, None)
    assert (first.measurement.round_trip_s, first.measurement.trigger) == (0.02, 0)
    assert source == "replay of a.txt"
    assert "REPLAY" in caplog.text


async def test_the_state_says_where_its_ues_come_from(trace):
    clock = SteppingClock()
    network = RadioNetwork(clock)
    happened = []
    network.add_listener(happened.append)
    replayed = TraceReplay({"10.0.0.7": trace}, network, clock)
    moved = asyncio.Event()
    network.add_listener(lambda _: len(happened) >= 4 and moved.set())
    replayed.start()
    await moved.wait()
    assert network.state.ues["10.0.0.7"].source == "replay of a.txt"
    assert [type(each).__name__ for each in happened[:4]] == ["Measured", "Measured", "CellChanged", "Measured"]
    await replayed.stop()


async def test_a_trace_of_one_line_does_not_hold_up_everything_else():
    taken = await replay(Trace("one", (RadioMeasurement(0, "car", "5C42250", -80, 1),)), ReplaySettings(), 3)
    assert [at_s for at_s, _, _ in taken] == [0, 1, 2]
    assert taken[0][1].cell.technology is Technology.EUTRA
