"""Which happenings a subscription is for: the filter criteria of ETSI GS MEC 012 clauses 6.3.2 to 6.3.11, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.domain.subscriptions import Topic
from mec_platform.radio.happenings import (
    BearerChanged,
    CarriersReconfigured,
    CellChanged,
    Happening,
    Measured,
    S1BearerChanged,
    TimingAdvanceChanged,
)
from mec_platform.radio.values import Associate, BearerChange, Cell, Plmn, Technology

CellName = tuple[Plmn, str]
"""A cell as filters name it: without its technology."""

_OF_BEARERS = {
    BearerChange.ESTABLISHED: Topic.BEARER_ESTABLISHMENT,
    BearerChange.MODIFIED: Topic.BEARER_MODIFICATION,
    BearerChange.RELEASED: Topic.BEARER_RELEASE,
}


def topic_of(happening: Happening) -> Topic | None:
    """The type of subscription that tells of this; None where the standard has no way to say it.

    A measurement in E-UTRA has a power and a quality (TS 36.331, measResultPCell), and so has its notification; one of NR
    says what there is.
    """
    match happening:
        case CellChanged():
            return Topic.CELL_CHANGE
        case BearerChanged(change=change):
            return _OF_BEARERS[change]
        case S1BearerChanged():
            return Topic.S1_BEARER
        case TimingAdvanceChanged():
            return Topic.TIMING_ADVANCE
        case CarriersReconfigured():
            return Topic.CARRIER_AGGREGATION
        case Measured(cell=cell, measurement=measurement):
            if cell.technology is Technology.NR:
                return Topic.NR_MEASUREMENT
            quality = measurement.quality
            return None if quality.rsrp_dbm is None or quality.rsrq_db is None else Topic.MEASUREMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioInterest:
    """Attributes AND, values of a list OR, None matches all.

    `codes` are statuses of handovers, triggers of measurements, or changes of S1 bearers, as the topic has it. A handover
    matches by the cell that it leaves as well as by one that it leads to.
    """

    topic: Topic
    associates: frozenset[Associate] | None = None
    cells: frozenset[CellName] | None = None
    codes: frozenset[int] | None = None
    erab_ids: frozenset[int] | None = None
    qci: int | None = None

    def matches(self, happening: Happening) -> bool:
        """Whether this subscription is told of it."""
        return (
            topic_of(happening) is self.topic
            and (self.associates is None or not self.associates.isdisjoint(happening.ue.associates))
            and (self.cells is None or not self.cells.isdisjoint(map(name_of, _cells(happening))))
            and self._matches_facts(happening)
        )

    def _matches_facts(self, happening: Happening) -> bool:
        match happening:
            case CellChanged(status=status):
                return self._has_code(status)
            case Measured(measurement=measurement):
                return self._has_code(measurement.trigger)
            case BearerChanged(bearer=bearer):
                return self.qci in (None, bearer.qci) and self._has_bearer(bearer.erab_id)
            case S1BearerChanged(change=change, bearer=tunnel):
                return self._has_code(change) and self._has_bearer(tunnel.erab_id)
            case TimingAdvanceChanged() | CarriersReconfigured():
                return True

    def _has_code(self, code: int) -> bool:
        return self.codes is None or code in self.codes

    def _has_bearer(self, erab_id: int) -> bool:
        return self.erab_ids is None or erab_id in self.erab_ids


def name_of(cell: Cell) -> CellName:
    """The cell as filters name it. Identities are hexadecimal, so their case does not matter."""
    return cell.plmn, cell.cell_id.upper()


def _cells(happening: Happening) -> tuple[Cell, ...]:
    return (happening.cell, *happening.targets) if isinstance(happening, CellChanged) else (happening.cell,)
