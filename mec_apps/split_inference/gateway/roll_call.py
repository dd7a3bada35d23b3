"""Tells every node again and again which sessions live, so that none keeps the KV of one that has ended.

The end of a session travels down its chain behind its frames. Where a node or a link of the chain fails at that moment, the
nodes behind it are not told, and frames or copies of KV that are still on their way may come after the end. A node that stays
in use would hold those pages for good; the next roll call frees them.
"""

from __future__ import annotations

import asyncio

from mec_apps.split_inference.gateway.sessions import Sessions
from mec_apps.split_inference.peer_link import LinkLost, LinkPool
from mec_platform.background import BackgroundTasks

EVERY_S = 2.0
"""A hundred bytes or so to every node."""


class RollCall:
    """Over the sessions of a gateway; `start`, then `stop`."""

    def __init__(self, sessions: Sessions, links: LinkPool) -> None:
        self._sessions = sessions
        self._links = links
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins to call."""
        self._tasks.start("roll call", self._call_again())

    async def stop(self) -> None:
        """Calls no more."""
        await self._tasks.stop()

    def call(self) -> None:
        """Tells every node that there is a link to; one that is out of reach is told the next time."""
        roll = self._sessions.roll()
        for link in self._links.all:
            try:
                link.send(roll)
            except LinkLost:
                continue

    async def _call_again(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self.call()
