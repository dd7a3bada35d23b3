"""Whom to ask: the platform, and the nodes that it names, in the order that it wishes. Their stores are all served alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mec_apps.split_inference.content.source import ContentSource, SourceFailed
from mec_platform.rpc.endpoints import Channels

PLATFORM = "the platform"
_log = logging.getLogger(__name__)


class SourceDirectory:
    """The sources for the node called `own_name`; the nodes heard of last are remembered for when the platform is away."""

    def __init__(self, platform_grpc: str, own_name: str, channels: Channels) -> None:
        self._platform_grpc = platform_grpc
        self._own_name = own_name
        self._channels = channels
        self._others: list[tuple[str, str]] = []
        self._others_first = False

    async def sources(self) -> Sequence[ContentSource]:
        """Sources in the order in which to ask them."""
        platform = ContentSource(PLATFORM, self._channels.to(self._platform_grpc))
        try:
            self._others, self._others_first = await platform.other_sources()
        except SourceFailed as failed:
            _log.info("%s names no other sources: %s", PLATFORM, failed)
        peers = [
            ContentSource(name, self._channels.to(address, name))
            for name, address in self._others
            if name != self._own_name and address
        ]
        return [*peers, platform] if self._others_first else [platform, *peers]


def platform_first(sources: Sequence[ContentSource]) -> list[ContentSource]:
    """The order in which to ask for manifests: bytes are checked against them, so a node's word counts only where the
    platform has none.
    """
    return sorted(sources, key=lambda source: source.name != PLATFORM)
