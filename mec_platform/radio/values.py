"""The nouns of radio information, as frozen values: cells, UEs, bearers, measurements (ETSI GS MEC 012 clause 6.5, 3GPP)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

MOST_IDENTITIES = 8
MOST_NEIGHBOURS = 32
"""TS 38.331 and TS 36.331: maxCellReport is 8 for each of a few frequencies."""

LAST_ERAB_ID = 15
"""TS 36.413 clause 9.2.1.2."""


class Technology(StrEnum):
    """Of a cell: which report ranges hold, and which notification tells of its measurements."""

    EUTRA = "EUTRA"
    NR = "NR"


class AssociateKind(IntEnum):
    """MEC 012 clause 6.5.4. NAME is the value that the standard reserves: a UE of which no address is known."""

    NAME = 0
    IPV4 = 1
    IPV6 = 2
    NATED_IP = 3
    GTP_TEID = 4


class HandoverStatus(IntEnum):
    """MEC 012 clause 6.4.2, hoStatus."""

    IN_PREPARATION = 1
    IN_EXECUTION = 2
    COMPLETED = 3
    REJECTED = 4
    CANCELLED = 5


class BearerChange(IntEnum):
    """What happened to a bearer; the numbers are those of S1BearerSubscription.eventType (MEC 012 clause 6.3.9)."""

    ESTABLISHED = 1
    MODIFIED = 2
    RELEASED = 3


@dataclass(frozen=True, slots=True)
class Plmn:
    """A mobile network: three digits of country code, two or three of network code (TS 23.003).

    Raises:
        ValueError: it has other than that.
    """

    mcc: str
    mnc: str

    def __post_init__(self) -> None:
        if not _is_digits(self.mcc, 3, 3) or not _is_digits(self.mnc, 2, 3):
            raise ValueError(f"a PLMN has 3 digits of mcc and 2 or 3 of mnc, not {self.mcc!r} and {self.mnc!r}")


def _is_digits(text: str, least: int, most: int) -> bool:
    return least <= len(text) <= most and text.isascii() and text.isdecimal()


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a network. `cell_id` is its identity within the network in hexadecimal: 28 bits in E-UTRA, 36 in NR."""

    plmn: Plmn
    cell_id: str
    technology: Technology


@dataclass(frozen=True, slots=True)
class Associate:
    """Something by which a UE is known to applications (MEC 012 clause 6.5.4)."""

    kind: AssociateKind
    value: str


def make_associate(kind: AssociateKind, value: str) -> Associate:
    """An associate whose address is written in its one short form, so that equal addresses are equal values.

    Raises:
        ValueError: the value is no address of that kind, or empty or too long.
    """
    match kind:
        case AssociateKind.IPV4:
            return Associate(kind, str(IPv4Address(value)))
        case AssociateKind.IPV6:
            return Associate(kind, str(IPv6Address(value)))
        case AssociateKind.NATED_IP:
            return Associate(kind, str(ip_address(value)))
    if not 1 <= len(value) <= 64 or not value.isprintable():
        raise ValueError(f"1 to 64 printable characters are needed, not {value[:80]!r}")
    return Associate(kind, value)


def associate_of(name: str) -> Associate:
    """What a UE of this name is known by: its address where the name is one. Raises ValueError as `make_associate`."""
    for kind in (AssociateKind.IPV4, AssociateKind.IPV6):
        try:
            return make_associate(kind, name)
        except ValueError:
            continue
    return make_associate(AssociateKind.NAME, name)


@dataclass(frozen=True, slots=True)
class TempUeId:
    """The temporary identity of a UE in its core network (TS 36.413): MMEC and M-TMSI."""

    mmec: str
    mtmsi: str


