"""What there is to tell of the radio network: facts that `radio_state` found to be news, one for each kind of subscription."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mec_platform.radio.values import Bearer, BearerChange, Cell, HandoverStatus, Measurement, S1Bearer, Ue


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfUe:
    """When, to whom, and by which cell the UE was served; after a handover that is the one that it came from."""

    at_unix_ns: int
    ue: Ue
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChanged(_OfUe):
    """A handover came to this status; COMPLETED, it is served by the one target."""

    targets: tuple[Cell, ...]
    status: HandoverStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerChanged(_OfUe):
    """A radio access bearer is new, differs from before, or is gone; of a bearer that is gone, as it was last."""

    change: BearerChange
    bearer: Bearer


@dataclass(frozen=True, slots=True, kw_only=True)
class S1BearerChanged(_OfUe):
    """Likewise an S1 bearer."""

    change: BearerChange
    bearer: S1Bearer


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(_OfUe):
    """The UE reported a measurement."""

    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingAdvanceChanged(_OfUe):
    """The timing advance is another than before."""

    timing_advance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriersReconfigured(_OfUe):
    """Other secondary cells serve the UE than before."""

    added: tuple[Cell, ...]
    removed: tuple[Cell, ...]


Happening: TypeAlias = (
    CellChanged | BearerChanged | S1BearerChanged | Measured | TimingAdvanceChanged | CarriersReconfigured
)
