"""Loads that were put in turns, and what they say together: a machine's good and bad minutes are shared by all cases of a turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from tests.benchmarks.http_load import Load

Turns = Mapping[str, list[Load]]
"""What was measured, turn by turn, by the name of its case."""


def compare(turns: Turns, limits: Mapping[str, str]) -> dict[str, float]:
    """Medians over the turns, and of the ratios within each turn: of a case to that which `limits` names for it."""
    found: dict[str, float] = {}
    for name, loads in turns.items():
        found[f"{name}_per_s"] = round(statistics.median(each.per_s for each in loads), 1)
        found[f"{name}_p50_ms"] = round(statistics.median(each.p50_ms for each in loads), 3)
        found[f"{name}_p99_ms"] = round(statistics.median(each.p99_ms for each in loads), 3)
    for name, limit in limits.items():
        pairs = zip(turns[name], turns[limit], strict=True)
        found[f"{name}_of_{limit}"] = round(statistics.median(ours.per_s / most.per_s for ours, most in pairs), 3)
    return found
