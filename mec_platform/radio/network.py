"""The one door for reports of RAN adapters: gives them their time, lets `radio_state` decide, and tells who listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeAlias

from mec_platform.radio.happenings import Happening
from mec_platform.radio.radio_state import RadioState
from mec_platform.radio.reports import Report

Listener: TypeAlias = Callable[[Happening], None]


class WallClock(Protocol):
    """The time of day."""

    def unix_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""


class RadioSink(Protocol):
    """The port that RAN adapters report to."""

    def take(self, report: Report, source: str) -> None:
        """Takes a report in; `source` names the adapter. Never blocks.

        Raises:
            ReportRefused: it contradicts what is known; nothing was changed.
        """


class RadioNetwork:
    """The radio network as this host knows it. It implements `RadioSink` and lives in memory only: RANs report anew."""

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self.state = RadioState()
        self.reports: Counter[str] = Counter()
        """How many were taken, by kind."""

    @property
    def now_unix_ns(self) -> int:
        """The time that reports are given now."""
        return self._clock.unix_ns()

    def add_listener(self, listener: Listener) -> None:
        """Has `listener` called with everything that happens, in order; it must not block."""
        self._listeners.append(listener)

    def take(self, report: Report, source: str) -> None:
        """As `RadioSink.take`."""
        happened = self.state.apply(report, self._clock.unix_ns(), source)
        self.reports[type(report).__name__] += 1
        for happening in happened:
            for listener in self._listeners:
                listener(happening)
