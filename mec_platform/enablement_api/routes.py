"""Puts the MEC APIs on an aiohttp application; `mec_platform.application` composes it with the rest and serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from random import Random
from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from mec_platform.domain.locality import LocalityTree
from mec_platform.domain.services import EndPoint, OAuth2GrantType, OAuth2Info, TransportInfo, TransportType
from mec_platform.enablement_api.app_support.handlers import AppSupport
from mec_platform.enablement_api.app_support.rules import rule_operations
from mec_platform.enablement_api.app_support.subscriptions import TERMINATION_SUBSCRIPTIONS
from mec_platform.enablement_api.app_support.timing import HostTime, Timing
from mec_platform.enablement_api.data_plane import DataPlaneAdministration, DataPlaneMetrics, ReadStatuses
from mec_platform.enablement_api.docs import Documents
from mec_platform.enablement_api.exchange import PUBLIC_URI, check_exchange
from mec_platform.enablement_api.federation import PeerAdministration, PeerMetrics, ReadPeers
from mec_platform.enablement_api.life_cycle.handlers import LifeCycle
from mec_platform.enablement_api.life_cycle.instantiation import Instantiation
from mec_platform.enablement_api.metrics import RegistryMetrics, RequestMetrics, metrics_operation
from mec_platform.enablement_api.notifications.administration import DeadLetterAdministration
from mec_platform.enablement_api.notifications.notifier import Notifier
from mec_platform.enablement_api.notifications.resources import SubscriptionResources
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import CallbackPolicy
from mec_platform.enablement_api.operations import OPERATIONS, Operation, OperationTable, operations_of
from mec_platform.enablement_api.problem_details import answer_or_problem
from mec_platform.enablement_api.radio_information.composition import make_radio_information
from mec_platform.enablement_api.registry_view.handlers import RegistryView
from mec_platform.enablement_api.registry_watch.handlers import EVENT_STREAM, RegistryWatch
from mec_platform.enablement_api.security.joining import JoiningApi
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.enablement_api.security.token_endpoint import TOKEN
from mec_platform.enablement_api.service_management.handlers import ServiceManagement
from mec_platform.enablement_api.service_management.subscriptions import AVAILABILITY_SUBSCRIPTIONS
from mec_platform.identity.member_authority import MemberAuthority
from mec_platform.radio.network import RadioNetwork
from mec_platform.registry.host import HostRegistry

STRICT = CallbackPolicy()
DEFAULT_DELIVERY = DeliverySettings()

LARGEST_BODY_BYTES = 1024 * 1024


def platform_transports(rest_uri: str, *, authenticate: bool = False) -> tuple[TransportInfo, ...]:
    """The transports that the platform provides itself: REST at its own address (MEC 011 clause 8.2.5)."""
    oauth2 = (
        OAuth2Info((OAuth2GrantType.CLIENT_CREDENTIALS,), f"{rest_uri.rstrip('/')}{TOKEN}") if authenticate else None
    )
    return (
        TransportInfo(
            id="rest-http",
            name="REST",
            description="REST over HTTP at the MEC platform",
            type=TransportType.REST_HTTP,
            protocol="HTTP",
            version="1.1",
            endpoint=EndPoint(uris=(rest_uri,)),
            oauth2=oauth2,
        ),
    )


def add_operations(app: web.Application, operations: Iterable[Operation]) -> None:
    """Puts rows on an application; HEAD comes with every GET.

    Raises:
        ValueError: two rows have the same id.
    """
    table = app[OPERATIONS]
    for operation in operations:
        if operation.operation_id in table.by_id:
            raise ValueError(f"two operations are called {operation.operation_id}")
        table.by_id[operation.operation_id] = operation
        if operation.path not in table.resources:
            table.resources[operation.path] = app.router.add_resource(operation.path)
        resource = table.resources[operation.path]
        handler = _checked(operation)
        for method in ("GET", "HEAD") if operation.method == "GET" else (operation.method,):
            table.by_route[resource.add_route(method, handler)] = operation


def _checked(operation: Operation) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        check_exchange(request, operation)
        return await operation.handler(request)

    return answer


STALE = '110 - "Response is Stale"'
"""RFC 7234 section 5.5.1: what a replica answers while it cannot reach the state that it shares with others."""


def _front(metrics: RequestMetrics, check: Callable[[web.Request], None], is_stale: Callable[[], bool]) -> Middleware:
    """Around everything else, in one middleware because each of them costs every request.

    `check` raises where the request may not be made; `is_stale` says that what is answered may be old.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        start = perf_counter()
        response = await answer_or_problem(request, handler, check)
        if is_stale() and not response.prepared:
            response.headers["Warning"] = STALE
        lasts = response.status == HTTPStatus.SWITCHING_PROTOCOLS or response.content_type == EVENT_STREAM
        metrics.note(request, response.status, perf_counter() - start, lasts)
        return response

    return answer


