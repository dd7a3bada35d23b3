"""The nouns of MEC 012 as JSON has them (clauses 6.5 and 6.6), to and from the values of `mec_platform.radio`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mec_platform.enablement_api.exchange import TimeStamp
from mec_platform.radio.interest import CellName
from mec_platform.radio.values import (
    Associate,
    AssociateKind,
    BitRates,
    Cell,
    Plmn,
    TempUeId,
    TunnelEnd,
    make_associate,
)

_UINT32 = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]


class PlmnMessage(msgspec.Struct, frozen=True):
    """Clause 6.5.5."""

    mcc: str
    mnc: str

    def __post_init__(self) -> None:
        Plmn(self.mcc, self.mnc)


class EcgiMessage(msgspec.Struct, frozen=True, rename="camel"):
    """Clause 6.5.2. Where the standard has no attribute for an NR cell, such as in CellChangeNotification, `cellId` is the
    identity of one, which is two digits longer."""

    plmn: PlmnMessage
    cell_id: str


class NrcgiMessage(msgspec.Struct, frozen=True, rename={"nr_cell_id": "nrCellId", "nrcell_id": "nrcellId"}):
    """Clause 6.5.6. The files of the standard differ in how the cell is spelt: answers have both, requests either."""

    plmn: PlmnMessage
    nrcell_id: str | None = None
    nr_cell_id: str | None = None

    def __post_init__(self) -> None:
        if self.nrcell_id is None and self.nr_cell_id is None:
            raise ValueError("nrcellId is needed")


class AssociateIdMessage(msgspec.Struct, frozen=True):
    """Clause 6.5.4. Type 0, which the standard reserves, is a UE of which a name and no address is known."""

    type: AssociateKind
    value: str

    def __post_init__(self) -> None:
        make_associate(self.type, self.value)


class TempUeIdMessage(msgspec.Struct, frozen=True):
    """MMEC and M-TMSI."""

    mmec: str
    mtmsi: str


class QosInformation(msgspec.Struct, frozen=True, rename="camel"):
    """In bit/s."""

    erab_mbr_dl: int
    erab_mbr_ul: int
    erab_gbr_dl: int
    erab_gbr_ul: int


class ErabQosParameters(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Of a bearer whose quality class is known; the rates where they were told."""

    qci: int
    qos_information: QosInformation | None = None


class TunnelEndMessage(msgspec.Struct, frozen=True, rename="camel"):
    """EnbInfo and SGwInfo."""

    ip_address: str
    tunnel_id: str


class S1BearerInfoDetailed(msgspec.Struct, frozen=True, rename="camel"):
    """An S1 bearer with both ends of its tunnel."""

    erab_id: int
    enb_info: TunnelEndMessage
    s_gw_info: TunnelEndMessage


class DeadlineMessage(msgspec.Struct, frozen=True, rename="camel"):
    """TimeStamp (clause 6.5.3) as a client writes it."""

    seconds: _UINT32
    nano_seconds: Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]

    @property
    def unix_ns(self) -> int:
        """Nanoseconds of Unix time."""
        return self.seconds * 10**9 + self.nano_seconds


def from_unix_ns(unix_ns: int) -> TimeStamp:
    """Clause 6.5.3."""
    return TimeStamp(*divmod(unix_ns, 10**9))


def from_plmn(plmn: Plmn) -> PlmnMessage:
    """The network."""
    return PlmnMessage(plmn.mcc, plmn.mnc)


def from_cell(cell: Cell) -> EcgiMessage:
    """The cell, whatever its technology."""
    return EcgiMessage(from_plmn(cell.plmn), cell.cell_id)


def from_nr_cell(cell: Cell) -> NrcgiMessage:
    """A cell of NR."""
    return NrcgiMessage(from_plmn(cell.plmn), cell.cell_id, cell.cell_id)


def to_cell_name(message: EcgiMessage | NrcgiMessage) -> CellName:
    """The cell that a filter names."""
    cell_id = message.cell_id if isinstance(message, EcgiMessage) else message.nrcell_id or message.nr_cell_id or ""
    return Plmn(message.plmn.mcc, message.plmn.mnc), cell_id.upper()


def from_associates(associates: tuple[Associate, ...]) -> list[AssociateIdMessage]:
    """All that a UE is known by."""
    return [AssociateIdMessage(each.kind, each.value) for each in associates]


def to_associate(message: AssociateIdMessage) -> Associate:
    """What a filter names."""
    return make_associate(message.type, message.value)


def from_temp_ue_id(temp_ue_id: TempUeId | None) -> TempUeIdMessage | None:
    """Absent where it was not told."""
    return None if temp_ue_id is None else TempUeIdMessage(temp_ue_id.mmec, temp_ue_id.mtmsi)


def from_quality_class(qci: int | None, rates: BitRates | None) -> ErabQosParameters | None:
    """Absent where it was not told."""
    if qci is None:
        return None
    told = None if rates is None else QosInformation(rates.mbr_dl, rates.mbr_ul, rates.gbr_dl, rates.gbr_ul)
    return ErabQosParameters(qci, told)


def from_tunnel_end(end: TunnelEnd) -> TunnelEndMessage:
    """One end of a tunnel."""
    return TunnelEndMessage(end.ip_address, end.tunnel_id)
