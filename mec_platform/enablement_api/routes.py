"""Puts the MEC APIs on an aiohttp application; `mec_platform.application` composes it with the rest and serves it."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CollectorRegistry

from mec_platform.domain.services import EndPoint, TransportInfo, TransportType
from mec_platform.enablement_api.app_support.handlers import AppSupport
from mec_platform.enablement_api.metrics import RegistryMetrics, metrics_handler, metrics_middleware
from mec_platform.enablement_api.problem_details import problem_middleware
from mec_platform.enablement_api.service_management.handlers import ServiceManagement
from mec_platform.registry.clock import Clock, SystemClock
from mec_platform.registry.service_registry import ServiceRegistry

LARGEST_BODY_BYTES = 1024 * 1024


def platform_transports(rest_uri: str) -> tuple[TransportInfo, ...]:
    """The transports that the platform provides itself: REST at its own address (MEC 011 clause 8.2.5)."""
    return (
        TransportInfo(
            id="rest-http",
            name="REST",
            description="REST over HTTP at the MEC platform",
            type=TransportType.REST_HTTP,
            protocol="HTTP",
            version="1.1",
            endpoint=EndPoint(uris=(rest_uri,)),
        ),
    )


def add_routes(app: web.Application, registry: ServiceRegistry, clock: Clock) -> None:
    """Adds the routes of application support and service management; the application brings the middlewares."""
    app.add_routes(AppSupport(registry, clock).routes())
    app.add_routes(ServiceManagement(registry).routes())


def make_enablement_app(
    registry: ServiceRegistry, *, clock: Clock | None = None, collectors: CollectorRegistry | None = None
) -> web.Application:
    """An application with Mp1, /metrics, problem details for every error, and a bound on bodies.

    Routes of other parts may be added before it is served; they get the same middlewares. The registry must have been
    started, and is stopped by who started it. `collectors` is what /metrics exposes, so others can add theirs.
    """
    collectors = collectors or CollectorRegistry()
    app = web.Application(
        middlewares=[metrics_middleware(collectors), problem_middleware], client_max_size=LARGEST_BODY_BYTES
    )
    RegistryMetrics(registry, collectors)
    add_routes(app, registry, clock or SystemClock())
    app.router.add_get("/metrics", metrics_handler(collectors))
    return app
