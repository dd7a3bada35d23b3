"""Whether this platform may act for a deployment: it leads, and has read what whoever led before committed."""

from __future__ import annotations

from collections.abc import Callable

from mec_platform.control_plane.broadcast.outcome import PlanRejected
from mec_platform.control_plane.journal import Journal
from mec_platform.registry.leadership import Leadership


class Lead:
    """Of one deployment; `begun` is called each time that this platform has begun to lead."""

    def __init__(self, journal: Journal, leadership: Leadership, begun: Callable[[], None]) -> None:
        self._journal = journal
        self._leadership = leadership
        self._begun = begun
        self.taken_up = False
        """Whether this platform led, and had taken up what others committed, when it was last asked."""

    async def take_up(self) -> bool:
        """Whether this platform may act; where it has just begun to, what others committed is read first.

        Raises LogUnavailable.
        """
        if self._leadership.is_leader and not self.taken_up:
            await self._journal.begin_to_lead()
            if not self.taken_up:  # an order and a tick may have come together
                self.taken_up = True
                self._begun()
        if not self._leadership.is_leader:
            self.taken_up = False
            self._journal.cease_to_lead()
        return self.taken_up

    async def require(self) -> None:
        """Raises PlanRejected where another platform leads, LogUnavailable where that cannot be told."""
        if not await self.take_up():
            raise PlanRejected(self.who_leads())

    @property
    def is_leader(self) -> bool:
        """Whether this platform leads right now."""
        return self._leadership.is_leader

    def who_leads(self) -> str:
        """For people, where this platform does not."""
        leader = self._leadership.leader
        return f"{leader} leads: nodes, gateways and orders belong there" if leader else "no platform leads right now"
