"""The gateway process: OpenAI API, gRPC `Inference`, membership and registration, put together and taken down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Gauge

from mec_apps.sdk import MecApplication, MecError
from mec_apps.sdk.session import Access
from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.gateway.chat import ChatTokenizer
from mec_apps.split_inference.gateway.encoder_deployment import EncoderDeployment
from mec_apps.split_inference.gateway.http_api import REGISTRY_KEY, make_http_app, serve_http
from mec_apps.split_inference.gateway.plan_switcher import PlanSwitcher, follow_chains
from mec_apps.split_inference.gateway.roll_call import RollCall
from mec_apps.split_inference.gateway.service import InferenceService
from mec_apps.split_inference.gateway.sessions import Sessions
from mec_apps.split_inference.gateway.stall_watch import StallWatch
from mec_apps.split_inference.gateway.standby import StandbyCopies
from mec_apps.split_inference.gateway.vision import Vision
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.machine_load import LoadMeter
from mec_apps.split_inference.member_identity import MemberFiles, MemberIdentity, take_identity
from mec_apps.split_inference.membership import Membership
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.peer_link import LinkPool
from mec_platform.background import BackgroundTasks
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.failures import Failure
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.loop_metrics import LoopMetrics
from mec_platform.rpc.convert import held_from_messages, shape_to_message
from mec_platform.rpc.endpoints import AddressError, make_server, start_server
from mec_platform.rpc.v1 import control_plane_pb2, inference_pb2_grpc
from mec_platform.tls import TlsFiles, load_certificate, make_server_context

SERVICE_NAME = "lfm-inference"
INFERENCE_SERVICE = "mec_platform.rpc.v1.Inference"
_RATE_WINDOW_S = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Validated by the command line. `context` bounds prompt plus answer of a session, in tokens.

    With an `identity` it speaks mutual TLS, and its OpenAI API HTTPS: to who shows a certificate of the same authority, or
    where `open_api` is set, to everybody. `allow_remote` as for nodes.
    """

    name: str
    package_dir: Path
    platform_url: str
    platform_grpc: str
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 0
    context: int = 2048
    max_sessions: int = 32
    allow_remote: bool = False
    identity: MemberFiles | None = None
    open_api: bool = False
    access: Access = field(default_factory=Access)
    encoder_dir: Path | None = None
    platform_wait_s: float = 15.0
    store_dir: Path | None = None
    site: str = ""
    ue: str = ""


