"""When a notification that its target did not take is tried again. Pure: the time and the die are arguments."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random

from mec_platform.enablement_api.notifications.settings import DeliverySettings

_DOUBLINGS = 32
"""More of them would exceed any cap; without a bound the power itself would grow for ever."""


def choose_delay_s(failures: int, asked_s: float | None, settings: DeliverySettings, die: Random) -> float:
    """Seconds to wait after `failures` attempts in a row (1 or more) have failed.

    Full jitter: anything between nothing and the exponential bound, so that targets which came back are not met by all
    their retries at once. `asked_s` is what the target itself asked for (`Retry-After`): the wait is no shorter, within
    the cap.
    """
    bound_s = min(settings.first_delay_s * 2 ** min(failures - 1, _DOUBLINGS), settings.longest_delay_s)
    chosen_s = die.uniform(0, bound_s)
    return chosen_s if asked_s is None else min(max(chosen_s, asked_s), settings.longest_delay_s)


def read_retry_after_s(text: str | None, now_unix_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110 clause 10.2.3: a number or a date); None where it makes no sense."""
    if text is None:
        return None
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit():
        # More digits than this say the same: for ever.
        return float(stripped[:9])
    try:
        moment = parsedate_to_datetime(stripped)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(zoned.timestamp() - now_unix_s, 0.0)
