"""Which of several platform replicas acts: the port, and the leader of a platform that has no replicas. `etcd` elects.

Everybody answers requests and changes the registry. What nobody may do twice only the leader does: posting to
callbacks, ending what is overdue, suspending services, looking after keys, compacting, and the control loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

LeadershipListener = Callable[[bool], None]
"""Told whether this replica leads, when that changes; must not block."""


class Leadership(Protocol):
    """At most one replica leads at any moment; for a while nobody may."""

    @property
    def is_leader(self) -> bool:
        """Whether this replica may act now: to be asked before each act, for it ends by itself when time runs out."""

    @property
    def leader(self) -> str:
        """Who leads, as far as is known; empty where nobody does."""

    def add_listener(self, listener: LeadershipListener) -> None:
        """Calls `listener` with every change from now on."""

    async def start(self) -> None:
        """Stands for election from now on; with nobody else there, this replica leads when it returns.

        Raises:
            LogUnavailable: the store below does not answer.
        """

    async def stop(self) -> None:
        """Resigns, so that another replica need not wait, and stands no more."""


class AlwaysLeader:
    """Implements `Leadership` for the only platform there is."""

    is_leader = True
    leader = ""

    def add_listener(self, listener: LeadershipListener) -> None:
        """Nothing ever changes."""

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""
