"""gRPC `EdgeNode`: what the control plane, gateways and other nodes ask of a node. Parse, one job in the compute thread, answer."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import grpc
import grpc.aio

from mec_apps.split_inference.content.transfer import FetchError
from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.link_shaper import EmulatedLink, LinkShapers
from mec_apps.split_inference.node.compute import ComputeThread
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.node.hosted_model import ShapedModel, WeightSource
from mec_apps.split_inference.node.kv_compression import KvCompression
from mec_apps.split_inference.node.kv_pages import KvRefusal
from mec_apps.split_inference.node.kv_transfer import (
    KvPiece,
    KvSpan,
    check_held,
    compress_piece,
    cut_kv,
    expand_piece,
    spans_of,
    store_kv,
)
from mec_apps.split_inference.node.settings import NodeSettings
from mec_apps.split_inference.node.stages import (
    Held,
    LoadedStage,
    StageError,
    StaleEpoch,
    stage_of,
    standbys_of,
)
from mec_apps.split_inference.peer_link import LinkLost
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.convert import (
    addresses_from_message,
    hardware_to_message,
    layers_from_message,
    layers_to_message,
    plan_from_message,
    shape_to_message,
)
from mec_platform.rpc.endpoints import Channels, Context
from mec_platform.rpc.v1 import edge_node_pb2, edge_node_pb2_grpc

CONNECT_TIMEOUT_S = 3.0
LONGEST_TRANSFER_S = 60.0
"""Whoever asked for a transfer gives it up far earlier; this is for a target that hangs while nobody waits any more."""

LONGEST_WAIT_S = 5.0
"""For a position that is being computed; whoever asks waits no longer for a token."""

_WARM_UP_RUNS = 2
_COPYING_RESTS = 3.0
"""A copy in the background rests three times as long as it works, so that it takes a quarter of a core at most here and on the
node that stores it: tokens flow meanwhile, and nobody waits for the copy."""

_LONGEST_REST_S = 0.02
"""A link that holds writes up is no work of this node."""

_log = logging.getLogger(__name__)


class EdgeNodeService(edge_node_pb2_grpc.EdgeNodeServicer):
    """The servicer; `compute` owns everything that it touches."""

    def __init__(
        self,
        settings: NodeSettings,
        package: ShapedModel,
        hardware: HardwareTarget,
        compute: ComputeThread,
        data_plane: DataPlane,
        shapers: LinkShapers,
        channels: Channels,
        weights: WeightSource,
    ) -> None:
        self._settings = settings
        self._shape = package.shape
        self._hardware = hardware
        self._compute = compute
        self._data_plane = data_plane
        self._shapers = shapers
        self._channels = channels
        self._weights = weights
        self._used: frozenset[int] = frozenset()
        """Layers that stages have needed since it was last looked which they do not."""
        self.address = ""

    async def Describe(self, request: edge_node_pb2.DescribeRequest, context: Context) -> edge_node_pb2.NodeDescription:
        compute, timings = self._compute, self._compute.timings
        return edge_node_pb2.NodeDescription(
            name=self._settings.name,
            address=self.address,
            hardware=hardware_to_message(self._hardware),
            model=shape_to_message(self._shape),
            memory_bytes=self._settings.memory_bytes,
            committed_epoch=compute.stages.committed_epoch,
            stages=[
                edge_node_pb2.LoadedStage(epoch=stage.epoch, layers=layers_to_message(stage.layers))
                for stage in compute.stages.stages
            ],
            sessions=compute.kv.sessions,
            kv_pages_used=compute.kv.used,
            kv_pages_total=compute.kv.total,
            block_time_us=timings.block_s * 1e6,
            head_time_us=timings.head_s * 1e6,
            prefill_block_time_us_per_row=timings.prefill_block_s_per_row * 1e6,
            trusted=self._settings.trusted,
            emulated=self._settings.emulate,
            frames_run=compute.frames_run,
            rows_run=compute.rows_run,
            resident_bytes=_resident_bytes(),
            process_id=os.getpid(),
            fetched_bytes=self._weights.fetched_bytes,
        )

    async def LoadStage(
        self, request: edge_node_pb2.LoadStageRequest, context: Context
    ) -> edge_node_pb2.LoadStageReply:
        started = time.perf_counter()
        try:
            plan = plan_from_message(request.plan)
            held = self._share_of(plan, request.stage_index if request.HasField("stage_index") else None)
            self._check_memory(held)
        except (ValueError, StageError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except MemoryError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        try:
            for each in held:
                await self._weights.ensure(each)
        except FetchError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except OSError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"no room for the weights: {error}")
        try:
            await self._connect_next(held, addresses_from_message(request.plan))
            await self._compute.call_in_steps(self._load(held))
        except StaleEpoch as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except MemoryError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except LinkLost as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the next stage cannot be reached: {error}")
        load_ms = (time.perf_counter() - started) * 1e3
        layers = ", ".join(str(each.layers) for each in held)
        _log.info("epoch %d: layers %s ready after %.1f ms", plan.epoch, layers, load_ms)
        return edge_node_pb2.LoadStageReply(load_ms=load_ms)

    async def AbortEpoch(self, request: edge_node_pb2.EpochRequest, context: Context) -> edge_node_pb2.EpochReply:
        try:
            await self._compute.call(lambda: self._abort(request.epoch))
        except StaleEpoch as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return edge_node_pb2.EpochReply(committed_epoch=self._compute.stages.committed_epoch)

    async def CommitEpoch(self, request: edge_node_pb2.EpochRequest, context: Context) -> edge_node_pb2.EpochReply:
        try:
            await self.commit(request.epoch)
        except StaleEpoch as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return edge_node_pb2.EpochReply(committed_epoch=self._compute.stages.committed_epoch)

    async def ExportKv(
        self, request: edge_node_pb2.KvSelection, context: Context
    ) -> AsyncIterator[edge_node_pb2.KvChunk]:
        layers = await self._check_selection(request, context)
        for span in spans_of(self._compute.model, layers, request.first_position, request.last_position):
            piece, _ = await self._cut(request.session, span)
            yield await self._chunk(piece, KvCompression.NONE)

    async def ImportKv(
        self, request_iterator: AsyncIterator[edge_node_pb2.KvChunk], context: Context
    ) -> edge_node_pb2.ImportKvReply:
        received = 0
        try:
            async for chunk in request_iterator:
                received += len(chunk.keys) + len(chunk.values)
                piece = await self._piece(chunk)
                await self._compute.call(partial(self._store, piece))
        except KvRefusal as refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return edge_node_pb2.ImportKvReply(bytes=received)

    async def SendKv(self, request: edge_node_pb2.SendKvRequest, context: Context) -> edge_node_pb2.SendKvReply:
        wanted = request.selection
        layers = await self._check_selection(wanted, context, request.wait_s)
        shaper = self._shapers.to(request.target)
        started = time.perf_counter()
        target = edge_node_pb2_grpc.EdgeNodeStub(self._channels.to(request.target_address, request.target))
        call = target.ImportKv(timeout=LONGEST_TRANSFER_S)
        try:
            spans = spans_of(self._compute.model, layers, wanted.first_position, wanted.last_position)
            rest = _COPYING_RESTS if request.in_background else 0.0
            worked_s = 0.0
            for span in spans:
                await asyncio.sleep(min(worked_s * rest, _LONGEST_REST_S))
                piece, cut_s = await self._cut(wanted.session, span)
                chunk = await self._chunk(piece, self._settings.kv_compression)
                await shaper.wait_turn(len(chunk.keys) + len(chunk.values))
                began = time.perf_counter()
                await call.write(chunk)
                worked_s = cut_s + time.perf_counter() - began
            await call.done_writing()
            reply = await call
        except KvRefusal as refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            code, details = await call.code(), await call.details()
            if code is grpc.StatusCode.FAILED_PRECONDITION:  # which here is for what this node lacks
                code = grpc.StatusCode.OUT_OF_RANGE
            await context.abort(code, f"{request.target} did not take the KV: {details}")
        finally:
            call.cancel()  # of one that is over it changes nothing
        return edge_node_pb2.SendKvReply(bytes=reply.bytes, transfer_ms=(time.perf_counter() - started) * 1e3)

    async def EndSession(
        self, request: edge_node_pb2.EndSessionRequest, context: Context
    ) -> edge_node_pb2.EndSessionReply:
        freed = await self._compute.call(lambda: self._compute.kv.end(request.session))
        return edge_node_pb2.EndSessionReply(pages_freed=freed)

    async def Emulate(self, request: edge_node_pb2.EmulateRequest, context: Context) -> edge_node_pb2.EmulateReply:
        if not self._settings.emulate:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"{self._settings.name} was started without --emulate"
            )
        if not 0 <= request.cpu_share <= 1 or any(
            each.bytes_per_s < 0 or each.delay_ms < 0 for each in request.links.values()
        ):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "cpu_share must be in (0, 1], rates and delays not negative"
            )
        self._shapers.emulate(
            {peer: EmulatedLink(link.bytes_per_s, link.delay_ms / 1e3) for peer, link in request.links.items()}
        )
        if request.cpu_share:
            self._compute.cpu_share = request.cpu_share
        return edge_node_pb2.EmulateReply()

    async def commit(self, epoch: int) -> None:
        """Makes `epoch` the committed one and gives back what older epochs held. Raises StaleEpoch."""
        await self._compute.call(lambda: self._commit(epoch))

    async def forget_before(self, epoch: int) -> None:
        """Lets go of stages that were prepared for an epoch below that one: nobody works on it any more."""
        if self._compute.stages.prepared_before(epoch):
            await self._compute.call(lambda: self._forget_before(epoch))

    def _share_of(self, plan: SplitPlan, stage_index: int | None) -> tuple[Held, ...]:
        """What a plan gives this node. Raises StageError where that does not fit together."""
        name, shape = self._settings.name, self._shape
        stage = () if stage_index is None else (stage_of(plan, stage_index, name, shape.name, shape.blocks),)
        held = (*stage, *standbys_of(plan, name, shape.blocks))
        if plan.model != shape.name or not held:
            raise StageError(f"the plan for model {plan.model} has nothing for {name}, which has {shape.name}")
        return held

    def _check_memory(self, held: Sequence[Held]) -> None:
        shape = self._shape
        layers = {layer for each in held for layer in each.layers}
        needed = len(layers) * shape.block_bytes
        needed += shape.embed_bytes * any(each.is_first for each in held)
        needed += shape.head_bytes * any(each.is_last for each in held)
        if needed > self._settings.memory_bytes:
            raise MemoryError(
                f"layers {', '.join(str(each.layers) for each in held)} need {needed / 1e6:.0f} MB, "
                f"{self._settings.name} offers {self._settings.memory_bytes / 1e6:.0f} MB"
            )

    async def _connect_next(self, held: Sequence[Held], addresses: dict[str, str]) -> None:
        for following in [each.next_node for each in held if isinstance(each, LoadedStage)]:
            if following is None:
                continue
            address = addresses.get(following, "")
            if not address:
                raise LinkLost(f"the plan gives no address for {following}")
            await self._data_plane.links.connect(following, address, CONNECT_TIMEOUT_S)

    def _load(self, held: Sequence[Held]) -> Iterator[None]:
        """Frames of stages in use have their turn between its steps. Raises StaleEpoch, MemoryError."""
        unused = self._compute.stages.unused_layers(self._shape.blocks)
        cold = [layers.intersection(each.layers) for layers in unused for each in held]
        self._compute.stages.prepare(*held)
        self._used |= frozenset(layer for each in held for layer in each.layers)
        try:
            for each in held:
                self._compute.model.load_stage(each.layers, each.is_first, each.is_last)
        except MemoryError:
            self._abort(held[0].epoch)
            raise
        for layers in cold:
            if layers is None:
                continue
            for _ in self._compute.warm_up(layers, _WARM_UP_RUNS):
                yield
                if held[0] not in self._compute.stages.held:  # given up meanwhile, and its layers with it
                    return

    def _store(self, piece: KvPiece) -> None:
        """Raises KvRefusal: of layers that this node has let go of, or never had, it takes no KV."""
        if not self._compute.stages.holds(piece.span.layers):
            raise KvRefusal(Refusal.GAP, f"this node holds nothing with layers {piece.span.layers}")
        store_kv(self._compute.model, self._compute.kv, piece)

    def _commit(self, epoch: int) -> None:
        self._compute.stages.commit(epoch)
        self._release_unused()

    def _abort(self, epoch: int) -> None:
        self._compute.stages.abort(epoch)
        self._release_unused()

    def _forget_before(self, epoch: int) -> None:
        if self._compute.stages.forget_before(epoch):
            _log.info("prepared stages of epochs below %d are dropped: their change was given up", epoch)
            self._release_unused()

    def _release_unused(self) -> None:
        """Gives back the KV of layers that no stage needs; without any stage, of every session."""
        stages = self._compute.stages
        unused = stages.unused_layers(self._shape.blocks)
        used = frozenset(range(self._shape.blocks)).difference(*unused)
        if not self._used <= used:
            self._compute.model.wipe_scratch()
        self._used = used
        for layers in unused:
            self._compute.kv.forget_layers(layers)
            self._compute.model.release_layers(layers)
        held = stages.held
        self._compute.model.release_text(
            embed=not any(each.is_first for each in held), head=not any(each.is_last for each in held)
        )
        if not held:
            for session in self._compute.kv.sessions:
                self._compute.kv.end(session)

    async def _check_selection(
        self, selection: edge_node_pb2.KvSelection, context: Context, wait_s: float = 0.0
    ) -> LayerRange:
        """The layers that are asked for, where this node holds their KV, within `wait_s`; ends the call where it does not."""
        try:
            layers = layers_from_message(selection.layers)
            if layers.stop > self._shape.blocks:
                raise ValueError(f"layers {layers}, the model has {self._shape.blocks} blocks")
            kv, last = self._compute.kv, selection.last_position
            if wait_s > 0:
                await self._compute.wait_held(selection.session, layers, last, min(wait_s, LONGEST_WAIT_S))
            await self._compute.call(lambda: check_held(kv, selection.session, layers, last))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except KvRefusal as refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        return layers

    async def _cut(self, session: int, span: KvSpan) -> tuple[KvPiece, float]:
        """A piece, and the seconds that the compute thread spent on it. Raises KvRefusal where the session has gone."""

        def cut() -> tuple[KvPiece, float]:
            began = time.perf_counter()
            piece = cut_kv(self._compute.model, self._compute.kv, session, span)
            return piece, time.perf_counter() - began

        return await self._compute.call(cut)

    async def _chunk(self, piece: KvPiece, compression: KvCompression) -> edge_node_pb2.KvChunk:
        if compression is KvCompression.INT8:  # beside the compute thread: it takes several times what a copy takes
            piece = await asyncio.to_thread(compress_piece, self._compute.model, piece)
        return edge_node_pb2.KvChunk(
            session=piece.session,
            layers=layers_to_message(piece.span.layers),
            first_position=piece.span.first,
            last_position=piece.span.last,
            keys=piece.keys,
            values=piece.values,
            compression="" if compression is KvCompression.NONE else compression,
        )

    async def _piece(self, chunk: edge_node_pb2.KvChunk) -> KvPiece:
        """Raises ValueError for what is no piece of KV."""
        span = KvSpan(layers_from_message(chunk.layers), chunk.first_position, chunk.last_position)
        piece = KvPiece(chunk.session, span, chunk.keys, chunk.values)
        if not chunk.compression:
            return piece
        KvCompression(chunk.compression)
        return await asyncio.to_thread(expand_piece, self._compute.model, piece)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
