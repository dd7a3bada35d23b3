"""The parts of this folder put together: `routes` puts them on an application."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CollectorRegistry

from mec_platform.enablement_api.notifications.notifier import Notifier
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.radio_information.administration import RadioAdministration, RadioMetrics
from mec_platform.enablement_api.radio_information.feed import RadioFeed
from mec_platform.enablement_api.radio_information.queries import RadioQueries
from mec_platform.enablement_api.radio_information.subscriptions import RadioSubscriptions
from mec_platform.radio.network import RadioNetwork
from mec_platform.registry.host import HostRegistry


def make_radio_information(
    app: web.Application, host: HostRegistry, network: RadioNetwork, notifier: Notifier, collectors: CollectorRegistry
) -> list[Operation]:
    """The operations of MEC 012 over this network; who subscribed is told while the application is served."""
    feed = RadioFeed(host, network)
    feed.attach(app)
    RadioMetrics(network, feed, collectors)
    return [
        *RadioQueries(host, network).operations(),
        *RadioSubscriptions(host, notifier).operations(),
        *RadioAdministration(network).operations(),
    ]
