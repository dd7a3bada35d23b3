"""A split plan that the gateway can use: with links to its nodes; and what sessions learn when one of them breaks."""

from __future__ import annotations

from dataclasses import dataclass

from mec_apps.split_inference.peer_link import PeerLink
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.endpoints import Channels


@dataclass(frozen=True, slots=True)
class ActivePlan:
    """`addresses` maps every node of the plan to `host:port`; `channels` serve calls to their `EdgeNode` services."""

    plan: SplitPlan
    addresses: dict[str, str]
    links: dict[str, PeerLink]
    channels: Channels

    @property
    def first(self) -> PeerLink:
        """The link that tokens enter the chain by."""
        return self.links[self.plan.stages[0].node]

    @property
    def usable(self) -> bool:
        """Whether this gateway has a live stream to every node of the plan."""
        return all(link.connected for link in self.links.values())


class StageLost(Exception):
    """The present frame will not be answered: a stage, or the way to it, is gone. The tokens are replayed."""
