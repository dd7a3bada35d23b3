"""When so many members fall silent together that it is more likely that we do not hear them than that all have died.

Pure. Counterpart in the registry: `mass_expiry`, which guards services. Here the plan is what is guarded: a platform whose
own network broke must not take a working chain apart as soon as it hears the first member again.
"""

from __future__ import annotations

from collections.abc import Iterable

from mec_platform.control_plane.monitoring.settings import MassSilenceSettings


def first_of_mass_silence(
    last_heard_s: Iterable[float], now_s: float, timeout_s: float, settings: MassSilenceSettings
) -> float | None:
    """When the first of those who vanished together was last heard; None where no such silence is under way.

    `last_heard_s` are of members that neither left nor were reported as failed. Those who vanish at one moment were last
    heard within one report period, and time out within another, so members count from their first missed report on; but
    the silence begins when the first of them has timed out.
    """
    heard = sorted(last_heard_s)
    reporting = sum(1 for at_s in heard if now_s - at_s <= settings.overdue_s)
    missing = heard[: len(heard) - reporting]
    if reporting:
        missing = [at_s for at_s in missing if now_s - at_s <= settings.longest_s]
    first, largest = _largest_group(missing, settings.window_s)
    if first is None or now_s - first <= timeout_s:
        return None
    if reporting == 0:
        return first if largest > 1 else None
    believed = largest < settings.at_least or largest <= settings.part * (largest + reporting)
    return None if believed else first


def _largest_group(ordered: list[float], window_s: float) -> tuple[float | None, int]:
    """The first of the largest group of times within a window, the latest of equals, and how many it has."""
    first, largest, start = None, 0, 0
    for stop, at_s in enumerate(ordered, start=1):
        while at_s - ordered[start] > window_s:
            start += 1
        if stop - start >= largest:
            first, largest = ordered[start], stop - start
    return first, largest
