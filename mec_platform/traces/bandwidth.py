"""Bandwidth traces: two whitespace-separated columns without header, time (s) and throughput (Mbit/s)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mec_platform.traces.lines import TraceError, read_lines


@dataclass(frozen=True, slots=True)
class BandwidthSample:
    """The throughput of a link from `at_s` on, until the next sample."""

    at_s: float
    bytes_per_s: float


def read_bandwidth_trace(path: Path, scale: float = 1.0) -> tuple[BandwidthSample, ...]:
    """The samples in order of time, the first at 0 s, each throughput multiplied by `scale`.

    Raises:
        TraceError: there is no such file, a line is malformed, or it holds no sample.
    """
    rows = sorted(read_lines(path, lambda line: _parse(line, scale)), key=lambda row: row.at_s)
    if not rows:
        raise TraceError(f"{path}: no samples; a bandwidth trace has lines of time (s) and throughput (Mbit/s)")
    return tuple(replace(row, at_s=row.at_s - rows[0].at_s) for row in rows)


def _parse(line: str, scale: float) -> BandwidthSample | None:
    fields = line.split()
    if not fields:
        return None
    at_s, mbit_per_s = float(fields[0]), float(fields[1])
    if not 0 <= mbit_per_s < 1e9 or not -1e12 < at_s < 1e12:
        raise ValueError(f"{mbit_per_s:g} Mbit/s at {at_s:g} s")
    return BandwidthSample(at_s, mbit_per_s * 1e6 / 8 * scale)
