"""EMULATED links: a token bucket on the sending side that slows what leaves for one peer.

Used by demos, benchmarks and tests on one machine, and only by processes started with `--emulate`; everything that
reports a link shaped here says that it is emulated.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmulatedLink:
    """Rate and one-way delay to pretend; a rate of 0 is unlimited."""

    bytes_per_s: float = 0.0
    delay_s: float = 0.0


class LinkShaper:
    """Token bucket as deep as one message: a message leaves when its bytes have been paid for, plus the delay."""

    def __init__(self, link: EmulatedLink | None = None) -> None:
        self.link = link
        self._paid_until = 0.0

    async def wait_turn(self, size_bytes: int) -> None:
        """Returns when a message of that size may be written. Messages of one shaper keep their order."""
        link = self.link
        if link is None:
            return
        start = max(time.perf_counter(), self._paid_until)
        self._paid_until = start + (size_bytes / link.bytes_per_s if link.bytes_per_s > 0 else 0.0)
        wait = self._paid_until + link.delay_s - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)


class LinkShapers:
    """The shapers of one process, by peer name; `*` stands for peers that have no link of their own."""

    def __init__(self) -> None:
        self._links: dict[str, EmulatedLink] = {}
        self._shapers: dict[str, LinkShaper] = {}

    def emulate(self, links: dict[str, EmulatedLink]) -> None:
        """Sets links; what is not named stays. An unlimited link without delay lifts the emulation."""
        for peer, link in links.items():
            if link == EmulatedLink():
                self._links.pop(peer, None)
            else:
                self._links[peer] = link
        for peer, shaper in self._shapers.items():
            shaper.link = self._link_to(peer)

    def to(self, peer: str) -> LinkShaper:
        """The one shaper that everything sent to `peer` passes."""
        if peer not in self._shapers:
            self._shapers[peer] = LinkShaper(self._link_to(peer))
        return self._shapers[peer]

    def _link_to(self, peer: str) -> EmulatedLink | None:
        return self._links.get(peer, self._links.get("*"))