def make_enablement_app(
    host: HostRegistry,
    *,
    collectors: CollectorRegistry | None = None,
    public_uri: str = "",
    callbacks: CallbackPolicy = STRICT,
    delivery: DeliverySettings = DEFAULT_DELIVERY,
    protection: Protection | None = None,
    host_time: HostTime | None = None,
    data_plane: ReadStatuses = tuple,
    localities: LocalityTree | None = None,
    peers: ReadPeers = tuple,
    radio: RadioNetwork | None = None,
    authority: MemberAuthority | None = None,
) -> web.Application:
    """An application with Mp1, /metrics, /openapi.json, /docs, problem details for every error, and a bound on bodies.

    Routes of other parts may be added before it is served; they get the same middlewares. The registry must have been
    started, and is stopped by who started it. `collectors` is what /metrics exposes, so others can add theirs.
    `protection` says who may do what, and is started by who made it; without it everybody may do everything.
    `public_uri` is what links begin with where clients do not reach the platform directly.
    `host_time`, `data_plane` and `peers` are what is known of the host's clock, how the host enforces rules, and how its links
    to other hosts stand. `localities` are the places where operators may put application instances.
    `radio` is the radio network of the host; without it there is one that nobody reports to.
    `authority` signs the certificates of members that join; without it none can.
    `callbacks` says where notifications may go; they go, as patiently as `delivery` says, while the application is served.
    """
    collectors = collectors or CollectorRegistry()
    protection = protection or Protection(host.registry, host.credentials, SecuritySettings())
    front = _front(RequestMetrics(collectors), protection.check, lambda: host.registry.is_stale)
    app = web.Application(middlewares=[front], client_max_size=LARGEST_BODY_BYTES)
    app[PUBLIC_URI] = public_uri
    app[OPERATIONS] = OperationTable()
    RegistryMetrics(host, collectors)
    add_operations(app, AppSupport(host.applications).operations())
    add_operations(app, rule_operations(host.applications))
    add_operations(app, Timing(host.registry.clock, host_time or HostTime()).operations())
    DataPlaneMetrics(data_plane, collectors)
    add_operations(app, DataPlaneAdministration(data_plane).operations())
    PeerMetrics(peers, collectors)
    add_operations(app, PeerAdministration(peers).operations())
    add_operations(app, ServiceManagement(host.applications, host.services).operations())
    add_operations(app, RegistryView(host.services).operations())
    notifier = Notifier(
        host.registry, host.subscriptions, policy=callbacks, settings=delivery, collectors=collectors, die=Random()
    )
    notifier.attach(app)
    for api in (TERMINATION_SUBSCRIPTIONS, AVAILABILITY_SUBSCRIPTIONS):
        add_operations(app, SubscriptionResources(api, host.subscriptions, notifier).operations())
    network = radio or RadioNetwork(host.registry.clock)
    add_operations(app, make_radio_information(app, host, network, notifier, collectors))
    watch = RegistryWatch(host, protection.check)
    watch.attach(app)
    add_operations(app, watch.operations())
    add_operations(app, DeadLetterAdministration(host.subscriptions).operations())
    instantiation = Instantiation(host.applications, host.credentials, localities)
    add_operations(app, LifeCycle(host.applications, instantiation).operations())
    add_operations(app, protection.operations())
    if authority is not None:
        add_operations(app, JoiningApi(host.joining, authority, protection.address_of).operations())
    protection.add_pages(app)
    documents = Documents(operations_of(app))
    add_operations(app, [metrics_operation(collectors, protection.metrics_scope), *documents.operations()])
    app.router.add_routes(documents.assets())
    return app