class GatewayAgent:
    """`start`, then `wait_failed` or whatever ends the process, then `stop`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._number = secrets.randbits(31) + 1
        self._incarnation = secrets.token_hex(8)
        self._held = contextlib.ExitStack()
        self._tasks = BackgroundTasks()
        self._identity: MemberIdentity | None = None
        self._tls: ssl.SSLContext | None = None
        self._following: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._told: Mapping[str, int] = {"planEpoch": 0, "chains": 0}
        self.http_address = ""
        self.grpc_address = ""

    async def start(self) -> None:
        """Raises AddressError, JoinError, PackageError or the SDK's errors, each with what to do; nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        identity = self._take_identity()
        self._held.enter_context(ContentStore(settings.store_dir).hold_folder(settings.package_dir))
        self._package = package = ModelPackage.open(settings.package_dir)
        spec = package.spec
        names = {token: name for name, token in package.special_tokens.items()}
        tokenizer = ChatTokenizer(
            package.tokenizer_path,
            package.chat_template,
            spec.stop_ids,
            bos_token="" if spec.bos_id is None else names.get(spec.bos_id, ""),
            eos_token="" if spec.eos_id is None else names.get(spec.eos_id, ""),
        )
        context = min(settings.context, package.spec.context)
        self.sessions = Sessions(self._number, context, settings.max_sessions, self._on_node_failure)
        hello = Frame(FrameKind.HELLO, session=self._number << 32, payload=settings.name.encode())
        self._links = LinkPool(hello, LinkShapers(), self.sessions.on_frame, self.sessions.on_link_lost, identity)
        self._switcher = PlanSwitcher(self.sessions, self._links)
        self._stall_watch = StallWatch(self.sessions, identity)
        self._standby_copies = StandbyCopies(self.sessions)
        self._roll_call = RollCall(self.sessions, self._links)
        vision, switchers = None, {}
        if settings.encoder_dir is not None:
            self._held.enter_context(ContentStore(settings.store_dir).hold_folder(settings.encoder_dir))
            self._encoder = EncoderDeployment(
                settings.name,
                self._incarnation,
                settings.encoder_dir,
                settings.platform_grpc,
                lambda: self.grpc_address,
                self._on_node_failure,
                identity,
            )
            vision = Vision(self._encoder.package, self._encoder.encodings, package.dims.hidden)
            switchers[self._encoder.package.shape.name] = self._encoder.switcher
            if self._encoder.package.note:
                _log.warning("encoder %s: %s", self._encoder.package.shape.name, self._encoder.package.note)
        self._server = make_server(identity=identity)
        inference_pb2_grpc.add_InferenceServicer_to_server(
            InferenceService(self.sessions, tokenizer, self._switcher, switchers), self._server
        )
        credentials = None if identity is None else identity.server_credentials()
        self.grpc_address = await start_server(
            self._server, settings.host, settings.grpc_port, [INFERENCE_SERVICE], credentials
        )
        await self._serve_http(tokenizer, vision)
        self._rate = (time.monotonic(), 0, 0.0)
        self._load = LoadMeter()
        self._reported_s = 0.0
        self._membership = Membership(
            settings.name,
            settings.platform_grpc,
            self._build_report,
            self._links.measure,
            self._on_reply,
            lambda: self.sessions.nodes_in_use,
            identity,
        )
        await self._membership.join(settings.platform_wait_s)
        self._stall_watch.start()
        self._standby_copies.start()
        self._roll_call.start()
        if settings.encoder_dir is not None:
            await self._encoder.join(settings.platform_wait_s)
        self._application = MecApplication(
            settings.platform_url,
            name=settings.name,
            credentials=settings.access.credentials,
            ca=settings.access.ca,
            certificate=settings.access.certificate,
        )
        await self._application.__aenter__()
        self._offered = await self._application.offer_service(
            SERVICE_NAME, self.openai_url, version="v1", category="inference", liveness_s=10
        )

    @property
    def openai_url(self) -> str:
        """Base URL of the OpenAI API."""
        return f"{'http' if self._tls is None else 'https'}://{self.http_address}/v1"

    def reload(self) -> None:
        """Takes up a renewed certificate, for SIGHUP."""
        if self._identity is not None:
            self._identity.reload()

    async def wait_failed(self) -> str:
        """Returns the reason when the platform no longer takes this gateway."""
        return await asyncio.shield(self._membership.expelled)

    async def stop(self) -> None:
        """Ends requests, signs off and closes everything; parts that never started are left alone."""
        await self._tasks.stop()
        if hasattr(self, "_application"):
            await self._application.__aexit__(None, None, None)
        if hasattr(self, "_runner"):
            await self._runner.cleanup()
        if hasattr(self, "_encoder"):
            await self._encoder.stop()
        if hasattr(self, "_membership"):
            await self._membership.leave()
        if hasattr(self, "_server"):
            await self._server.stop(grace=1)
        if self._identity is not None:
            await self._identity.stop()
        if hasattr(self, "_stall_watch"):
            await self._stall_watch.stop()
        if hasattr(self, "_standby_copies"):
            await self._standby_copies.stop()
        if hasattr(self, "_roll_call"):
            await self._roll_call.stop()
        if hasattr(self, "_links"):
            await self._links.close()
            await self._switcher.close()
        self._held.close()

    def _take_identity(self) -> GrpcIdentity | None:
        settings = self._settings
        self._identity = take_identity(
            settings.name, settings.host, settings.allow_remote, settings.identity, settings.platform_grpc
        )
        if self._identity is None:
            return None
        files = self._identity.files
        client_ca = None if settings.open_api else files.authority
        tls = TlsFiles(certificate=files.certificate, key=files.key, client_ca=client_ca)
        context = self._tls = make_server_context(tls)
        self._identity.start(lambda: load_certificate(context, tls))
        return self._identity.grpc

    async def _serve_http(self, tokenizer: ChatTokenizer, vision: Vision | None) -> None:
        settings = self._settings
        app = make_http_app(self.sessions, tokenizer, self._package.shape.name, int(time.time()), vision=vision)
        epoch = Gauge("mec_gateway_plan_epoch", "Epoch of the plan that sessions run on", registry=app[REGISTRY_KEY])
        epoch.set_function(lambda: self._switcher.epoch)
        app[REGISTRY_KEY].register(LoopMetrics(asyncio.get_running_loop()))
        try:
            self._runner = await serve_http(app, settings.host, settings.http_port, self._tls)
        except OSError as error:
            raise AddressError(
                f"cannot listen on {settings.host}:{settings.http_port}: {error.strerror}; choose another with --port"
            ) from error
        host, port = self._runner.addresses[0][:2]
        self.http_address = f"{host}:{port}"

    def _build_report(self) -> control_plane_pb2.MemberReport:
        self._reported_s = asyncio.get_running_loop().time()
        now, (since, tokens, rate) = time.monotonic(), self._rate
        if now - since >= _RATE_WINDOW_S:
            rate = (self.sessions.tokens_made - tokens) / (now - since)
            self._rate = (now, self.sessions.tokens_made, rate)
        return control_plane_pb2.MemberReport(
            name=self._settings.name,
            role=control_plane_pb2.MEMBER_ROLE_GATEWAY,
            address=self.grpc_address,
            incarnation=self._incarnation,
            trusted=True,
            model=shape_to_message(self._package.shape),
            sessions=len(self.sessions.live),
            tokens_per_s=rate,
            context_positions=sum(session.kv_positions for session in self.sessions.live.values()),
            site=self._settings.site,
            machine=socket.gethostname(),
            ue=self._settings.ue,
            load=self._load.read(),
            queued=self.sessions.queued,
            token_ms=self.sessions.times.token_s * 1e3,
            first_token_ms=self.sessions.times.first_token_s * 1e3,
        )

    def _on_node_failure(self, node: str, failure: Failure) -> None:
        self._tasks.start(f"report failure of {node}", self._membership.report_failure(node, failure))

    async def _on_reply(self, reply: control_plane_pb2.ReportReply, nodes: frozenset[str]) -> None:
        """Follows committed plans whose announcement was missed and the limit of sessions, and lets go of links to nodes
        that left."""
        limit = reply.max_sessions if reply.HasField("max_sessions") else None
        self.sessions.limit(limit, reply.max_sessions_reason)
        self._switcher.hold(held_from_messages(reply.held), self._reported_s)
        await self._links.keep_only(nodes | self.sessions.nodes_in_use)
        # Beside the reports: a switch waits for its sessions' next tokens, and a member that is silent counts as lost.
        if self._following is None or self._following.done():
            follow = follow_chains(self._settings.platform_grpc, self._package.shape.name, self._switcher, reply)
            self._following = self._tasks.start("follow chains", follow)
        self._announce(reply)

    def _announce(self, reply: control_plane_pb2.ReportReply) -> None:
        """Has the service's record say which plans are committed, so that applications that subscribed to it are told when a
        reconfiguration has ended; once per report at most."""
        epochs = [chain.epoch for chain in reply.chains if not chain.dropped]
        told = {"planEpoch": max(epochs, default=0), "chains": len(epochs)}
        if hasattr(self, "_offered") and told != self._told and (self._telling is None or self._telling.done()):
            self._telling = self._tasks.start("announce plans", self._tell(told))

    async def _tell(self, told: Mapping[str, int]) -> None:
        try:
            await self._application.describe_service(self._offered, told)
        except MecError as error:
            _log.warning("the service's record could not be brought up to date: %s", error)
        else:
            self._told = told
