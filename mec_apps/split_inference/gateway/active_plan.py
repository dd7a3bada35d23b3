"""A split plan that the gateway can use: with links to its nodes; and what sessions learn when one of them breaks.

Tokens enter a plan by `ActivePlan.enter` alone, so that one that is held gets no more of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.peer_link import LinkLost, PeerLink
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.endpoints import Channels

_log = logging.getLogger(__name__)


class PlanHolds:
    """Plans, by epoch, that nothing may be sent into any more, and why: the platform says so, twice over.

    It calls when there is news, and repeats it in answer to every report. An answer to a report from before the last call
    may be older than that, and counts for nothing.
    """

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._as_of_s = 0.0

    def why(self, epoch: int) -> str | None:
        """Why a plan is held; None where it may be used."""
        return self._reasons.get(epoch)

    def take(self, held: Mapping[int, str], as_of_s: float) -> dict[int, str]:
        """Makes these the plans that are held, as the platform saw it at `as_of_s` or later; returns those that were not."""
        if as_of_s < self._as_of_s:
            return {}
        news = {epoch: reason for epoch, reason in held.items() if epoch not in self._reasons}
        self._reasons, self._as_of_s = dict(held), as_of_s
        return news


class PlanHeld(Exception):
    """Nothing may be sent into the plan: a node of it is not trusted any more."""


@dataclass(frozen=True, slots=True)
class ActivePlan:
    """`addresses` maps every node of the plan to `host:port`; `channels` serve calls to their `EdgeNode` services.

    `links` are to the nodes of the chain, `standby_links` to those that only stand by and answered. KV of `lost` nodes of
    the plan before is not to be had, or not to be used.
    """

    plan: SplitPlan
    addresses: dict[str, str]
    links: dict[str, PeerLink]
    channels: Channels
    holds: PlanHolds = field(default_factory=PlanHolds)
    standby_links: dict[str, PeerLink] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @property
    def unreachable(self) -> frozenset[str]:
        """Nodes that hold something for the plan, and to which this gateway has no live stream."""
        links = self.links | self.standby_links
        return frozenset(node for node in self.plan.members if node not in links or not links[node].connected)

    @property
    def first(self) -> PeerLink:
        """The link to the first stage: what is sent there, but for tokens and rows, goes along the chain."""
        return self.links[self.plan.stages[0].node]

    def check_open(self) -> None:
        """Raises PlanHeld."""
        reason = self.holds.why(self.plan.epoch)
        if reason is not None:
            raise PlanHeld(reason)

    def enter(self, frame: Frame) -> None:
        """Sends tokens or rows into the chain. Raises LinkLost, or StageLost where the plan is held."""
        try:
            self.check_open()
        except PlanHeld as held:
            raise StageLost(str(held)) from held
        self.first.send(frame)

    @property
    def usable(self) -> bool:
        """Whether this gateway has a live stream to every node of the plan, and may send into it."""
        return self.holds.why(self.plan.epoch) is None and all(link.connected for link in self.links.values())

    def end(self, session: int, link: PeerLink) -> None:
        """Tells one of its nodes, in order behind the session's frames, that the session is over."""
        try:
            link.send(Frame(FrameKind.END, epoch=self.plan.epoch, session=session))
        except LinkLost as lost:
            _log.info("session %x ended without telling %s: %s", session, link.peer, lost)


class StageLost(Exception):
    """The present frame will not be answered: a stage, or the way to it, is gone. The tokens are replayed."""
