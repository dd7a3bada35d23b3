"""What is known of the radio network, as a pure state machine: reports in, news out. No clock, no input or output.

It changes by `RadioState.apply` alone. Whatever is reported, it holds no more than `most_ues` UEs and `most_cells` loads of cells,
each of bounded size: those of which nothing was heard for longest are forgotten first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, assert_never

from mec_platform.radio.happenings import (
    BearerChanged,
    CarriersReconfigured,
    CellChanged,
    Happening,
    Measured,
    S1BearerChanged,
    TimingAdvanceChanged,
)
from mec_platform.radio.reports import (
    MOST_CARRIERS,
    BearerReported,
    CarriersReported,
    CellLoadReported,
    HandoverReported,
    MeasurementReported,
    Report,
    S1BearerReported,
    TimingAdvanceReported,
    UeDetached,
    UeLoadReported,
    UeReport,
)
from mec_platform.radio.values import Bearer, BearerChange, Cell, HandoverStatus, Measurement, Plmn, S1Bearer, Ue

AnyBearer = TypeVar("AnyBearer", Bearer, S1Bearer)

MOST_UES = 10_000
"""Far more than the cells of one MEC host serve; a UE takes about 2 kB."""

MOST_CELLS = 1_000


class ReportRefused(ValueError):
    """A report that contradicts what is known, or cannot be placed; the message says what to report instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UeRecord:
    """What is known of a UE. `source` is the adapter that last said something; times are Unix time in ns, 0 before the first."""

    ue: Ue
    cell: Cell
    source: str = ""
    seen_unix_ns: int = 0
    handover: tuple[HandoverStatus, tuple[Cell, ...]] | None = None
    bearers: Mapping[int, Bearer] = field(default_factory=dict)
    s1_bearers: Mapping[int, S1Bearer] = field(default_factory=dict)
    carriers: tuple[Cell, ...] = ()
    measurement: Measurement | None = None
    measured_unix_ns: int = 0
    timing_advance: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)


class RadioState:
    """UEs by name, those of which was heard last at the end, and loads of cells likewise."""

    def __init__(self, most_ues: int = MOST_UES, most_cells: int = MOST_CELLS) -> None:
        self._most_ues = most_ues
        self._most_cells = most_cells
        self._ues: dict[str, UeRecord] = {}
        self._loads: dict[Cell, Mapping[str, int]] = {}

    @property
    def ues(self) -> Mapping[str, UeRecord]:
        """A live view."""
        return self._ues

    @property
    def loads(self) -> Mapping[Cell, Mapping[str, int]]:
        """Layer 2 measurements by cell; a live view."""
        return self._loads

    def plmns(self) -> list[Plmn]:
        """The networks of all cells that are known, in a fixed order."""
        cells = [*(each.cell for each in self._ues.values()), *self._loads]
        return sorted({each.plmn for each in cells}, key=lambda each: (each.mcc, each.mnc))

    def apply(self, report: Report, at_unix_ns: int, source: str = "") -> tuple[Happening, ...]:
        """Takes a report in, and returns what of it is news, in order.

        Raises:
            ReportRefused: nothing was changed.
        """
        if isinstance(report, CellLoadReported):
            self._loads.pop(report.cell, None)
            self._loads[report.cell] = dict(report.counters)
            _shrink(self._loads, self._most_cells)
            return ()
        before = self._ues.get(report.ue.name)
        if before is None and isinstance(report, UeDetached):
            return ()
        served, moved = _place(before, report, at_unix_ns)
        after, news = _take(served, report, at_unix_ns)
        self._ues.pop(report.ue.name, None)
        if after is not None:
            self._ues[report.ue.name] = replace(after, source=source, seen_unix_ns=at_unix_ns)
            _shrink(self._ues, self._most_ues)
        return (*moved, *news)


def _shrink(records: dict[Any, Any], most: int) -> None:
    while len(records) > most:
        del records[next(iter(records))]


def _place(before: UeRecord | None, report: UeReport, at_unix_ns: int) -> tuple[UeRecord, tuple[Happening, ...]]:
    """The UE where it is served now; that it was elsewhere before is news."""
    if before is None:
        if report.cell is None:
            raise ReportRefused(f"UE {report.ue.name!r} is not known: its first report must name its cell")
        return UeRecord(ue=report.ue, cell=report.cell), ()
    known = replace(before, ue=report.ue)
    if report.cell in (None, before.cell) or _is_done(before, report):
        return known, ()
    return _hand_over(known, (report.cell,), HandoverStatus.COMPLETED, at_unix_ns)


def _is_done(before: UeRecord, report: UeReport) -> bool:
    """A handover that is reported again begins where the UE is not any more."""
    match report:
        case HandoverReported(status=HandoverStatus.COMPLETED, targets=targets):
            return targets == (before.cell,)
    return False


