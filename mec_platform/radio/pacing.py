"""How often a subscription is told of measurements: a RAN, or a trace, may have twenty a second of each UE, and every
notification is durable.

The rule, for each subscription and UE: the first measurement is told; then one every `USUAL_S`; earlier, but no sooner than
`CLOSEST_S`, one whose power or SINR is `JUMP_DB` away from what was told last; and at once the first in another cell. Both
intervals are values that 3GPP's periodical reports have (TS 38.331, ReportInterval ms240 and ms1024). Changes of the timing
advance keep to `USUAL_S`. Everything else is told whenever it happens.
"""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.radio.happenings import Happening, Measured, TimingAdvanceChanged
from mec_platform.radio.values import Cell, Quality

USUAL_S = 1.024
CLOSEST_S = 0.240
JUMP_DB = 6.0
"""A quarter of the power: beyond what fading does between two reports of a filtered measurement."""

MOST_REMEMBERED = 100_000
"""Pairs of subscription and UE; one that is forgotten is told of the next measurement at once."""


@dataclass(frozen=True, slots=True)
class _Told:
    at_unix_ns: int
    cell: Cell
    quality: Quality


class Pacing:
    """What each subscription was told last of each UE."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._told: dict[tuple[str, str], _Told] = {}

    def admits(self, subscription_id: str, happening: Happening) -> bool:
        """Whether to tell this subscription; if so, it counts as told."""
        match happening:
            case Measured(measurement=measurement):
                quality = measurement.quality
            case TimingAdvanceChanged():
                quality = Quality()
            case _:
                return True
        key = (subscription_id, happening.ue.name)
        last = self._told.get(key)
        if last is not None and not _is_due(last, happening, quality):
            return False
        self._told.pop(key, None)
        self._told[key] = _Told(happening.at_unix_ns, happening.cell, quality)
        while len(self._told) > self._most:
            del self._told[next(iter(self._told))]
        return True

    def __len__(self) -> int:
        return len(self._told)


def _is_due(last: _Told, happening: Happening, quality: Quality) -> bool:
    elapsed_s = (happening.at_unix_ns - last.at_unix_ns) / 1e9
    # A clock that was set back must not silence anybody.
    if elapsed_s >= USUAL_S or elapsed_s < 0 or happening.cell != last.cell:
        return True
    jump = max(_distance(last.quality.rsrp_dbm, quality.rsrp_dbm), _distance(last.quality.sinr_db, quality.sinr_db))
    return elapsed_s >= CLOSEST_S and jump >= JUMP_DB


def _distance(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else abs(after - before)
