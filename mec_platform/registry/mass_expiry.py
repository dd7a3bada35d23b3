"""When many services fall silent at once, it is more likely that we do not hear them than that all have died.

Pure: the leases' numbers and the time come in as arguments. While the protection is on, `liveness` suspends and evicts
nothing: a registry that is wiped by a broken switch of its own does more harm than one that lists some dead services.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MassExpirySettings:
    """The protection begins when more than `part` of the living leases, and at least `at_least` of them, lapse within
    `window_s`. It ends when enough of them are heard of again, or after `longest_s`: time for an operator to see
    `mec_registry_mass_expiry_protection` and look after the network.

    The window is half of the usual interval: silence of everybody, of whom each renews twice in an interval, shows in it.
    """

    part: float = 0.3
    at_least: int = 10
    window_s: float = 15.0
    longest_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Protection:
    """`since_s` is when it began, None while it is off. Lapses up to `settled_s` were waited for long enough."""

    since_s: float | None = None
    settled_s: float = -float("inf")

    @property
    def is_on(self) -> bool:
        """Whether nothing may be suspended or evicted."""
        return self.since_s is not None

    def counts_after_s(self, now_s: float, settings: MassExpirySettings) -> float:
        """Lapses after this moment count."""
        begin_s = now_s if self.since_s is None else self.since_s
        return max(begin_s - settings.window_s, self.settled_s)


def decide_protection(
    before: Protection, lapsed: int, living: int, now_s: float, settings: MassExpirySettings
) -> Protection:
    """What holds from now on, when `lapsed` of `living` leases have lapsed since `counts_after_s` and are silent still."""
    if before.since_s is not None and now_s - before.since_s >= settings.longest_s:
        return Protection(None, now_s)
    if lapsed >= settings.at_least and lapsed > settings.part * living:
        return before if before.is_on else Protection(now_s, before.settled_s)
    return Protection(None, before.settled_s)