@dataclass(frozen=True, slots=True)
class Ue:
    """A user equipment and all that it is known by, the first of which is its name here.

    Raises:
        ValueError: it is known by nothing, or by more than `MOST_IDENTITIES`.
    """

    associates: tuple[Associate, ...]
    temp_ue_id: TempUeId | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.associates) <= MOST_IDENTITIES:
            raise ValueError(f"a UE is known by 1 to {MOST_IDENTITIES} identities, not by {len(self.associates)}")

    @property
    def name(self) -> str:
        """By which it is told from others."""
        return self.associates[0].value


@dataclass(frozen=True, slots=True)
class BitRates:
    """Of an E-RAB with guaranteed rates, in bit/s (TS 36.413 clause 9.2.1.18): maximum and guaranteed, down and up."""

    mbr_dl: int
    mbr_ul: int
    gbr_dl: int
    gbr_ul: int


@dataclass(frozen=True, slots=True)
class Bearer:
    """A radio access bearer. `qci` None: its quality was not told.

    Raises:
        ValueError: the id is none that an E-RAB can have.
    """

    erab_id: int
    qci: int | None = None
    rates: BitRates | None = None

    def __post_init__(self) -> None:
        check_erab_id(self.erab_id)


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """One end of a GTP-U tunnel."""

    ip_address: str
    tunnel_id: str


@dataclass(frozen=True, slots=True)
class S1Bearer:
    """An S1 bearer: its tunnel between base station and serving gateway. Raises ValueError as `Bearer`."""

    erab_id: int
    enb: TunnelEnd
    sgw: TunnelEnd

    def __post_init__(self) -> None:
        check_erab_id(self.erab_id)


def check_erab_id(erab_id: int) -> None:
    """Raises ValueError where no E-RAB can have this id."""
    if not 0 <= erab_id <= LAST_ERAB_ID:
        raise ValueError(f"an E-RAB has an id of 0 to {LAST_ERAB_ID}, not {erab_id}")


@dataclass(frozen=True, slots=True)
class Quality:
    """How a cell is received: power in dBm, quality and signal to interference and noise in dB; None what was not told."""

    rsrp_dbm: float | None = None
    rsrq_db: float | None = None
    sinr_db: float | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A cell that a UE hears beside its own."""

    cell: Cell
    quality: Quality


@dataclass(frozen=True, slots=True)
class Measurement:
    """One report of a UE about its serving cell and its neighbours.

    `trigger` is what made the UE report, as MEC 012 numbers it for the cell's technology; 0 is not known. `round_trip_s` is the
    delay to the host and back, which no RAN knows but a trace may.
    """

    quality: Quality
    trigger: int = 0
    round_trip_s: float | None = None
    neighbours: tuple[Neighbour, ...] = ()


CELL_COUNTERS = (
    "dl_gbr_prb_usage_cell",
    "ul_gbr_prb_usage_cell",
    "dl_nongbr_prb_usage_cell",
    "ul_nongbr_prb_usage_cell",
    "dl_total_prb_usage_cell",
    "ul_total_prb_usage_cell",
    "received_dedicated_preambles_cell",
    "received_randomly_selected_preambles_low_range_cell",
    "received_randomly_selected_preambles_high_range_cell",
    "number_of_active_ue_dl_gbr_cell",
    "number_of_active_ue_ul_gbr_cell",
    "number_of_active_ue_dl_nongbr_cell",
    "number_of_active_ue_ul_nongbr_cell",
    "dl_gbr_pdr_cell",
    "ul_gbr_pdr_cell",
    "dl_nongbr_pdr_cell",
    "ul_nongbr_pdr_cell",
)
"""Layer 2 measurements of a cell (TS 36.314), by their names in MEC 012 clause 6.2.6."""

UE_COUNTERS = tuple(
    f"{direction}_{kind}_{measure}_ue"
    for measure in ("delay", "pdr", "throughput", "data_volume")
    for direction, kind in (("dl", "gbr"), ("ul", "gbr"), ("dl", "nongbr"), ("ul", "nongbr"))
)
"""Layer 2 measurements of a UE, likewise."""
