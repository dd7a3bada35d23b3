"""Sees to it that the weights of a stage are here before it is loaded: fetches the parts that its package lacks.

Runs on the event loop; disk and hashes are worked on beside it, so that sessions go on while weights arrive. Nothing to do
where the package is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence

from mec_apps.split_inference.content.sinks import PartSink
from mec_apps.split_inference.content.sources import SourceDirectory
from mec_apps.split_inference.content.transfer import transfer
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.stages import Held
from mec_platform.content_store.entries import PARTIAL_MODELS, read_manifest
from mec_platform.content_store.partial_weights import PartialWeights
from mec_platform.content_store.store import ContentStore
from mec_platform.content_store.weights import block_part, parts_of_stage

_LOGGED_STEPS = 10
_log = logging.getLogger(__name__)


class StageWeights:
    """The weights of one package in `store`. `fetched_bytes` counts what has arrived since the node started, `bytes_per_s` is
    what the last fetch came at, 0 before there was one."""

    def __init__(self, package: ModelPackage, directory: SourceDirectory, store: ContentStore) -> None:
        self._store = store
        self._package = package
        self._directory = directory
        self._turn = asyncio.Lock()
        self.fetched_bytes = 0
        self.bytes_per_s = 0.0
        is_partial = package.folder.parent.name == PARTIAL_MODELS
        self._weights = PartialWeights(package.folder, read_manifest(package.folder) or {}) if is_partial else None

    def local_blocks(self) -> frozenset[int] | None:
        """Blocks whose weights are here; None where all of them are."""
        if self._weights is None:
            return None
        whole = self._weights.whole_parts()
        return frozenset(block for block in range(len(self._weights.parts)) if block_part(block) in whole)

    async def ensure(self, stage: Held) -> None:
        """Returns when all that `stage` reads is here.

        Raises:
            FetchError: no source has it. OSError: the disk has no room.
        """
        weights = self._weights
        if weights is None:
            return
        names = parts_of_stage(
            stage.layers.start,
            stage.layers.stop,
            is_first=stage.is_first,
            is_last=stage.is_last,
            tied_embedding=self._package.spec.tied_embedding,
        )
        if weights.whole_parts().issuperset(names):
            return
        async with self._turn, _filling(weights):
            whole = weights.whole_parts()
            await self._fetch(weights, [name for name in names if name not in whole])
        await asyncio.to_thread(self._store.evict)  # the package has grown; what is in use stays

    async def _fetch(self, weights: PartialWeights, names: Sequence[str]) -> None:
        sources = await self._directory.sources()
        total, done, logged = sum(weights.parts[name].size for name in names), 0, 0

        def advance(size: int) -> None:
            nonlocal done, logged
            done += size
            self.fetched_bytes += size
            if done * _LOGGED_STEPS >= (logged + 1) * total:
                logged = done * _LOGGED_STEPS // total
                _log.info("weights: %d %% of %.1f MB", 100 * done // total, total / 1e6)

        key, started_s = self._package.folder.name, time.perf_counter()
        for name in names:
            part = weights.parts[name]
            await transfer(
                PartSink(weights, part),
                sources,
                lambda source, part=part: source.part_reader(key, part.name, part.size),  # type: ignore[misc]
                advance,
            )
        self.bytes_per_s = total / max(time.perf_counter() - started_s, 1e-6)


@contextlib.asynccontextmanager
async def _filling(weights: PartialWeights) -> AsyncIterator[None]:
    """`weights.filling`, whose waiting does not stop the event loop."""
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, weights.filling())
        yield
