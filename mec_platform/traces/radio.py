"""Radio traces: round trips of a moving UE with its cell, SINR and RSRP, as in the CICV5G data set (V2N2V).

Whitespace-separated columns after one header line: time sent (ms), time received (ms), round trip (ms), x (m), y (m),
heading (rad), velocity (m/s), cell id, SINR (dB), RSRP (dBm); more columns may follow and are ignored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mec_platform.domain.radio import RadioMeasurement
from mec_platform.traces.lines import TraceError, read_lines

_COLUMNS = 10


def read_radio_trace(path: Path, ue: str = "ue") -> tuple[RadioMeasurement, ...]:
    """The measurements in the order in which they were sent, the first at 0 s.

    Raises:
        TraceError: there is no such file, a line is malformed, or it holds no measurement.
    """
    rows = sorted(read_lines(path, lambda line: _parse(line, ue)), key=lambda row: row.at_s)
    if not rows:
        raise TraceError(f"{path}: no measurements; a radio trace has {_COLUMNS} columns, see `mec simulate --help`")
    return tuple(replace(row, at_s=row.at_s - rows[0].at_s) for row in rows)


def _parse(line: str, ue: str) -> RadioMeasurement | None:
    fields = line.split()
    if not fields or not fields[0][0].isdigit():
        return None
    if len(fields) < _COLUMNS:
        raise ValueError(f"{len(fields)} columns, {_COLUMNS} are needed")
    round_trip_s = float(fields[2]) / 1e3
    if not 0 <= round_trip_s < 3600:
        raise ValueError(f"a round trip of {fields[2]} ms")
    return RadioMeasurement(float(fields[0]) / 1e3, ue, fields[7], float(fields[9]), float(fields[8]), round_trip_s)