def _hand_over(
    before: UeRecord, targets: tuple[Cell, ...], status: HandoverStatus, at_unix_ns: int
) -> tuple[UeRecord, tuple[Happening, ...]]:
    news = CellChanged(at_unix_ns=at_unix_ns, ue=before.ue, cell=before.cell, targets=targets, status=status)
    if status is not HandoverStatus.COMPLETED:
        return replace(before, handover=(status, targets)), (() if before.handover == (status, targets) else (news,))
    (target,) = targets
    if target == before.cell:
        return replace(before, handover=None), ()
    # What was measured of the old cell says nothing of the new one.
    after = replace(before, cell=target, handover=None, measurement=None, measured_unix_ns=0, timing_advance=None)
    return after, (news,)


def _take(before: UeRecord, report: UeReport, at_unix_ns: int) -> tuple[UeRecord | None, tuple[Happening, ...]]:
    match report:
        case UeDetached():
            return None, tuple(_release_all(before, at_unix_ns))
        case HandoverReported(status=status, targets=targets):
            return _hand_over(before, targets, status, at_unix_ns)
        case BearerReported() | S1BearerReported():
            return _take_bearer(before, report, at_unix_ns)
        case MeasurementReported(measurement=measurement):
            return _take_measurement(before, measurement, at_unix_ns)
        case TimingAdvanceReported(timing_advance=advance):
            changed = TimingAdvanceChanged(
                at_unix_ns=at_unix_ns, ue=before.ue, cell=before.cell, timing_advance=advance
            )
            return replace(before, timing_advance=advance), () if advance == before.timing_advance else (changed,)
        case CarriersReported():
            return _take_carriers(before, report, at_unix_ns)
        case UeLoadReported(counters=counters):
            return replace(before, counters=dict(counters)), ()
        case _:
            return before, ()


def _take_bearer(
    before: UeRecord, report: BearerReported | S1BearerReported, at_unix_ns: int
) -> tuple[UeRecord, tuple[Happening, ...]]:
    if isinstance(report, BearerReported):
        bearers, news = _change_bearers(before.bearers, report.bearer, report.change)
        return replace(before, bearers=bearers), () if news is None else (_bearer_news(before, *news, at_unix_ns),)
    tunnels, s1_news = _change_bearers(before.s1_bearers, report.bearer, report.change)
    after = replace(before, s1_bearers=tunnels)
    return after, () if s1_news is None else (_bearer_news(before, *s1_news, at_unix_ns),)


def _change_bearers(
    bearers: Mapping[int, AnyBearer], bearer: AnyBearer, change: BearerChange
) -> tuple[Mapping[int, AnyBearer], tuple[BearerChange, AnyBearer] | None]:
    """Established twice is modified, and modified into what it was is no news; so is the end of one that nobody knew."""
    was = bearers.get(bearer.erab_id)
    if change is BearerChange.RELEASED:
        left = {erab_id: each for erab_id, each in bearers.items() if erab_id != bearer.erab_id}
        return left, None if was is None else (BearerChange.RELEASED, was)
    after = {**bearers, bearer.erab_id: bearer}
    if was == bearer:
        return after, None
    return after, (BearerChange.ESTABLISHED if was is None else BearerChange.MODIFIED, bearer)


def _bearer_news(record: UeRecord, change: BearerChange, bearer: Bearer | S1Bearer, at_unix_ns: int) -> Happening:
    match bearer:
        case Bearer():
            return BearerChanged(at_unix_ns=at_unix_ns, ue=record.ue, cell=record.cell, change=change, bearer=bearer)
        case S1Bearer():
            return S1BearerChanged(at_unix_ns=at_unix_ns, ue=record.ue, cell=record.cell, change=change, bearer=bearer)
        case _:
            assert_never(bearer)


def _release_all(record: UeRecord, at_unix_ns: int) -> Iterator[Happening]:
    for bearer in record.bearers.values():
        yield _bearer_news(record, BearerChange.RELEASED, bearer, at_unix_ns)
    for tunnel in record.s1_bearers.values():
        yield _bearer_news(record, BearerChange.RELEASED, tunnel, at_unix_ns)


def _take_measurement(
    before: UeRecord, measurement: Measurement, at_unix_ns: int
) -> tuple[UeRecord, tuple[Happening, ...]]:
    """The same measurement of the same moment was sent twice; the same values later are a new one."""
    if (at_unix_ns, measurement) == (before.measured_unix_ns, before.measurement):
        return before, ()
    news = Measured(at_unix_ns=at_unix_ns, ue=before.ue, cell=before.cell, measurement=measurement)
    return replace(before, measurement=measurement, measured_unix_ns=at_unix_ns), (news,)


def _take_carriers(
    before: UeRecord, report: CarriersReported, at_unix_ns: int
) -> tuple[UeRecord, tuple[Happening, ...]]:
    removed = tuple(each for each in dict.fromkeys(report.removed) if each in before.carriers)
    kept = tuple(each for each in before.carriers if each not in removed)
    added = tuple(each for each in dict.fromkeys(report.added) if each not in kept and each not in report.removed)
    if len(kept) + len(added) > MOST_CARRIERS:
        raise ReportRefused(f"UE {report.ue.name!r} would have more than {MOST_CARRIERS} secondary cells")
    if not added and not removed:
        return before, ()
    news = CarriersReconfigured(at_unix_ns=at_unix_ns, ue=before.ue, cell=before.cell, added=added, removed=removed)
    return replace(before, carriers=(*kept, *added)), (news,)
