"""What RAN adapters say, in the past tense; `radio_state` takes it in.

Every report about a UE may say by which cell it is served: the first one has to, and one that names another cell than was
known tells of a handover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mec_platform.radio.values import (
    CELL_COUNTERS,
    MOST_NEIGHBOURS,
    UE_COUNTERS,
    Bearer,
    BearerChange,
    Cell,
    HandoverStatus,
    Measurement,
    S1Bearer,
    Ue,
)

MOST_TARGETS = 16
MOST_CARRIERS = 31
"""Secondary cells of a UE (TS 36.331 and TS 38.331, maxNrofSCells)."""


@dataclass(frozen=True, slots=True)
class UeReport:
    """Something about a UE; by itself, that it is served by this cell."""

    ue: Ue
    cell: Cell | None = None


@dataclass(frozen=True, slots=True)
class UeDetached(UeReport):
    """It is connected no more, and its bearers are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverReported(UeReport):
    """A handover came to this status; `targets` are several only while it is prepared, and when it was rejected or cancelled.

    Raises:
        ValueError: there is no target, or there are more than the status allows.
    """

    status: HandoverStatus
    targets: tuple[Cell, ...]

    def __post_init__(self) -> None:
        one = self.status in (HandoverStatus.IN_EXECUTION, HandoverStatus.COMPLETED)
        most = 1 if one else MOST_TARGETS
        if not 1 <= len(self.targets) <= most:
            raise ValueError(f"a handover that is {self.status.name} has 1 to {most} targets, not {len(self.targets)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerReported(UeReport):
    """A radio access bearer was established, modified or released."""

    change: BearerChange
    bearer: Bearer


@dataclass(frozen=True, slots=True, kw_only=True)
class S1BearerReported(UeReport):
    """An S1 bearer was established, modified or released."""

    change: BearerChange
    bearer: S1Bearer


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementReported(UeReport):
    """The UE measured. Raises ValueError where it hears more neighbours than it can report."""

    measurement: Measurement

    def __post_init__(self) -> None:
        if len(self.measurement.neighbours) > MOST_NEIGHBOURS:
            raise ValueError(f"a measurement has at most {MOST_NEIGHBOURS} neighbours")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingAdvanceReported(UeReport):
    """TS 36.214 clause 5.2.4, in multiples of 16 Ts."""

    timing_advance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriersReported(UeReport):
    """Secondary cells were added to, or removed from, those that serve the UE; one that is both is removed."""

    added: tuple[Cell, ...] = ()
    removed: tuple[Cell, ...] = ()

    def __post_init__(self) -> None:
        if max(len(self.added), len(self.removed)) > MOST_CARRIERS:
            raise ValueError(f"a UE has at most {MOST_CARRIERS} secondary cells")


@dataclass(frozen=True, slots=True, kw_only=True)
class UeLoadReported(UeReport):
    """Layer 2 measurements of the UE. Raises ValueError where one is none of `UE_COUNTERS`."""

    counters: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_counters(self.counters, UE_COUNTERS)


@dataclass(frozen=True, slots=True)
class CellLoadReported:
    """Layer 2 measurements of a cell. Raises ValueError where one is none of `CELL_COUNTERS`."""

    cell: Cell
    counters: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_counters(self.counters, CELL_COUNTERS)


Report: TypeAlias = UeReport | CellLoadReported


def _check_counters(counters: Mapping[str, int], known: tuple[str, ...]) -> None:
    for name in counters:
        if name not in known:
            raise ValueError(f"{name[:80]!r} is no layer 2 measurement; there are: {', '.join(known)}")
