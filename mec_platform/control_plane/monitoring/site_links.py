"""Links between sites, from those that members measured between them: members of large deployments measure few peers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mec_platform.domain.capacity import LinkCapacity


def links_between_sites(links: Iterable[LinkCapacity], sites: Mapping[str, str]) -> tuple[LinkCapacity, ...]:
    """One link for each direction between two sites, and within one, that any member has measured, in order of names.

    `sites` names the site of each member that has one. Every figure is the median of the members' own, so that one member
    behind a slow last mile does not speak for its site; of two, the more cautious one.
    """
    between: dict[tuple[str, str], list[LinkCapacity]] = {}
    for link in links:
        source, target = sites.get(link.source, ""), sites.get(link.target, "")
        if source and target:
            between.setdefault((source, target), []).append(link)
    return tuple(
        LinkCapacity(
            source,
            target,
            bytes_per_s=_low_median([link.bytes_per_s for link in found]),
            round_trip_s=-_low_median([-link.round_trip_s for link in found]),
            confidence=_low_median([link.confidence for link in found]),
            age_s=-_low_median([-link.age_s for link in found]),
        )
        for (source, target), found in sorted(between.items())
    )


def _low_median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
