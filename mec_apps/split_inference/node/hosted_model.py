"""What a node hosts: a decoder's package or an encoder's, opened, with all that differs between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mec_apps.split_inference.content.sources import SourceDirectory
from mec_apps.split_inference.content.stage_weights import StageWeights
from mec_apps.split_inference.encoder_package import EncoderPackage, is_encoder
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.artefact_check import MachineFacts
from mec_apps.split_inference.node.compiled_encoder import CompiledEncoder
from mec_apps.split_inference.node.compute import MAX_BATCH_ROWS
from mec_apps.split_inference.node.load_model import load_model
from mec_apps.split_inference.node.settings import NodeSettings
from mec_apps.split_inference.node.stage_model import StageModel
from mec_apps.split_inference.node.stages import Held
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.kernel_contract import PAGE_TOKENS
from mec_platform.domain.model_shape import ModelShape


class ShapedModel(Protocol):
    """Whatever says what planners need to know of a model."""

    @property
    def shape(self) -> ModelShape: ...


class WeightSource(Protocol):
    """What loading a stage asks for its weights."""

    fetched_bytes: int
    bytes_per_s: float

    def local_blocks(self) -> frozenset[int] | None:
        """Blocks whose weights are at hand; None where all of them are."""

    async def ensure(self, stage: Held) -> None:
        """Has the stage's weights at hand. Raises FetchError, or OSError where they have no room."""


class LocalWeights:
    """The weights of a package that is whole on this machine."""

    fetched_bytes = 0
    bytes_per_s = 0.0

    def local_blocks(self) -> frozenset[int] | None:
        """All of them."""
        return None

    async def ensure(self, stage: Held) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class HostedModel:
    """`row_bytes(block)` are the bytes of a row in front of a block: an encoder's tensors are one row each.

    `load` is called in the compute thread. `vocabulary` is 0 where no tokens are taken.
    """

    shape: ModelShape
    context: int
    vocabulary: int
    row_bytes: Callable[[int], int]
    load: Callable[[], StageModel]
    weights: WeightSource


def open_hosted_model(
    settings: NodeSettings, machine: MachineFacts, sources: SourceDirectory, store: ContentStore
) -> HostedModel:
    """Opens the package of the settings.

    Raises:
        PackageError: it is missing or damaged.
    """
    return (_open_encoder if is_encoder(settings.package_dir) else _open_decoder)(settings, machine, sources, store)


def _open_encoder(
    settings: NodeSettings, machine: MachineFacts, sources: SourceDirectory, store: ContentStore
) -> HostedModel:
    package = EncoderPackage.open(settings.package_dir)
    return HostedModel(
        shape=package.shape,
        context=1,
        vocabulary=0,
        row_bytes=package.boundary_bytes,
        load=lambda: CompiledEncoder(
            package,
            settings.artefact_dir,
            threads=settings.threads,
            max_requests=settings.max_sessions,
            machine=machine,
        ),
        weights=LocalWeights(),
    )


def _open_decoder(
    settings: NodeSettings, machine: MachineFacts, sources: SourceDirectory, store: ContentStore
) -> HostedModel:
    package = ModelPackage.open(settings.package_dir)
    context = min(settings.context, package.spec.context)
    return HostedModel(
        shape=package.shape,
        context=context,
        vocabulary=package.spec.vocab,
        row_bytes=lambda block: package.shape.hidden_bytes_per_row,
        load=lambda: load_model(
            package,
            settings.artefact_dir,
            machine,
            threads=settings.threads,
            kv_pages=settings.kv_tokens // PAGE_TOKENS,
            max_sessions=settings.max_sessions + 1,
            max_rows=MAX_BATCH_ROWS,
            context=context,
        ),
        weights=StageWeights(package, sources, store),
    )
