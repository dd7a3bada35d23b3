"""A split plan that the gateway can use: with links to its nodes; and what sessions learn when one of them breaks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.peer_link import LinkLost, PeerLink
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.endpoints import Channels

_log = logging.getLogger(__name__)


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
    standby_links: dict[str, PeerLink] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @property
    def unreachable(self) -> frozenset[str]:
        """Nodes that hold something for the plan, and to which this gateway has no live stream."""
        links = self.links | self.standby_links
        return frozenset(node for node in self.plan.members if node not in links or not links[node].connected)

    @property
    def first(self) -> PeerLink:
        """The link that tokens enter the chain by."""
        return self.links[self.plan.stages[0].node]

    @property
    def usable(self) -> bool:
        """Whether this gateway has a live stream to every node of the plan."""
        return all(link.connected for link in self.links.values())

    def end(self, session: int, link: PeerLink) -> None:
        """Tells one of its nodes, in order behind the session's frames, that the session is over."""
        try:
            link.send(Frame(FrameKind.END, epoch=self.plan.epoch, session=session))
        except LinkLost as lost:
            _log.info("session %x ended without telling %s: %s", session, link.peer, lost)


class StageLost(Exception):
    """The present frame will not be answered: a stage, or the way to it, is gone. The tokens are replayed."""
