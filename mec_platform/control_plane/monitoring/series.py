"""One measured quantity over time: the level its recent samples tell, and how far that can be trusted.

The level is the median of a short window, so a single outlier never shows. Two samples in a row that lie beyond the band
of the others (some times their median deviation, a tenth at least) on the same side are no outliers: the quantity has
changed, and the window starts again with them.

Rates and times are compared as ratios: half of a level is as far from it as twice the level.
"""

from __future__ import annotations

from math import isfinite, log
from typing import NamedTuple

from mec_platform.control_plane.monitoring.settings import SeriesSettings

FRESH_S = 2.0
"""Ages below this are told as 0, and greater ones in steps that double: what is measured every second does not change its
age in every snapshot, and neither does what was measured long ago."""

_KEPT = 3


class Series(NamedTuple):
    """Samples oldest first, with their times; `level` is the estimate, `spread` half of the middle samples' range (log).

    `beyond` is 1 or -1 where the latest sample lay above or below the band of those before it.
    """

    level: float
    samples: tuple[float, ...]
    times: tuple[float, ...]
    spread: float = 0.0
    beyond: int = 0

    @property
    def at_s(self) -> float:
        """When the latest sample was taken."""
        return self.times[-1]

    def tells(self, other: Series) -> bool:
        """Whether both tell the same, whenever their samples were taken."""
        return self.level == other.level and len(self.samples) == len(other.samples) and self.spread == other.spread


def add_sample(series: Series | None, value: float, at_s: float, settings: SeriesSettings) -> Series | None:
    """The series with one more sample. Zero, negative and infinite values mean "not measured" and change nothing."""
    if not (value > 0 and isfinite(value)):
        return series
    if series is None:
        return Series(value, (value,), (at_s,))
    level, samples, times, spread, was_beyond = series
    oldest_s = at_s - settings.span_s
    if samples[0] == value == level and len(samples) == settings.window and times[1] >= oldest_s:
        return Series(level, (*samples[1:], value), (*times[1:], at_s), spread)  # an unchanged world: nothing to sort
    beyond = _beyond(value, level, samples, settings)
    if beyond and beyond == was_beyond:
        return _series(level, (samples[-1], value), (times[-1], at_s), 0)
    first = max(0, len(samples) + 1 - settings.window)
    while times[first] < oldest_s and len(samples) + 1 - first > _KEPT:
        first += 1
    return _series(level, (*samples[first:], value), (*times[first:], at_s), beyond)


def confidence(series: Series, age_s: float, settings: SeriesSettings) -> float:
    """In [0, 1]: grows with agreeing samples, falls with their spread and with the age of the latest."""
    count = len(series.samples)
    trust = count / (count + 1) / (1.0 + series.spread)
    return round(float(trust * 0.5 ** (max(age_s, 0.0) / settings.half_life_s)), 3)


def age_step_s(age_s: float) -> float:
    """The age as it is told: 0, then 2, 4, 8, ... seconds, never more than it is."""
    if age_s < FRESH_S:
        return 0.0
    step = FRESH_S
    while step * 2 <= age_s:
        step *= 2
    return step


def _beyond(value: float, level: float, samples: tuple[float, ...], settings: SeriesSettings) -> int:
    nearest = 1.0 + settings.tolerance
    if value <= level * nearest and level <= value * nearest:
        return 0
    distance = abs(log(value) - log(level))
    if distance <= log(settings.widest) and distance <= settings.band * _deviation(samples, level):
        return 0
    return 1 if value > level else -1


def _series(known: float, samples: tuple[float, ...], times: tuple[float, ...], beyond: int) -> Series:
    """Of two samples the one nearer to what was known counts, so that the other can still turn out to be an outlier."""
    ordered = sorted(samples)
    count = len(ordered)
    level = ordered[count // 2] if count > 2 else min(ordered, key=lambda sample: abs(log(sample) - log(known)))
    quarter = count // 4
    low, high = ordered[quarter], ordered[-1 - quarter]
    return Series(level, samples, times, 0.0 if low == high else (log(high) - log(low)) / 2, beyond)


def _deviation(samples: tuple[float, ...], level: float) -> float:
    """The median deviation (log): unlike a range it does not mind an outlier among three samples."""
    return sorted(abs(log(sample) - log(level)) for sample in samples)[len(samples) // 2]
