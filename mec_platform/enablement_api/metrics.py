"""What the platform counts of itself, in the exposition format of Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from mec_platform.domain.credentials import Scope
from mec_platform.domain.services import ServiceState
from mec_platform.enablement_api.operations import Operation
from mec_platform.registry.effects import AnnounceService, Effect
from mec_platform.registry.host import HostRegistry


class RegistryMetrics(Collector):
    """What there is, who watches it and how its heartbeats are, read from the registry at each scrape; changes as they come."""

    def __init__(self, host: HostRegistry, collectors: CollectorRegistry) -> None:
        self._host = host
        registry = self._registry = host.registry
        self._changes = Counter(
            "mec_service_changes", "Changes of service availability", ["change"], registry=collectors
        )
        registry.add_listener(self._count_change)
        collectors.register(self)

    def _count_change(self, effect: Effect) -> None:
        if isinstance(effect, AnnounceService):
            self._changes.labels(effect.change.value).inc()

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client at each scrape."""
        state = self._registry.state
        by_state = Tally(service.state for service in state.services.values() if not service.origin)
        services = GaugeMetricFamily("mec_services", "Registered services of this host", labels=["state"])
        for service_state in ServiceState:
            services.add_metric([service_state.value], by_state[service_state])
        yield services
        yield GaugeMetricFamily("mec_app_instances", "Registered application instances", value=len(state.apps))
        yield GaugeMetricFamily("mec_registry_revision", "Revision of the registry's state", value=state.revision)
        yield GaugeMetricFamily(
            "mec_registry_stale", "Whether the shared state is out of reach", value=float(self._host.registry.is_stale)
        )
        yield GaugeMetricFamily(
            "mec_leader", "Whether this replica leads", value=float(self._host.registry.leadership.is_leader)
        )
        yield from self._of_watching()
        yield from self._of_liveness()

    def _of_watching(self) -> Iterable[Metric]:
        feed = self._host.changes
        yield GaugeMetricFamily("mec_registry_watchers", "Watches over gRPC and HTTP", value=feed.watchers)
        yield GaugeMetricFamily(
            "mec_registry_watch_lag", "Revisions that the slowest watcher is behind", value=feed.largest_lag
        )
        yield GaugeMetricFamily("mec_registry_changes_kept", "Changes that watchers may resume over", value=feed.size)
        yield GaugeMetricFamily(
            "mec_registry_compacted_revision", "Oldest revision to resume after", value=feed.compacted_revision
        )

    def _of_liveness(self) -> Iterable[Metric]:
        services = self._host.services
        counts, protection = services.watch.counts, services.watch.protection
        yield CounterMetricFamily("mec_registry_renewals", "Heartbeats of services", value=counts.renewals)
        yield CounterMetricFamily(
            "mec_registry_expiries", "Services suspended for a missed heartbeat", value=counts.suspensions
        )
        yield CounterMetricFamily(
            "mec_registry_evictions", "Services removed for staying silent", value=counts.evictions
        )
        yield GaugeMetricFamily(
            "mec_registry_mass_expiry_protection",
            "1 while too many services are silent at once for any to be suspended",
            value=int(protection.is_on),
        )
        yield GaugeMetricFamily("mec_registry_kpis", "Services whose KPIs are known", value=len(services.kpis))


class RequestMetrics:
    """Counts and times requests by method, route and status; the route is the pattern, never the ids in a path."""

    def __init__(self, collectors: CollectorRegistry) -> None:
        self._requests = Counter(
            "mec_http_requests", "HTTP requests", ["method", "route", "status"], registry=collectors
        )
        self._seconds = Histogram(
            "mec_http_request_seconds", "Time to answer", ["method", "route"], registry=collectors
        )
        # Looking a series up by its labels takes longer than the series does.
        self._series: dict[tuple[web.AbstractResource | None, str, int], tuple[Counter, Histogram]] = {}

    def note(self, request: web.Request, status: int, seconds: float, lasts: bool) -> None:
        """To be called with every answer; `lasts` where it was open for as long as its client wanted."""
        route = request.match_info.route
        # Methods and paths that no route has would let clients create time series without end.
        key = (route.resource, route.method if route.resource is not None else "other", status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._find(*key)
        series[0].inc()
        # How long a WebSocket or a watch was open is not how long somebody waited for an answer.
        if not lasts:
            series[1].observe(seconds)

    def _find(self, resource: web.AbstractResource | None, method: str, status: int) -> tuple[Counter, Histogram]:
        path = "unknown" if resource is None else resource.canonical
        return self._requests.labels(method, path, str(status)), self._seconds.labels(method, path)


class CallMetrics:
    """Counts and times gRPC calls of `ServiceRegistry` by method and status code."""

    def __init__(self, collectors: CollectorRegistry) -> None:
        self._calls = Counter("mec_grpc_calls", "gRPC calls that ended", ["method", "code"], registry=collectors)
        self._seconds = Histogram("mec_grpc_call_seconds", "Time to answer", ["method"], registry=collectors)
        self._series: dict[tuple[str, str], tuple[Counter, Histogram | None]] = {}

    def note(self, method: str, code: str, seconds: float, lasts: bool) -> None:
        """To be called when a call has ended. How long a stream was open is not how long somebody waited for an answer."""
        key = (method, code)
        series = self._series.get(key)
        if series is None:
            timed = None if lasts else self._seconds.labels(method)
            series = self._series[key] = self._calls.labels(method, code), timed
        series[0].inc()
        if series[1] is not None:
            series[1].observe(seconds)


def metrics_operation(collectors: CollectorRegistry, scope: Scope | None = None) -> Operation:
    """GET /metrics over these collectors; `scope` is what it asks for."""

    async def expose(request: web.Request) -> web.Response:
        """The exposition format of Prometheus."""
        return web.Response(body=generate_latest(collectors), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Operation(
        method="GET",
        path="/metrics",
        operation_id="getMetrics",
        summary="Read what the platform counts of itself",
        tag="Platform",
        handler=expose,
        scope=scope,
        answers={HTTPStatus.OK: str},
        media_type="text/plain",
    )
