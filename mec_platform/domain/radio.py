"""What a radio access network tells of a user equipment (UE): the values that radio information and forecasts are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RadioMeasurement:
    """One measurement of one UE. `at_s` is seconds of the clock of whoever takes it in; `cell` is what the network calls the cell.

    `rsrp_dbm` is the power received from the serving cell, `sinr_db` its distance to noise and interference;
    `round_trip_s` is the delay to the host and back, None where it was not measured.
    """

    at_s: float
    ue: str
    cell: str
    rsrp_dbm: float
    sinr_db: float
    round_trip_s: float | None = None


@dataclass(frozen=True, slots=True)
class CellChange:
    """A UE was handed over from one cell to another. `at_s` is as in `RadioMeasurement`."""

    at_s: float
    ue: str
    source: str
    cell: str
