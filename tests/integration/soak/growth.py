"""Whether processes grow: samples of quiet moments, and a verdict over those of one process. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from statistics import median

MIB = 1 << 20

FEWEST_SAMPLES = 6
"""A process that lived through fewer quiet moments is not judged."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at a quiet moment: no session, no change, every member there.

    `anonymous_bytes` are of its resident memory what is not mapped from files, as weights are.
    """

    at_s: float
    anonymous_bytes: int
    descriptors: int
    threads: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a measure may grow by over the second half of a process's samples: so much, and so much of an hour's share."""

    at_most: float
    per_hour: float


KV_BYTES = 16 * MIB
"""What a node has touched of its KV memory depends on the layers that it holds at the moment, and on how many sessions came
together there: pages are taken and given back, their memory goes when the layers do."""

BOUNDS: Mapping[str, Bounds] = {
    # Allocators settle for minutes, and what is kept by number (decisions, changes, series) fills up.
    "anonymous_bytes": Bounds(8 * MIB, 24 * MIB),
    # Connections are told to close and close a little later.
    "descriptors": Bounds(6, 0),
    "threads": Bounds(6, 0),
    "tasks": Bounds(6, 0),
}


def growth(points: Sequence[tuple[float, float]]) -> float:
    """How much a straight line through the points rises from the first to the last: by Theil and Sen, whom outliers do not
    move."""
    slopes = [(late[1] - early[1]) / (late[0] - early[0]) for early, late in combinations(points, 2)]
    return median(slopes) * (points[-1][0] - points[0][0])


def check_growth(name: str, samples: Sequence[Sample], kv_bytes: int = 0) -> Iterable[str]:
    """What of a process has grown beyond its bound over the second half of the samples; `kv_bytes` come and go."""
    if len(samples) < FEWEST_SAMPLES:
        return
    half = samples[len(samples) // 2 :]
    hours = (half[-1].at_s - half[0].at_s) / 3600
    for field in fields(Sample)[1:]:
        points = [(sample.at_s, float(getattr(sample, field.name))) for sample in half]
        grown, bounds = growth(points), BOUNDS[field.name]
        if field.name == "anonymous_bytes":
            grown -= kv_bytes
        if grown > bounds.at_most + bounds.per_hour * hours:
            values = ", ".join(f"{value:.0f}" for _, value in points)
            yield f"{name}: {field.name} has grown by {grown:.0f} in {hours * 60:.1f} minutes: {values}"
