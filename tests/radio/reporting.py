"""Cells, UEs and reports that tests of radio information share."""

from __future__ import annotations

from mec_platform.radio.reports import MeasurementReported
from mec_platform.radio.values import (
    BitRates,
    Cell,
    Measurement,
    Plmn,
    Quality,
    S1Bearer,
    Technology,
    TempUeId,
    TunnelEnd,
    Ue,
    associate_of,
)

NETWORK = Plmn("001", "01")
A, B = (Cell(NETWORK, cell_id, Technology.NR) for cell_id in ("5C4225714", "5C422503D"))
LTE = Cell(NETWORK, "5C42250", Technology.EUTRA)
UE = Ue((associate_of("198.51.100.7"),), TempUeId("1a", "2b3c"))
RATES = BitRates(4, 3, 2, 1)
TUNNEL = S1Bearer(5, TunnelEnd("192.0.2.1", "1a"), TunnelEnd("192.0.2.2", "1b"))


def ue(name: str) -> Ue:
    return Ue((associate_of(name),))


def measured(
    rsrp_dbm: float = -90.0,
    sinr_db: float | None = 10.0,
    *,
    rsrq_db: float | None = None,
    cell: Cell | None = A,
    of: Ue = UE,
    trigger: int = 0,
    round_trip_s: float | None = None,
) -> MeasurementReported:
    quality = Quality(rsrp_dbm, rsrq_db, sinr_db)
    return MeasurementReported(of, cell, measurement=Measurement(quality, trigger, round_trip_s))
