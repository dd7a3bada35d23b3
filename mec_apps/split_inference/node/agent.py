"""The edge node process: compute thread, gRPC server with the data plane, membership, registration, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from mec_apps.sdk import MecApplication
from mec_apps.split_inference.content.sources import SourceDirectory
from mec_apps.split_inference.frames import MAX_MESSAGE_BYTES, MAX_ROWS, gateway_of
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.machine_load import LoadMeter
from mec_apps.split_inference.member_identity import MemberIdentity, take_identity
from mec_apps.split_inference.membership import Membership
from mec_apps.split_inference.node.artefact_check import ArtefactError
from mec_apps.split_inference.node.compute import ComputeThread
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.node.hosted_model import open_hosted_model
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.saved_profile import find_profile, profile_key
from mec_apps.split_inference.node.service import EdgeNodeService
from mec_apps.split_inference.node.settings import NodeSettings
from mec_apps.split_inference.peer_link import DATA_PLANE_SERVICE
from mec_platform.background import BackgroundTasks
from mec_platform.content_store.grpc_service import CONTENT_STORE_SERVICE, ContentStoreService
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.cost_profile import CostProfile
from mec_platform.domain.failures import Failure
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.loop_metrics import LoopMetrics
from mec_platform.rpc.convert import hardware_to_message, profile_to_message, shape_to_message
from mec_platform.rpc.endpoints import AddressError, Channels, is_loopback, make_server, start_server
from mec_platform.rpc.v1 import content_store_pb2_grpc, control_plane_pb2, edge_node_pb2_grpc, types_pb2

SERVICE_NAME = "edge-node"
EDGE_NODE_SERVICE = "mec_platform.rpc.v1.EdgeNode"
PROFILE_AGE_STEP_S = 60.0
"""A profile's age is told in minutes: a report that says nothing new shall not look like one that does."""

_log = logging.getLogger(__name__)


