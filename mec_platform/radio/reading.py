"""Reports of gRPC `RadioAccess` as values. Whatever is not there, or not possible, is named by its field; nothing is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address
from math import isfinite
from typing import TypeVar

from mec_platform.radio.reports import (
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
from mec_platform.radio.values import (
    AssociateKind,
    Bearer,
    BearerChange,
    BitRates,
    Cell,
    HandoverStatus,
    Measurement,
    Neighbour,
    Plmn,
    Quality,
    S1Bearer,
    Technology,
    TempUeId,
    TunnelEnd,
    Ue,
    make_associate,
)
from mec_platform.rpc.v1 import radio_pb2 as pb

Made = TypeVar("Made")

MOST_TRIGGER = 61
"""The greatest number of a trigger in MEC 012 clauses 6.6.2 and 6.6.3."""

POWER_DBM = (-200.0, 0.0)
RATIO_DB = (-100.0, 100.0)
"""What no receiver can measure is a mistake in units, and is said to be one."""

LONGEST_ROUND_TRIP_MS = 3_600_000.0
LARGEST_ADVANCE = 7690
"""TS 36.214: multiples of 16 Ts; the largest that a UE at the edge of the largest cell has."""

_DIGITS = {Technology.EUTRA: (7, 28), Technology.NR: (9, 36)}
_CHANGES = {
    "bearer_established": BearerChange.ESTABLISHED,
    "bearer_modified": BearerChange.MODIFIED,
    "bearer_released": BearerChange.RELEASED,
    "s1_bearer_established": BearerChange.ESTABLISHED,
    "s1_bearer_modified": BearerChange.MODIFIED,
    "s1_bearer_released": BearerChange.RELEASED,
}


class InvalidReport(ValueError):
    """The message names the field and what it must be."""


def read_report(message: pb.RadioReport) -> Report:
    """The report of a message.

    Raises:
        InvalidReport: a field is missing or impossible.
    """
    what = message.WhichOneof("what")
    if what is None:
        raise InvalidReport("what: one of its fields is needed")
    cell = _read_cell(message.cell, "cell") if message.HasField("cell") else None
    if what == "cell_load":
        if cell is None:
            raise InvalidReport("cell: needed with cell_load")
        return _made("cell_load", lambda: CellLoadReported(cell, dict(message.cell_load.values)))
    ue = _read_ue(message.ue)
    return _made(what, lambda: _read_what(message, what, ue, cell))


def _read_what(message: pb.RadioReport, what: str, ue: Ue, cell: Cell | None) -> Report:
    match what:
        case "attached":
            return UeReport(ue, cell)
        case "detached":
            return UeDetached(ue, cell)
        case "handover":
            targets = _read_cells(message.handover.targets, "handover.targets")
            if message.handover.status == pb.HANDOVER_STATUS_UNSPECIFIED:
                raise InvalidReport("handover.status: needed")
            return HandoverReported(ue, cell, status=HandoverStatus(message.handover.status), targets=targets)
        case "measurement":
            return MeasurementReported(ue, cell, measurement=_read_measurement(message.measurement))
        case "timing_advance":
            advance = message.timing_advance.timing_advance
            if advance > LARGEST_ADVANCE:
                raise InvalidReport(f"timing_advance: 0 to {LARGEST_ADVANCE} is needed, not {advance}")
            return TimingAdvanceReported(ue, cell, timing_advance=advance)
        case "carriers":
            added = _read_cells(message.carriers.added, "carriers.added")
            return CarriersReported(
                ue, cell, added=added, removed=_read_cells(message.carriers.removed, "carriers.removed")
            )
        case "ue_load":
            return UeLoadReported(ue, cell, counters=dict(message.ue_load.values))
        case "bearer_established" | "bearer_modified" | "bearer_released":
            return BearerReported(ue, cell, change=_CHANGES[what], bearer=_read_bearer(getattr(message, what)))
        case _:
            return S1BearerReported(
                ue, cell, change=_CHANGES[what], bearer=_read_s1_bearer(getattr(message, what), what)
            )


def _made(field: str, make: Callable[[], Made]) -> Made:
    """What `make` makes; what a value refuses is said of the field."""
    try:
        return make()
    except InvalidReport:
        raise
    except ValueError as error:
        raise InvalidReport(f"{field}: {error}") from error


def _read_ue(message: pb.RadioUe) -> Ue:
    said = (
        (AssociateKind.IPV4, "ipv4", message.ipv4),
        (AssociateKind.IPV6, "ipv6", message.ipv6),
        (AssociateKind.NATED_IP, "nated_ip", message.nated_ip),
        (AssociateKind.GTP_TEID, "gtp_teid", message.gtp_teid),
        (AssociateKind.NAME, "name", [message.name] if message.name else []),
    )
    associates = tuple(
        _made(f"ue.{field}", partial(make_associate, kind, value)) for kind, field, values in said for value in values
    )
    temporary = message.temporary_id if message.HasField("temporary_id") else None
    return _made("ue", lambda: Ue(associates, None if temporary is None else _read_temporary_id(temporary)))


def _read_temporary_id(message: pb.TemporaryUeId) -> TempUeId:
    for field, text in (("mmec", message.mmec), ("mtmsi", message.mtmsi)):
        if not 1 <= len(text) <= 16 or not text.isalnum():
            raise InvalidReport(f"ue.temporary_id.{field}: 1 to 16 letters and digits are needed")
    return TempUeId(message.mmec, message.mtmsi)


def _read_cells(messages: Iterable[pb.RadioCell], field: str) -> tuple[Cell, ...]:
    return tuple(_read_cell(each, f"{field}[{number}]") for number, each in enumerate(messages))


def _read_cell(message: pb.RadioCell, field: str) -> Cell:
    plmn = _made(field, lambda: Plmn(message.mcc, message.mnc))
    named = {pb.RADIO_TECHNOLOGY_EUTRA: Technology.EUTRA, pb.RADIO_TECHNOLOGY_NR: Technology.NR}
    technology = named.get(message.technology) or next(
        (each for each, (digits, _) in _DIGITS.items() if len(message.cell_id) == digits), None
    )
    if technology is None:
        raise InvalidReport(f"{field}.cell_id: 7 (E-UTRA) or 9 (NR) hexadecimal digits, or a technology, are needed")
    digits, bits = _DIGITS[technology]
    try:
        number = int(message.cell_id, 16)
    except ValueError:
        number = -1
    if len(message.cell_id) != digits or not 0 <= number < 1 << bits or not message.cell_id.isalnum():
        raise InvalidReport(f"{field}.cell_id: {digits} hexadecimal digits are needed in {technology}")
    return Cell(plmn, message.cell_id.upper(), technology)


def _read_bearer(message: pb.RadioBearer) -> Bearer:
    qci = message.qci if message.HasField("qci") else None
    if qci is not None and not 0 <= qci <= 255:
        raise InvalidReport("qci: 0 to 255 is needed")
    rates = message.rates
    told = BitRates(rates.mbr_dl, rates.mbr_ul, rates.gbr_dl, rates.gbr_ul) if message.HasField("rates") else None
    if told is not None and qci is None:
        raise InvalidReport("qci: needed with rates")
    return Bearer(message.erab_id, qci, told)


def _read_s1_bearer(message: pb.S1Bearer, field: str) -> S1Bearer:
    return S1Bearer(
        message.erab_id,
        _read_tunnel_end(message.enb, f"{field}.enb"),
        _read_tunnel_end(message.sgw, f"{field}.sgw"),
    )


def _read_tunnel_end(message: pb.TunnelEnd, field: str) -> TunnelEnd:
    address = _made(f"{field}.ip_address", lambda: str(ip_address(message.ip_address)))
    if not 1 <= len(message.tunnel_id) <= 16 or not message.tunnel_id.isalnum():
        raise InvalidReport(f"{field}.tunnel_id: 1 to 16 letters and digits are needed")
    return TunnelEnd(address, message.tunnel_id)


def _read_measurement(message: pb.RadioMeasurement) -> Measurement:
    if message.trigger > MOST_TRIGGER:
        raise InvalidReport(f"measurement.trigger: 0 to {MOST_TRIGGER} is needed, not {message.trigger}")
    round_trip_ms = message.round_trip_ms if message.HasField("round_trip_ms") else None
    if round_trip_ms is not None and not 0 <= round_trip_ms <= LONGEST_ROUND_TRIP_MS:
        raise InvalidReport(f"measurement.round_trip_ms: 0 to {LONGEST_ROUND_TRIP_MS:g} is needed")
    neighbours = tuple(
        Neighbour(
            _read_cell(each.cell, f"measurement.neighbours[{number}].cell"),
            _read_quality(each.quality, f"measurement.neighbours[{number}].quality"),
        )
        for number, each in enumerate(message.neighbours)
    )
    quality = _read_quality(message.quality, "measurement.quality")
    return Measurement(quality, message.trigger, None if round_trip_ms is None else round_trip_ms / 1e3, neighbours)


def _read_quality(message: pb.ReceptionQuality, field: str) -> Quality:
    told: dict[str, float | None] = {}
    for name, (least, most) in (("rsrp_dbm", POWER_DBM), ("rsrq_db", RATIO_DB), ("sinr_db", RATIO_DB)):
        value = getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]
        if value is not None and not (isfinite(value) and least <= value <= most):
            raise InvalidReport(f"{field}.{name}: {least:g} to {most:g} is needed, not {value:g}")
        told[name] = value
    return Quality(**told)
