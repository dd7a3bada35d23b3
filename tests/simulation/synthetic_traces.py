"""Radio traces made up for scenarios: ten values a second, in the format of `--radio`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

HEADER = "pub_time sub_time delay utmX utmY heading velocity cellid sinr rsrp"
STEP_S = 0.1

Row = tuple[float, str, float, float]
"""Round trip in ms, cell, SINR in dB, RSRP in dBm."""


def write_trace(path: Path, duration_s: float, at: Callable[[float], Row]) -> Path:
    """Writes what `at` says of each moment."""
    path.write_text("\n".join([HEADER, *_lines(duration_s, at)]) + "\n")
    return path


def slow_fade(at_s: float) -> Row:
    """From 15 s on the signal falls by 1.5 dB a second and round trips grow with it; from 45 s on it is back."""
    fallen_db = min(max(at_s - 15.0, 0.0), 20.0) * 1.5 if at_s < 45.0 else 0.0
    return 12.0 * 2 ** (fallen_db / 6), "1", 20.0 - fallen_db * 0.7, -75.0 - fallen_db


def handover(at_s: float) -> Row:
    """Two cells: the first falls away by 2 dB a second until 20 s, where packets wait three seconds for the second."""
    if at_s < 20.0:
        return 12.0, "1", 15.0 - 0.5 * at_s, -75.0 - 2.0 * max(at_s - 8.0, 0.0)
    waiting_s = max(23.0 - at_s, 0.0)
    return 12.0 + waiting_s * 1e3, "2", 18.0, -72.0


def _lines(duration_s: float, at: Callable[[float], Row]) -> Iterator[str]:
    for number in range(round(duration_s / STEP_S)):
        sent_ms = number * STEP_S * 1e3
        trip_ms, cell, sinr, rsrp = at(number * STEP_S)
        yield f"{sent_ms:.1f} {sent_ms + trip_ms:.1f} {trip_ms:.1f} 0 0 0 10 {cell} {sinr:.1f} {rsrp:.1f}"
