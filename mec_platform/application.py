"""Composition root of the platform: event log, registry, MEC APIs, control loop and its gRPC services, in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from mec_platform.content_store.grpc_service import ContentStoreService, Source, Sources
from mec_platform.content_store.store import ContentStore
from mec_platform.control_plane.broadcast.service import ReconfigurationBroadcastService
from mec_platform.control_plane.deployments import Deployments
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.monitoring.service import CapacityProfilerService
from mec_platform.control_plane.orchestrator.service import AdaptiveOrchestratorService
from mec_platform.control_plane.split_revision.service import SplitRevisionService
from mec_platform.control_plane.tick import ControlSettings
from mec_platform.domain.locality import Area, LocalityTree, LocalityType
from mec_platform.enablement_api.app_support.timing import HostTime
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, read_allowances
from mec_platform.enablement_api.routes import make_enablement_app, platform_transports
from mec_platform.enablement_api.server import EnablementRunner
from mec_platform.host_time.clock_status import read_kernel_clock
from mec_platform.host_time.time_sources import PtpMaster, TimeSources, find_ntp_servers, rank_servers
from mec_platform.registry.grpc_service import ServiceRegistryService
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.rpc.endpoints import AddressError, make_server, require_loopback, start_server
from mec_platform.rpc.v1 import content_store_pb2_grpc, control_plane_pb2_grpc, registry_pb2_grpc

_SERVICES = tuple(
    f"mec_platform.rpc.v1.{name}"
    for name in (
        "ServiceRegistry",
        "CapacityProfiler",
        "AdaptiveOrchestrator",
        "SplitRevision",
        "ReconfigurationBroadcast",
        "ContentStore",
    )
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """Validated by the command line. `state` is the SQLite file of the event log, or `:memory:`.

    `localities` says where the host called `host_name` and all others are; None: this host is all there is. `callback_allow`
    names internal networks and hosts that notifications may be posted to (see `notifications.targets`). `store_dir` is
    the content store that is served (the user's where None); `prefer_peers` has nodes fetch from each other first, and from
    here what none of them has. `ntp_servers` and `ptp_masters` are told to applications, best first, before the NTP servers
    that this machine is configured with.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8081
    grpc_port: int = 50051
    state: Path | str = ":memory:"
    host_name: str = "mec-host"
    localities: LocalityTree | None = None
    manual: bool = False
    allow_remote: bool = False
    callback_allow: tuple[str, ...] = ()
    store_dir: Path | None = None
    prefer_peers: bool = False
    ntp_servers: tuple[str, ...] = ()
    ptp_masters: tuple[str, ...] = ()
    control: ControlSettings = field(default_factory=ControlSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)


class Platform:
    """`start`, then whatever ends the process, then `stop`. `extend` may add routes to the REST application."""

    def __init__(
        self, settings: PlatformSettings, extend: Callable[[web.Application, str], None] | None = None
    ) -> None:
        self._settings = settings
        self._extend = extend
        self.rest_address = ""
        self.grpc_address = ""

    async def start(self) -> None:
        """Raises AddressError, LocalityError or LogUnavailable with what to do; nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        require_loopback(settings.host, settings.allow_remote)
        host = settings.host_name
        self._localities = settings.localities or LocalityTree.grow([Area(LocalityType.MEC_HOST, host)])
        self._log = await SqliteEventLog.open(settings.state)
        self._host = HostRegistry(
            Registry(self._log),
            locality=self._localities.locality_of(mec_host=host),
            transports=platform_transports(f"http://{settings.host}:{settings.rest_port}"),
        )
        await self._host.start()
        self._deployments = Deployments(
            Journal(self._log), settings.control, settings.monitoring, manual=settings.manual
        )
        await self._deployments.start()
        await self._serve_grpc()
        await self._serve_rest()

    async def stop(self) -> None:
        """Takes everything down in the opposite order; parts that never started are left alone."""
        if hasattr(self, "_runner"):
            await self._runner.cleanup()
        if hasattr(self, "_server"):
            await self._server.stop(grace=0.5)
        if hasattr(self, "_deployments"):
            await self._deployments.stop()
        if hasattr(self, "_host"):
            await self._host.stop()
        if hasattr(self, "_log"):
            await self._log.close()

    async def _serve_grpc(self) -> None:
        server = self._server = make_server()
        registry_pb2_grpc.add_ServiceRegistryServicer_to_server(ServiceRegistryService(self._host.services), server)
        control_plane_pb2_grpc.add_CapacityProfilerServicer_to_server(
            CapacityProfilerService(self._deployments), server
        )
        control_plane_pb2_grpc.add_AdaptiveOrchestratorServicer_to_server(
            AdaptiveOrchestratorService(self._deployments), server
        )
        control_plane_pb2_grpc.add_SplitRevisionServicer_to_server(SplitRevisionService(self._deployments), server)
        control_plane_pb2_grpc.add_ReconfigurationBroadcastServicer_to_server(
            ReconfigurationBroadcastService(self._deployments), server
        )
        content_store_pb2_grpc.add_ContentStoreServicer_to_server(
            ContentStoreService(ContentStore(self._settings.store_dir), self._find_sources), server
        )
        self.grpc_address = await start_server(server, self._settings.host, self._settings.grpc_port, _SERVICES)

    def _find_sources(self) -> Sources:
        """Every live node may hold what another one needs: it serves its own store."""
        seen = [loop.observe() for loop in self._deployments.loops]
        nodes = tuple(Source(node.name, node.address) for each in seen for node in each.nodes)
        return Sources(nodes, self._settings.prefer_peers)

    async def _find_time(self) -> HostTime:
        servers = rank_servers(self._settings.ntp_servers, await asyncio.to_thread(find_ntp_servers))
        masters = tuple(map(PtpMaster, self._settings.ptp_masters))
        return HostTime(TimeSources(servers, masters), read_kernel_clock)

    async def _serve_rest(self) -> None:
        collectors = CollectorRegistry()
        deployments = self._deployments
        epoch = Gauge("mec_plan_epoch", "Highest epoch of a committed split plan", registry=collectors)
        epoch.set_function(
            lambda: max((each.plan.epoch for each in deployments.loops if each.plan is not None), default=0)
        )
        nodes = Gauge("mec_live_nodes", "Edge nodes that report", registry=collectors)
        nodes.set_function(lambda: sum(len(each.observe().nodes) for each in deployments.loops))
        # Whoever develops on one machine has callbacks there; a platform for others must not be a way into its network.
        networks = () if self._settings.allow_remote else DEVELOPMENT_NETWORKS
        app = make_enablement_app(
            self._host,
            collectors=collectors,
            callbacks=read_allowances(self._settings.callback_allow, networks),
            host_time=await self._find_time(),
        )
        if self._extend is not None:
            self._extend(app, self.grpc_address)
        self._runner = EnablementRunner(app, shutdown_timeout=2)
        await self._runner.setup()
        host, port = self._settings.host, self._settings.rest_port
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise AddressError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --rest-port"
            ) from error
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.rest_address = f"{bound_host}:{bound_port}"
