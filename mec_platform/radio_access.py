"""Radio information of one platform, composed: the network, its adapters, and MEC 012 as a service of the platform itself.

It is registered with the first report: a host without a RAN has nothing to offer. From then on it is there, over restarts too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc.aio

from mec_platform.background import BackgroundTasks
from mec_platform.domain.applications import AppDescription
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    SerializerType,
    ServiceDescription,
    ServiceState,
    TransportInfo,
)
from mec_platform.enablement_api.notifications.messages import RADIO_INFORMATION_ROOT
from mec_platform.radio.grpc_service import RadioAccessService
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.replay import ReplaySettings, Trace, TraceReplay
from mec_platform.radio.reports import Report
from mec_platform.registry.actor import current_actor
from mec_platform.registry.errors import AppInstanceExists, LogUnavailable, RegistryError
from mec_platform.registry.host import HostRegistry
from mec_platform.rpc.v1 import radio_pb2_grpc
from mec_platform.traces.radio import read_radio_trace

logger = logging.getLogger(__name__)

PLATFORM_APP = "mec-platform"
"""The application instance that the platform's own services are of."""

SERVICE_NAME = "rni"
_CATEGORY = CategoryRef(RADIO_INFORMATION_ROOT, SERVICE_NAME, "Radio network information (ETSI GS MEC 012)", "2.2.1")
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class RadioSettings:
    """Traces to replay, by the name or address of the UE that each is of."""

    traces: Mapping[str, Path] = field(default_factory=dict)
    replay: ReplaySettings = field(default_factory=ReplaySettings)


async def _nobody() -> None:
    """Is told of the offer where nobody wants to be."""


class RadioAccess:
    """It implements `RadioSink` for all adapters; `on_offered` is awaited once it is offered.

    Raises TraceError where a trace cannot be read.
    """

    def __init__(
        self, host: HostRegistry, settings: RadioSettings, on_offered: Callable[[], Awaitable[None]] = _nobody
    ) -> None:
        self._host = host
        self._on_offered = on_offered
        self.network = RadioNetwork(host.registry.clock)
        traces = {ue: Trace(path.name, read_radio_trace(path, ue)) for ue, path in settings.traces.items()}
        self._replay = TraceReplay(traces, self, host.registry.clock, settings.replay)
        self._tasks = BackgroundTasks()
        self._is_offered = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Lets RANs report over gRPC."""
        radio_pb2_grpc.add_RadioAccessServicer_to_server(RadioAccessService(self), server)

    def start(self, transport: TransportInfo) -> None:
        """Begins the replays, once MEC 012 is served; `transport` is how the platform is reached."""
        (base,) = transport.endpoint.uris or ("",)
        endpoint = EndPoint(uris=(f"{base.rstrip('/')}{RADIO_INFORMATION_ROOT}",))
        self._transport = replace(transport, endpoint=endpoint)
        self._replay.start()

    async def stop(self) -> None:
        """Ends the replays."""
        await self._replay.stop()
        await self._tasks.stop()

    def take(self, report: Report, source: str) -> None:
        """As `RadioSink.take`."""
        self.network.take(report, source)
        if not self._is_offered and hasattr(self, "_transport"):
            self._is_offered = True
            self._tasks.start("offer of radio information", self._offer())

    async def _offer(self) -> None:
        current_actor.set("platform")
        while True:
            try:
                await self._register()
            except LogUnavailable as error:
                logger.error("radio information cannot be registered as a service yet: %s", error)
                await self._host.registry.clock.sleep(RETRY_S)
            except RegistryError as error:
                logger.error("radio information is not registered as a service: %s", error)
                return
            else:
                await self._on_offered()
                return

    async def _register(self) -> None:
        with suppress(AppInstanceExists):  # From an earlier life, or by another replica.
            await self._host.applications.register(AppDescription(name=PLATFORM_APP), app_instance_id=PLATFORM_APP)
        description = ServiceDescription(
            name=SERVICE_NAME,
            version="2.2.1",
            state=ServiceState.ACTIVE,
            transport=self._transport,
            serializer=SerializerType.JSON,
            category=_CATEGORY,
        )
        known = self._host.registry.state.service_registered_as(PLATFORM_APP, SERVICE_NAME)
        if known is None:
            await self._host.services.register_service(PLATFORM_APP, description, SERVICE_NAME)
        else:
            await self._host.services.update_service(PLATFORM_APP, known.service_id, description)
