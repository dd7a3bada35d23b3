"""Composition root of the platform: event log, registry, MEC APIs, control loop and its gRPC services, in one process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import grpc.aio
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from yarl import URL

from mec_platform.app_seeds import plant_seeds
from mec_platform.content_store.grpc_service import ContentStoreService, Source, Sources
from mec_platform.content_store.store import ContentStore
from mec_platform.control_plane.broadcast.service import ReconfigurationBroadcastService
from mec_platform.control_plane.deployments import Deployments
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.monitoring.metrics import CapacityMetrics
from mec_platform.control_plane.monitoring.service import CapacityProfilerService
from mec_platform.control_plane.orchestrator.service import AdaptiveOrchestratorService
from mec_platform.control_plane.policy_file import Policies, read_policies
from mec_platform.control_plane.policy_reload import PolicyReload
from mec_platform.control_plane.split_revision.service import SplitRevisionService
from mec_platform.control_plane.tick import ControlSettings
from mec_platform.credential_files import default_path, ensure_operator
from mec_platform.data_plane.choice import make_data_planes
from mec_platform.domain.locality import Area, LocalityTree, LocalityType
from mec_platform.domain.quotas import Quotas
from mec_platform.enablement_api.app_support.timing import HostTime
from mec_platform.enablement_api.life_cycle.instantiation import Instantiation
from mec_platform.enablement_api.metrics import CallMetrics
from mec_platform.enablement_api.notifications.targets import DEVELOPMENT_NETWORKS, read_allowances
from mec_platform.enablement_api.routes import make_enablement_app, platform_transports
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.enablement_api.server import EnablementRunner
from mec_platform.exposure import decide_exposure
from mec_platform.host_time.clock_status import read_kernel_clock
from mec_platform.host_time.time_sources import PtpMaster, TimeSources, find_ntp_servers, rank_servers
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.identity.member_authority import AuthorityFiles
from mec_platform.identity.renewal import MEMBER_CERTIFICATES_SERVICE
from mec_platform.loop_metrics import LoopMetrics
from mec_platform.planes import SecurePlanes
from mec_platform.profiler_radio import ProfilerRadio, RadioSource
from mec_platform.radio_access import RadioAccess, RadioSettings
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.federation.federation import Federation
from mec_platform.registry.federation.peers import FederationSettings, PeerAccess
from mec_platform.registry.grpc.service import add_service_registry
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.store import open_store
from mec_platform.rpc.endpoints import AddressError, make_server, start_server
from mec_platform.rpc.v1 import content_store_pb2_grpc, control_plane_pb2_grpc
from mec_platform.rule_enforcement import enforce_rules
from mec_platform.tls import CertificateReload, GrpcCertificates, TlsFiles, make_server_context

_SERVICES = tuple(
    f"mec_platform.rpc.v1.{name}"
    for name in (
        "ServiceRegistry",
        "Federation",
        "CapacityProfiler",
        "AdaptiveOrchestrator",
        "SplitRevision",
        "ReconfigurationBroadcast",
        "ContentStore",
        "RadioAccess",
    )
)
LARGEST_REGISTRY_REQUEST_BYTES = 4 << 20
"""What strangers may send at once; 10,000 heartbeats with KPIs have half of it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """Validated by the command line. `state` is the SQLite file of the event log, `:memory:`, or where it is in etcd.

    gRPC for nodes and gateways on `grpc_port` speaks mutual TLS where other machines reach it, or `member_ca` is there, unless
    `allow_remote` says that the network is trusted. `member_ca` signs the certificates of members; without it an authority is
    made in the folder STATE.certs, or one that ends with the process where the state is in memory.
    On `registry_port` gRPC `ServiceRegistry` and `Federation` alone are served over TLS, with the certificates of `tls`, wherever
    REST is; it needs `tls`. On `grpc_port` they are served beside what the platform's own nodes use.

    `localities` says where the host called `host_name` and all others are; None: this host is all there is. `callback_allow`
    names internal networks and hosts that notifications may be posted to (see `notifications.targets`). `store_dir` is
    the content store that is served (the user's where None); `prefer_peers` has nodes fetch from each other first, and from
    here what none of them has. `ntp_servers` and `ptp_masters` are told to applications, best first, before the NTP servers
    that this machine is configured with. `data_planes` are chosen as in `data_plane.choice`; without any, rules are kept and
    not enforced. `authenticate` None: as `exposure` finds right for `host`. `public_uri` is the address
    under which clients reach the platform where that is another one than it listens on. `operator_file` is where the operator's
    credentials lie (see `credential_files`); a place beside the state where None. `seeds` names application instances that are
    made at the start where they are not there (see `app_seeds`). `peers` are the hosts to share services with, by their names,
    followed as `federation` says. `policies` is a policy file, read again when it changes; what it leaves out is as `control`.
    `radio` has traces to replay as radio information.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8081
    grpc_port: int = 50051
    registry_port: int | None = None
    state: Path | str | EtcdSettings = ":memory:"
    host_name: str = "mec-host"
    localities: LocalityTree | None = None
    manual: bool = False
    allow_remote: bool = False
    callback_allow: tuple[str, ...] = ()
    authenticate: bool | None = None
    security: SecuritySettings = field(default_factory=SecuritySettings)
    quotas: Quotas = field(default_factory=Quotas)
    tls: TlsFiles | None = None
    member_ca: AuthorityFiles | None = None
    public_uri: str = ""
    operator_file: Path | None = None
    seeds: Path | None = None
    store_dir: Path | None = None
    prefer_peers: bool = False
    ntp_servers: tuple[str, ...] = ()
    ptp_masters: tuple[str, ...] = ()
    data_planes: tuple[str, ...] = ()
    control: ControlSettings = field(default_factory=ControlSettings)
    policies: Path | None = None
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    peers: Mapping[str, PeerAccess] = field(default_factory=dict)
    federation: FederationSettings = field(default_factory=FederationSettings)
    radio: RadioSettings = field(default_factory=RadioSettings)


class Platform:
    """`start`, then whatever ends the process, then `stop`. `extend` may add routes to the REST application."""

    def __init__(
        self, settings: PlatformSettings, extend: Callable[[web.Application, Platform], None] | None = None
    ) -> None:
        self._settings = settings
        self._extend = extend
        self._servers: list[grpc.aio.Server] = []
        self._grpc_certificates: GrpcCertificates | None = None
        self._planes: SecurePlanes | None = None
        self._listens_for_hangup = False
        self.rest_address = ""
        self.rest_uri = ""
        self.operator_file: Path | None = None
        """Where the operator's credentials are, where there was none before this start."""
        self.grpc_address = ""
        self.registry_address = ""
        """Where ServiceRegistry is served over TLS; empty where it is not."""

    @property
    def identity(self) -> GrpcIdentity | None:
        """Who the platform is on its gRPC port; None where that speaks in the clear."""
        return None if self._planes is None else self._planes.identity

    async def start(self) -> None:
        """Raises AddressError, DataPlaneError, LocalityError, SeedError, TraceError or LogUnavailable; nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        self._exposure = decide_exposure(
            settings.host,
            authenticate=settings.authenticate,
            tls=settings.tls is not None,
            behind_proxy=settings.security.behind_proxy,
            allow_remote=settings.allow_remote,
            member_authority=settings.member_ca is not None,
        )
        self._planes = self._make_planes() if self._exposure.mutual_tls else None
        self._tls = None if settings.tls is None else make_server_context(settings.tls)
        policies = Policies(settings.control)
        if settings.policies is not None:
            policies = read_policies(settings.policies, settings.control)
        planes = make_data_planes(settings.data_planes)
        host = settings.host_name
        self._localities = settings.localities or LocalityTree.grow([Area(LocalityType.MEC_HOST, host)])
        self._store = await open_store(settings.state, f"{socket.gethostname()}:{settings.grpc_port}")
        leadership = self._store.leadership
        self._host = HostRegistry(
            Registry(self._store.log, leadership=leadership),
            locality=self._localities.locality_of(mec_host=host),
            transports=platform_transports(self._uri(), authenticate=self._exposure.authenticate),
            quotas=settings.quotas,
            exchange=self._store.exchange,
        )
        self._radio = RadioAccess(self._host, settings.radio, self._profile_radio)
        self._reconciler = enforce_rules(self._host.registry, planes)
        await leadership.start()
        await self._host.start()
        if self._exposure.authenticate and leadership.is_leader:  # Of replicas that start together one makes the first.
            await self._ensure_operator()
        if settings.seeds is not None:
            instantiation = Instantiation(self._host.applications, self._host.credentials, self._localities)
            await plant_seeds(settings.seeds, self._host, instantiation)
        self._reconciler.start()
        self._deployments = Deployments(
            Journal(self._store.log),
            policies,
            settings.monitoring,
            manual=settings.manual,
            leadership=leadership,
            identity=self.identity,
        )
        await self._deployments.start()
        self._profiler_radio = ProfilerRadio(
            self._host.credentials, f"{socket.gethostname()}:{settings.grpc_port}", self._deployments.take_radio
        )
        if settings.policies is not None:
            self._policy_reload = PolicyReload(settings.policies, settings.control, self._deployments.change_policies)
            self._policy_reload.start()
        self._collectors = CollectorRegistry()
        security = replace(settings.security, authenticate=self._exposure.authenticate, issuer=self._uri())
        self._protection = Protection(self._host.registry, self._host.credentials, security)
        self._collectors.register(CapacityMetrics(self._deployments))
        self._collectors.register(LoopMetrics(asyncio.get_running_loop()))
        self._calls = CallMetrics(self._collectors)
        self._federation = Federation(self._host, settings.peers, settings.federation, Random())
        await self._federation.start()
        await self._serve_grpc()
        await self._serve_registry()
        await self._serve_rest()
        reached_at = self._uri() if settings.rest_port else self.rest_uri
        self._radio.start(platform_transports(reached_at, authenticate=self._exposure.authenticate)[0])

    async def stop(self) -> None:
        """Takes everything down in the opposite order; parts that never started are left alone."""
        if self._listens_for_hangup:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        if hasattr(self, "_radio"):
            await self._radio.stop()  # which may be about to start what comes next
        if hasattr(self, "_profiler_radio"):
            await self._profiler_radio.stop()
        if hasattr(self, "_runner"):
            await self._runner.cleanup()
        if hasattr(self, "_protection"):
            await self._protection.stop()
        if hasattr(self, "_federation"):
            await self._federation.stop()
        if self._planes is not None:
            await self._planes.stop()
        for server in self._servers:
            await server.stop(grace=0.5)
        if hasattr(self, "_policy_reload"):
            await self._policy_reload.stop()
        if hasattr(self, "_deployments"):
            await self._deployments.stop()
        if hasattr(self, "_reconciler"):
            await self._reconciler.stop()
        if hasattr(self, "_host"):
            await self._host.stop()
        if hasattr(self, "_store"):
            await self._store.leadership.stop()
            await self._store.log.close()

    async def _serve_grpc(self) -> None:
        planes = self._planes
        server = make_server(identity=self.identity)
        self._servers.append(server)
        self._add_registry(server)
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
        self._radio.add_to(server)
        content_store_pb2_grpc.add_ContentStoreServicer_to_server(
            ContentStoreService(ContentStore(self._settings.store_dir), self._find_sources), server
        )
        services, credentials = list(_SERVICES), None
        if planes is not None:
            planes.add_to(server, self._host.joining)
            planes.start()
            services, credentials = [*services, MEMBER_CERTIFICATES_SERVICE], planes.identity.server_credentials()
        self.grpc_address = await start_server(
            server, self._exposure.host, self._settings.grpc_port, services, credentials
        )

    async def _serve_registry(self) -> None:
        settings = self._settings
        if settings.registry_port is None:
            return
        if settings.tls is None:
            raise AddressError("ServiceRegistry has a port of its own for TLS only; pass --tls-cert and --tls-key")
        self._grpc_certificates = GrpcCertificates(settings.tls)
        server = make_server(LARGEST_REGISTRY_REQUEST_BYTES)
        self._servers.append(server)
        self._add_registry(server)
        self.registry_address = await start_server(
            server,
            self._exposure.host,
            settings.registry_port,
            _SERVICES[:2],
            self._grpc_certificates.credentials(),
        )

    async def _profile_radio(self) -> None:
        reached_at = self._uri() if self._settings.rest_port else self.rest_uri
        source = RadioSource(reached_at, self._exposure.authenticate, self._settings.tls)
        await self._profiler_radio.start(source)

    def _add_registry(self, server: grpc.aio.Server) -> None:
        add_service_registry(server, self._host, self._protection.grpc_gate, self._calls.note)
        self._federation.sharing.add_to(server, self._protection.federation_gate, self._calls.note)

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
        collectors = self._collectors
        deployments = self._deployments
        epoch = Gauge("mec_plan_epoch", "Highest epoch of a committed split plan", registry=collectors)
        epoch.set_function(lambda: max((plan.epoch for each in deployments.loops for plan in each.plans), default=0))
        nodes = Gauge("mec_live_nodes", "Edge nodes that report", registry=collectors)
        nodes.set_function(lambda: sum(len(each.observe().nodes) for each in deployments.loops))
        settings = self._settings
        await self._protection.start()
        # Whoever develops on one machine has callbacks there; a platform for others must not be a way into its network.
        exposure = self._exposure
        networks = () if exposure.authenticate or exposure.reachable else DEVELOPMENT_NETWORKS
        app = make_enablement_app(
            self._host,
            collectors=collectors,
            protection=self._protection,
            public_uri=settings.public_uri,
            callbacks=read_allowances(settings.callback_allow, networks),
            host_time=await self._find_time(),
            data_plane=lambda: self._reconciler.statuses,
            localities=self._localities,
            peers=lambda: self._federation.statuses,
            radio=self._radio.network,
            authority=None if self._planes is None else self._planes.authority,
        )
        if self._extend is not None:
            self._extend(app, self)
        self._runner = EnablementRunner(app, shutdown_timeout=2)
        await self._runner.setup()
        host, port = self._exposure.host, settings.rest_port
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        except OSError as error:
            raise AddressError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --rest-port"
            ) from error
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.rest_address = f"{bound_host}:{bound_port}"
        self.rest_uri = f"{self._scheme}://{self.rest_address}"
        if self._tls is not None and settings.tls is not None:
            self._reload = CertificateReload(self._tls, settings.tls, self._grpc_certificates)
        if hasattr(self, "_reload") or hasattr(self, "_policy_reload"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
            self._listens_for_hangup = True

    def _hang_up(self) -> None:
        """SIGHUP: files that may be renewed while the platform runs are read again."""
        if hasattr(self, "_reload"):
            self._reload.reload()
        if hasattr(self, "_policy_reload"):
            self._policy_reload.reload()

    @property
    def _scheme(self) -> str:
        return "http" if self._settings.tls is None else "https"

    def _uri(self) -> str:
        """Under what clients reach the REST APIs, as far as that is known before listening."""
        settings = self._settings
        everywhere = settings.host in ("0.0.0.0", "::")
        host = settings.host_name if everywhere else settings.host
        return settings.public_uri or f"{self._scheme}://{host}:{settings.rest_port}"

    def _make_planes(self) -> SecurePlanes:
        """Raises AddressError where replicas would have an authority each, and what `SecurePlanes` raises."""
        settings = self._settings
        if isinstance(settings.state, EtcdSettings) and settings.member_ca is None:
            raise AddressError(
                "replicas over one etcd share the authority of their members: make one with `mec certs init`, and pass "
                "--member-ca-cert and --member-ca-key to each"
            )
        beside = Path(f"{settings.state}.certs") if isinstance(settings.state, Path) else None
        hosts = {settings.host, URL(settings.public_uri).host or ""} - {"", "0.0.0.0", "::"}
        return SecurePlanes(settings.member_ca, beside, settings.host_name, sorted(hosts))

    async def _ensure_operator(self) -> None:
        state = self._settings.state
        path = self._settings.operator_file or default_path(":memory:" if isinstance(state, EtcdSettings) else state)
        if await ensure_operator(self._host.credentials, path):
            self.operator_file = path
