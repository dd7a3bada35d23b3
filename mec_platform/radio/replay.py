"""The RAN adapter for radio traces: reports what was measured elsewhere as if it happened now, and says that it does.

One report for each line of a trace, at the distances in time that the lines have, divided by the speed. The trace names no
network, and its cells get the one that is given; without one that is 001-01, which 3GPP keeps for tests.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mec_platform.background import BackgroundTasks
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.radio.network import RadioSink
from mec_platform.radio.reports import MeasurementReported, UeDetached
from mec_platform.radio.values import (
    Cell,
    Measurement,
    Plmn,
    Quality,
    Technology,
    Ue,
    associate_of,
)

logger = logging.getLogger(__name__)

TEST_NETWORK = Plmn("001", "01")
EUTRA_DIGITS = 7
"""28 bits in hexadecimal; an NR cell identity has 36."""


class Pace(Protocol):
    """Monotonic time and waiting; `registry.clock.Clock` is one."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Returns when `seconds` have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """`speed` 2 is twice as fast as it was. With `loops` a trace begins anew at its end, else its UE leaves."""

    speed: float = 1.0
    loops: bool = True
    plmn: Plmn = TEST_NETWORK


@dataclass(frozen=True, slots=True)
class Trace:
    """What one UE measured; `name` is that of the file."""

    name: str
    measurements: Sequence[RadioMeasurement]


class TraceReplay:
    """Reports the traces of UEs, by their names, from `start` to `stop`."""

    def __init__(
        self, traces: Mapping[str, Trace], sink: RadioSink, pace: Pace, settings: ReplaySettings | None = None
    ) -> None:
        self._traces = traces
        self._sink = sink
        self._pace = pace
        self._settings = settings or ReplaySettings()
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins all traces at once. Raises ValueError where a name is none that a UE can have."""
        ues = {name: Ue((associate_of(name),)) for name in self._traces}
        for name, trace in self._traces.items():
            logger.warning(
                "radio information of UE %s is a REPLAY of %s at %g times its speed, not a measurement",
                name,
                trace.name,
                self._settings.speed,
            )
            self._tasks.start(f"replay of {trace.name}", self._replay(ues[name], trace))

    async def stop(self) -> None:
        """Breaks off; the UEs stay where they are."""
        await self._tasks.stop()

    async def _replay(self, ue: Ue, trace: Trace) -> None:
        source = f"replay of {trace.name}"
        settings = self._settings
        begins_s = self._pace.monotonic_s()
        while True:
            for each in trace.measurements:
                wait_s = begins_s + each.at_s / settings.speed - self._pace.monotonic_s()
                if wait_s > 0:
                    await self._pace.sleep(wait_s)
                self._sink.take(_report(ue, each, settings.plmn), source)
            if not settings.loops:
                self._sink.take(UeDetached(ue), source)
                return
            begins_s += _period_s(trace.measurements) / settings.speed


def _period_s(measurements: Sequence[RadioMeasurement]) -> float:
    """How long a trace lasts, its last line included: that one lasts as long as the others do on average."""
    last_s = measurements[-1].at_s
    return last_s + (last_s / (len(measurements) - 1) if last_s > 0 else 1.0)


def _report(ue: Ue, measured: RadioMeasurement, plmn: Plmn) -> MeasurementReported:
    technology = Technology.EUTRA if len(measured.cell) == EUTRA_DIGITS else Technology.NR
    quality = Quality(rsrp_dbm=measured.rsrp_dbm, sinr_db=measured.sinr_db)
    return MeasurementReported(
        ue,
        Cell(plmn, measured.cell, technology),
        measurement=Measurement(quality, round_trip_s=measured.round_trip_s),
    )
