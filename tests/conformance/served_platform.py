"""A platform with something in it, served on a port of this machine from a thread of its own, for clients that are not
asynchronous. What it holds has ids that are known beforehand, and is put back whenever a request has removed it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count

from aiohttp import web

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.domain.rules import DnsRule, FilterType, IpAddressType, TrafficAction, TrafficFilter, TrafficRule
from mec_platform.domain.services import JsonText, SerializerType, ServiceDescription, ServiceState
from mec_platform.domain.subscriptions import RADIO_TOPICS, Delivery, Subscription, Topic
from mec_platform.enablement_api.notifications.targets import CallbackPolicy
from mec_platform.enablement_api.routes import make_enablement_app, platform_transports
from mec_platform.enablement_api.security.protection import Protection
from mec_platform.enablement_api.security.rate_limit import Rate
from mec_platform.enablement_api.security.settings import SecuritySettings
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.reports import BearerReported, S1BearerReported
from mec_platform.radio.values import (
    Bearer,
    BearerChange,
    Cell,
    Plmn,
    S1Bearer,
    Technology,
    TunnelEnd,
    Ue,
    associate_of,
)
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.enablement_api.conftest import StandingClock

APP, SERVICE, CLIENT, OPERATOR = "the-application", "the-service", "the-client", "the-operator"
DNS_RULE, TRAFFIC_RULE = "the-dns-rule", "the-traffic-rule"
SUBSCRIPTIONS = {topic: f"the-{topic.name.lower()}-subscription" for topic in Topic if topic not in RADIO_TOPICS}
RADIO_SUBSCRIPTION = "the-radio-subscription"
RADIO_CRITERIA = JsonText(
    '{"subscriptionType":"CellChangeSubscription","callbackReference":"http://callback.example/","filterCriteriaAssocHo":{}}'
)
OPERATOR_SECRET = "nobody guesses this"

MOST_RECORDS = 60
"""More than that were made by requests; lists of all of them would slow every further one down."""


EVERYWHERE = CallbackPolicy(networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))
"""Made-up callbacks are taken; nobody is called, as notifications are not delivered from here."""


class KnownIds:
    """What a registry calls its new records: what the test says first, else numbers."""

    def __init__(self) -> None:
        self.next: list[str] = []
        self._numbers = count(1)

    def __call__(self) -> str:
        return self.next.pop() if self.next else f"id-{next(self._numbers)}"


@dataclass(frozen=True)
class ServedPlatform:
    """`url` is its origin. The registry belongs to the thread of `loop`."""

    url: str
    host: HostRegistry
    ids: KnownIds
    loop: asyncio.AbstractEventLoop

    def restore(self) -> None:
        """Puts back what is missing of what the platform held at first, and removes what piles up."""
        asyncio.run_coroutine_threadsafe(self._restore(), self.loop).result()

    async def _restore(self) -> None:
        state, host = self.host.registry.state, self.host
        if len(state.apps) + len(state.services) + len(state.subscriptions) > MOST_RECORDS:
            for app_id in state.apps:
                await host.applications.remove(app_id)
            for subscription in host.client_subscriptions.of("") + host.client_subscriptions.of(OPERATOR):
                await host.client_subscriptions.unsubscribe(None, subscription.subscription_id)
        for client_id in [each for each in host.registry.state.clients if each.startswith("id-")]:
            await host.credentials.remove(client_id)
        app = host.registry.state.apps.get(APP)
        if app is not None and (app.state.has_ended or app.termination is not None):
            await host.applications.remove(APP)
        if APP not in host.registry.state.apps:
            await self._register()
        await self._complete()

    async def _register(self) -> None:
        dns_rule = DnsRule(
            rule_id=DNS_RULE, domain_name="greeter.example", address_type=IpAddressType.IP_V4, ip_address="10.0.0.7"
        )
        traffic_rule = TrafficRule(
            rule_id=TRAFFIC_RULE,
            filter_type=FilterType.PACKET,
            priority=1,
            filters=(TrafficFilter(source_addresses=("10.0.0.0/8",)),),
            action=TrafficAction.DROP,
        )
        await self.host.applications.register(
            AppDescription(name="greeter"), app_instance_id=APP, dns_rules=(dns_rule,), traffic_rules=(traffic_rule,)
        )

    async def _complete(self) -> None:
        state, host = self.host.registry.state, self.host
        for topic, subscription_id in SUBSCRIPTIONS.items():
            if subscription_id not in state.subscriptions:
                delivery = Delivery(callback_uri="http://callback.example/", websocket=True)
                self.ids.next.append(subscription_id)
                await host.subscriptions.subscribe(
                    Subscription(subscription_id="", app_instance_id=APP, topic=topic, delivery=delivery)
                )
        if RADIO_SUBSCRIPTION not in state.subscriptions:
            await self._subscribe_to_radio()
        service = state.services.get(SERVICE)
        if service is not None and service.liveness_interval_s is None:
            await host.services.remove_service(APP, SERVICE)
        if SERVICE not in host.registry.state.services:
            self.ids.next.append(SERVICE)
            await host.services.register_service(APP, self._offer())
        if CLIENT not in state.clients:
            await host.credentials.create([Scope.APP_SUPPORT], CLIENT)
        await self._leave_dead_letter()

    async def _subscribe_to_radio(self) -> None:
        self.ids.next.append(RADIO_SUBSCRIPTION)
        await self.host.client_subscriptions.subscribe(
            Subscription(
                subscription_id="",
                app_instance_id="",
                topic=Topic.CELL_CHANGE,
                delivery=Delivery(callback_uri="http://callback.example/", websocket=True),
                criteria_text=RADIO_CRITERIA,
            )
        )

    def _offer(self) -> ServiceDescription:
        transport = self.host.services.transports[0]
        return ServiceDescription(
            name="greeting",
            version="1.0",
            state=ServiceState.ACTIVE,
            transport=transport,
            serializer=SerializerType.JSON,
            liveness_interval_s=60,
        )

    async def _leave_dead_letter(self) -> None:
        subscriptions = self.host.subscriptions
        subscription_id = SUBSCRIPTIONS[Topic.SERVICE_AVAILABILITY]
        for notification in subscriptions.waiting(subscription_id)[:1]:
            await subscriptions.bury(subscription_id, notification.sequence, "nobody listens")


@contextmanager
def served_platform(*, authenticate: bool = False) -> Iterator[ServedPlatform]:
    """Serves until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="served platform")
    thread.start()
    stack = AsyncExitStack()
    try:
        yield asyncio.run_coroutine_threadsafe(_serve(stack, authenticate), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _radio_network(host: HostRegistry) -> RadioNetwork:
    """One UE with a bearer of each kind."""
    network = RadioNetwork(host.registry.clock)
    ue, cell = Ue((associate_of("198.51.100.7"),)), Cell(Plmn("001", "01"), "5C4225714", Technology.NR)
    bearer = BearerReported(ue, cell, change=BearerChange.ESTABLISHED, bearer=Bearer(5, 9))
    tunnel = S1Bearer(5, TunnelEnd("192.0.2.1", "1a"), TunnelEnd("192.0.2.2", "1b"))
    for report in (bearer, S1BearerReported(ue, cell, change=BearerChange.ESTABLISHED, bearer=tunnel)):
        network.take(report, "a test")
    return network


async def _serve(stack: AsyncExitStack, authenticate: bool) -> ServedPlatform:
    ids = KnownIds()
    log = await SqliteEventLog.open(":memory:")
    stack.push_async_callback(log.close)
    host = HostRegistry(
        Registry(log, clock=StandingClock(), new_id=ids),
        locality=Locality(mec_host="host-1"),
        transports=platform_transports("http://platform.example/"),
    )
    await host.start()
    stack.push_async_callback(host.stop)
    await host.credentials.adopt(OPERATOR, OPERATOR_SECRET, Scope)
    # Without a limit that the requests of a test would come to.
    settings = SecuritySettings(authenticate=authenticate, rate=Rate(per_s=1e6, burst=10**6))
    protection = Protection(host.registry, host.credentials, settings)
    app = make_enablement_app(host, protection=protection, callbacks=EVERYWHERE, radio=_radio_network(host))
    app.on_startup.clear()  # the delivery of notifications
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await protection.start()
    stack.push_async_callback(protection.stop)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address, port = runner.addresses[0][:2]
    return ServedPlatform(f"http://{address}:{port}", host, ids, asyncio.get_running_loop())
