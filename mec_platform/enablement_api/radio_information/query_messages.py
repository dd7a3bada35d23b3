"""What queries are answered (ETSI GS MEC 012 clause 6.2), made of the state of the radio network. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mec_platform.enablement_api.exchange import TimeStamp
from mec_platform.enablement_api.radio_information.notification_messages import from_s1_bearer
from mec_platform.enablement_api.radio_information.values import (
    AssociateIdMessage,
    EcgiMessage,
    ErabQosParameters,
    PlmnMessage,
    S1BearerInfoDetailed,
    TempUeIdMessage,
    from_associates,
    from_cell,
    from_quality_class,
    from_temp_ue_id,
)
from mec_platform.radio.radio_state import UeRecord
from mec_platform.radio.values import CELL_COUNTERS, UE_COUNTERS, Associate, Bearer, Cell, S1Bearer


class PlmnInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Clause 6.2.2: the networks of the cells that are known."""

    time_stamp: TimeStamp
    app_instance_id: str
    plmn: list[PlmnMessage]


class ErabInfo(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A bearer."""

    erab_id: int
    erab_qos_parameters: ErabQosParameters | None = None


class UeInfo(msgspec.Struct, frozen=True, rename="camel"):
    """A UE with bearers."""

    associate_id: list[AssociateIdMessage]
    erab_info: list[ErabInfo]


class CellUserInfo(msgspec.Struct, frozen=True, rename="camel"):
    """A cell with UEs that have bearers."""

    ecgi: EcgiMessage
    ue_info: list[UeInfo]


class RabInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Clause 6.2.3."""

    time_stamp: TimeStamp
    app_instance_id: str
    request_id: str
    cell_user_info: list[CellUserInfo]


class S1UeInfoDetailed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A UE with S1 bearers."""

    associate_id: list[AssociateIdMessage]
    ecgi: list[EcgiMessage]
    s1_bearer_info_detailed: list[S1BearerInfoDetailed]
    temp_ue_id: TempUeIdMessage | None = None


class S1BearerInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Clause 6.2.4."""

    time_stamp: TimeStamp
    s1_ue_info: list[S1UeInfoDetailed]


CellInfo = msgspec.defstruct(
    "CellInfo",
    [("ecgi", EcgiMessage), *((name, int | None, None) for name in CELL_COUNTERS)],
    frozen=True,
    omit_defaults=True,
)
CellUEInfo = msgspec.defstruct(
    "CellUEInfo",
    [
        ("ecgi", EcgiMessage),
        ("associate_id", AssociateIdMessage),
        *((name, int | None, None) for name in UE_COUNTERS),
    ],
    frozen=True,
    omit_defaults=True,
    rename={"associate_id": "associateId"},
)


_L2_NAMES = {"time_stamp": "timeStamp", "cell_info": "cellInfo", "cell_ue_info": "cellUEInfo"}


class L2Meas(msgspec.Struct, frozen=True, rename=_L2_NAMES):
    """Clause 6.2.6: what was told of cells and UEs, and of a counter that was not told nothing."""

    time_stamp: TimeStamp
    cell_info: list[CellInfo]  # type: ignore[valid-type]
    cell_ue_info: list[CellUEInfo]  # type: ignore[valid-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a query asks for: cells, and UEs by any of what they are known by; None stands for all."""

    cell_ids: frozenset[str] | None = None
    associates: frozenset[Associate] | None = None

    def has_cell(self, cell: Cell) -> bool:
        """Whether it is about this cell."""
        return self.cell_ids is None or cell.cell_id.upper() in self.cell_ids

    def has_ue(self, record: UeRecord) -> bool:
        """Whether it is about this UE, where it is now."""
        return self.has_cell(record.cell) and (
            self.associates is None or not self.associates.isdisjoint(record.ue.associates)
        )


def list_bearers(records: Iterable[UeRecord], wanted: Wanted, accepts: Callable[[Bearer], bool]) -> list[CellUserInfo]:
    """RabInfo.cellUserInfo: UEs that have bearers which are accepted, by cell."""
    by_cell: dict[Cell, list[UeInfo]] = {}
    for record in filter(wanted.has_ue, records):
        bearers = [
            ErabInfo(each.erab_id, from_quality_class(each.qci, each.rates))
            for each in record.bearers.values()
            if accepts(each)
        ]
        if bearers:
            by_cell.setdefault(record.cell, []).append(UeInfo(from_associates(record.ue.associates), bearers))
    return [CellUserInfo(from_cell(cell), ues) for cell, ues in by_cell.items()]


def list_s1_bearers(
    records: Iterable[UeRecord], wanted: Wanted, accepts: Callable[[UeRecord, S1Bearer], bool]
) -> list[S1UeInfoDetailed]:
    """S1BearerInfo.s1UeInfo: UEs that have S1 bearers which are accepted."""
    found = []
    for record in filter(wanted.has_ue, records):
        bearers = [from_s1_bearer(each) for each in record.s1_bearers.values() if accepts(record, each)]
        if bearers:
            found.append(
                S1UeInfoDetailed(
                    from_associates(record.ue.associates),
                    [from_cell(record.cell)],
                    bearers,
                    from_temp_ue_id(record.ue.temp_ue_id),
                )
            )
    return found


def list_cell_loads(loads: Mapping[Cell, Mapping[str, int]], wanted: Wanted, values: Mapping[str, int]) -> list[Any]:
    """L2Meas.cellInfo: cells whose counters have these values."""
    return [
        CellInfo(ecgi=from_cell(cell), **counters)
        for cell, counters in loads.items()
        if wanted.has_cell(cell) and _has(counters, values)
    ]


def list_ue_loads(records: Iterable[UeRecord], wanted: Wanted, values: Mapping[str, int]) -> list[Any]:
    """L2Meas.cellUEInfo: UEs of which something was told, and whose counters have these values."""
    return [
        CellUEInfo(
            ecgi=from_cell(record.cell),
            associate_id=from_associates(record.ue.associates)[0],
            **record.counters,
        )
        for record in filter(wanted.has_ue, records)
        if record.counters and _has(record.counters, values)
    ]


def _has(counters: Mapping[str, int], values: Mapping[str, int]) -> bool:
    return all(counters.get(name) == value for name, value in values.items())
