"""Members behind one UE share its radio link: what one of them sees of the way to somebody outside holds for the others too.

Each of them measures at moments of its own, so a burst is seen by one and missed by another; a plan must not be moved from one
to the other because of that. Of what they saw the worse counts for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mec_platform.domain.capacity import LinkCapacity


def share_radio_links(links: tuple[LinkCapacity, ...], behind: Mapping[str, str]) -> tuple[LinkCapacity, ...]:
    """The links, those that cross the same radio link to the same place made alike; all others stay the same objects.

    `behind` names the UE of every member that is behind one. Round trips are those of both directions, rates of one.
    """
    trips: dict[tuple[str, str], float] = {}
    rates: dict[tuple[str, str, bool], float] = {}
    ways = [_way(link, behind) for link in links]
    for link, way in zip(links, ways, strict=True):
        if way is not None:
            ue, outside, up = way
            trips[ue, outside] = max(trips.get((ue, outside), 0.0), link.round_trip_s)
            rates[ue, outside, up] = min(rates.get((ue, outside, up), link.bytes_per_s), link.bytes_per_s)
    return tuple(
        link if way is None else replace(link, round_trip_s=trips[way[:2]], bytes_per_s=rates[way])
        for link, way in zip(links, ways, strict=True)
    )


def _way(link: LinkCapacity, behind: Mapping[str, str]) -> tuple[str, str, bool] | None:
    """UE, who is outside, and whether it is the way up; None where no or more than one radio link is crossed."""
    source, target = behind.get(link.source), behind.get(link.target)
    if source is not None and target is None:
        return source, link.target, True
    if target is not None and source is None:
        return target, link.source, False
    return None