class NodeAgent:
    """`start`, then `wait_failed` or whatever ends the process, then `stop`."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._incarnation = secrets.token_hex(8)
        self._held = contextlib.ExitStack()
        self._tasks = BackgroundTasks()
        self._identity: MemberIdentity | None = None
        self.address = ""
        self.metrics_url = ""

    async def start(self) -> None:
        """Raises AddressError, JoinError, PackageError, ArtefactError or the SDK's errors; nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        reached_at = settings.advertise.rpartition(":")[0] or settings.host
        self._identity = take_identity(
            settings.name,
            reached_at if is_loopback(settings.host) else settings.host,
            settings.allow_remote,
            settings.identity,
            settings.platform_grpc,
        )
        identity = None if self._identity is None else self._identity.grpc
        store = ContentStore(settings.store_dir)
        for folder in (settings.package_dir, settings.artefact_dir):
            self._held.enter_context(store.hold_folder(folder))
        hardware = HardwareTarget.detect()
        shapers = LinkShapers()
        shapers.emulate(dict(settings.emulated_links))
        self._channels = Channels(identity)
        hosted = open_hosted_model(
            settings,
            read_machine(settings.name, settings.target, hardware),
            SourceDirectory(settings.platform_grpc, settings.name, self._channels),
            store,
        )
        widths = [hosted.row_bytes(block) for block in range(hosted.shape.blocks)]
        self._data_plane = DataPlane(
            settings.name,
            shapers,
            lambda frame: self._compute.submit(frame),
            self._end_sessions_of,
            identity,
            min(MAX_ROWS * max(widths), MAX_MESSAGE_BYTES),
            self._on_link_lost,
        )
        self._compute = ComputeThread(
            hosted.load,
            blocks=hosted.shape.blocks,
            context=hosted.context,
            hidden_bytes_per_row=hosted.shape.hidden_bytes_per_row,
            vocabulary=hosted.vocabulary,
            deliver=self._data_plane.deliver,
            profile=self._find_profile(store),
            row_bytes=hosted.row_bytes,
        )
        self._compute.cpu_share = settings.emulated_cpu_share
        try:
            await self._compute.start()
        except ValueError as error:
            raise ArtefactError(
                f"the kernels cannot keep these limits: {error}; see --kv-tokens and --threads"
            ) from error
        except MemoryError as error:
            raise ArtefactError(f"no room for the model: {error}; see --kv-tokens") from error
        self._shape = hosted.shape
        self._weights = hosted.weights
        self._load = LoadMeter()
        self._busy = (time.monotonic(), 0.0)
        self._hardware = replace(hardware, compile_target=self._compute.model.target, threads=settings.threads)
        self._service = EdgeNodeService(
            settings,
            hosted,
            self._hardware,
            self._compute,
            self._data_plane,
            shapers,
            self._channels,
            hosted.weights,
        )
        self._server = make_server(identity=identity)
        edge_node_pb2_grpc.add_EdgeNodeServicer_to_server(self._service, self._server)
        self._server.add_generic_rpc_handlers((self._data_plane.handler(),))
        content_store_pb2_grpc.add_ContentStoreServicer_to_server(ContentStoreService(store), self._server)
        services = [EDGE_NODE_SERVICE, DATA_PLANE_SERVICE, CONTENT_STORE_SERVICE]
        credentials = None if identity is None else identity.server_credentials()
        listening = await start_server(self._server, settings.host, settings.port, services, credentials)
        self.address = settings.advertise or listening
        self._service.address = self.address
        self._serve_metrics()
        if self._identity is not None:
            self._identity.start(self._renew_metrics)
        self._membership = Membership(
            settings.name,
            settings.platform_grpc,
            self._build_report,
            self._data_plane.links.measure,
            self._on_reply,
            self._following,
            identity,
        )
        await self._membership.join(settings.platform_wait_s)
        self._application = MecApplication(
            settings.platform_url,
            name=settings.name,
            credentials=settings.access.credentials,
            ca=settings.access.ca,
            certificate=settings.access.certificate,
        )
        await self._application.__aenter__()
        await self._application.offer_service(
            SERVICE_NAME, f"grpc://{self.address}", version="v1", category="edge-node", liveness_s=10
        )

    def reload(self) -> None:
        """Takes up a renewed certificate, for SIGHUP."""
        if self._identity is not None:
            self._identity.reload()

    async def wait_failed(self) -> str:
        """Returns the reason when the platform no longer takes this node."""
        return await asyncio.shield(self._membership.expelled)

    async def stop(self) -> None:
        """Signs off and closes everything; parts that never started are left alone."""
        await self._tasks.stop()
        if hasattr(self, "_application"):
            await self._application.__aexit__(None, None, None)
        if hasattr(self, "_membership"):
            await self._membership.leave()
        if hasattr(self, "_server"):
            await self._server.stop(grace=1)
        if hasattr(self, "_data_plane"):
            await self._data_plane.stop()
            await self._channels.close()
        if hasattr(self, "_compute"):
            self._compute.stop()
        if self._identity is not None:
            await self._identity.stop()
        if hasattr(self, "_metrics_server"):
            self._metrics_server.shutdown()
            self._metrics_server.server_close()
        self._held.close()

    def _find_profile(self, store: ContentStore) -> CostProfile | None:
        """What `mec profile --save` found of this artefact on this machine."""
        settings = self._settings
        key = profile_key(settings.artefact_dir, read_machine(settings.name), settings.threads)
        self._started_s = time.monotonic()
        return find_profile(store, key, time.time())

    def _build_report(self) -> control_plane_pb2.MemberReport:
        settings, timings = self._settings, self._compute.timings
        self._compute.measure_if_idle()
        local = self._weights.local_blocks()
        return control_plane_pb2.MemberReport(
            name=settings.name,
            role=control_plane_pb2.MEMBER_ROLE_NODE,
            address=self.address,
            incarnation=self._incarnation,
            trusted=settings.trusted,
            hardware=hardware_to_message(self._hardware),
            model=shape_to_message(self._shape),
            memory_bytes=settings.memory_bytes,
            block_time_us=timings.block_s * 1e6,
            head_time_us=timings.head_s * 1e6,
            prefill_block_time_us_per_row=timings.prefill_block_s_per_row * 1e6,
            sessions=len(self._compute.kv.sessions),
            emulated=settings.emulate,
            profile=self._profile_message(),
            profile_ratio=timings.profile_ratio,
            site=settings.site,
            machine=settings.machine,
            group=settings.group,
            ue=settings.ue,
            local_blocks=None if local is None else control_plane_pb2.BlockSet(blocks=sorted(local)),
            weights_bytes_per_s=self._weights.bytes_per_s,
            load=self._read_load(),
            committed_epoch=self._compute.stages.committed_epoch,
            stage_epochs=sorted({held.epoch for held in self._compute.stages.held}),
        )

    def _read_load(self) -> control_plane_pb2.MachineLoad:
        compute, load = self._compute, self._load.read()
        now_s, (before_s, busy_s) = time.monotonic(), self._busy
        self._busy = (now_s, compute.busy_s)
        if now_s > before_s:
            # A long batch counts when it has ended, perhaps for more than the time since the last report.
            load.busy_share = min((compute.busy_s - busy_s) / (now_s - before_s), 1.0)
        layers = {layer for stage in compute.stages.stages for layer in range(stage.layers.start, stage.layers.stop)}
        page_bytes = 2 * compute.model.page_bytes * len(layers)  # keys and values, in every layer that is held
        load.queued_frames = compute.queued
        load.kv_used_bytes, load.kv_total_bytes = compute.kv.used * page_bytes, compute.kv.total * page_bytes
        return load

    def _profile_message(self) -> types_pb2.CostProfile | None:
        profile = self._compute.timings.profile
        if profile is None:
            return None
        age_s = profile.age_s + time.monotonic() - self._started_s
        return profile_to_message(replace(profile, age_s=age_s // PROFILE_AGE_STEP_S * PROFILE_AGE_STEP_S))

    async def _on_reply(self, reply: control_plane_pb2.ReportReply, nodes: frozenset[str]) -> None:
        """Follows the committed epoch where its announcement was missed, and lets go of links to nodes that left."""
        epoch = reply.plan_epoch
        if epoch > self._compute.stages.committed_epoch:
            _log.info("epoch %d was committed without word to this node", epoch)
            await self._service.commit(epoch)
        await self._service.forget_before(reply.living_epoch)
        await self._data_plane.links.keep_only(nodes | self._following())

    def _following(self) -> frozenset[str]:
        """Nodes that stages of this one send to."""
        return frozenset(stage.next_node for stage in self._compute.stages.stages if stage.next_node is not None)

    def _on_link_lost(self, node: str, failure: Failure) -> None:
        """Tells the platform of a next stage that cannot be reached from here: everybody else may be able to, gateways included,
        and then nobody else would."""
        if node in self._following():
            self._tasks.start(f"report failure of {node}", self._membership.report_failure(node, failure))

    async def _end_sessions_of(self, gateway: int) -> None:
        compute = self._compute

        def end() -> None:
            for session in compute.kv.sessions:
                if gateway_of(session) == gateway:
                    compute.kv.end(session)

        await compute.call(end)

    def _serve_metrics(self) -> None:
        registry = CollectorRegistry()
        registry.register(_NodeCollector(self._compute))
        registry.register(LoopMetrics(asyncio.get_running_loop()))
        try:
            self._metrics_server, _ = prometheus_client.start_http_server(
                self._settings.metrics_port, self._settings.host, registry, **self._metrics_tls()
            )
        except OSError as error:
            raise AddressError(
                f"cannot listen on {self._settings.host}:{self._settings.metrics_port} for metrics: {error.strerror}; "
                "choose another with --metrics-port"
            ) from error
        scheme = "http" if self._identity is None else "https"
        self.metrics_url = f"{scheme}://{self._settings.host}:{self._metrics_server.server_port}/metrics"

    def _metrics_tls(self) -> dict[str, Any]:
        """Who reads the figures shows a certificate too."""
        if self._identity is None:
            return {}
        files = self._identity.files
        return {
            "certfile": str(files.certificate),
            "keyfile": str(files.key),
            "client_cafile": str(files.authority),
            "client_auth_required": True,
        }

    def _renew_metrics(self) -> None:
        assert self._identity is not None
        listening = self._metrics_server.socket
        if isinstance(listening, ssl.SSLSocket):
            listening.context.load_cert_chain(self._identity.files.certificate, self._identity.files.key)


class _NodeCollector(Collector):
    """What /metrics of a node shows, read from the compute thread's counters when asked."""

    def __init__(self, compute: ComputeThread) -> None:
        self._compute = compute

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        compute = self._compute
        yield CounterMetricFamily("mec_node_frames", "Frames run", value=compute.frames_run)
        yield CounterMetricFamily("mec_node_rows", "Rows (token positions) run", value=compute.rows_run)
        gauges = {
            "mec_node_block_seconds": ("One row through one block, recent median", compute.timings.block_s),
            "mec_node_head_seconds": ("Head and sampling of one row, recent median", compute.timings.head_s),
            "mec_node_sessions": ("Sessions that hold KV pages", len(compute.kv.sessions)),
            "mec_node_kv_pages_used": ("KV pages that sessions hold", compute.kv.used),
            "mec_node_kv_pages": ("KV pages that sessions can hold", compute.kv.total),
            "mec_node_committed_epoch": ("Committed plan epoch", compute.stages.committed_epoch),
            "mec_node_layers": ("Layers of the stages held", sum(len(s.layers) for s in compute.stages.stages)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
