"""`GET /admin/v1/peers` and the metrics of the federation: which hosts share their services with this one, and how that goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TypeAlias

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.exchange import json_response
from mec_platform.enablement_api.operations import Operation
from mec_platform.registry.federation.peers import PeerStatus

ReadPeers: TypeAlias = Callable[[], Sequence[PeerStatus]]


class RefusedService(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A service of the peer that is not taken over, and why."""

    ser_instance_id: str
    reason: str


class PeerMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One peer. `services` are those that it shares, `suspended` says that they are SUSPENDED because nothing was heard of it.

    `revision` is how far its history is followed, absent before it is; `lag` the changes of it that were read and are not
    durable yet. `follows` says whether it follows this host. `listings` are the times that everything was compared, by reason;
    `mismatches` those that the copies had come apart. `error` is why it is not followed now: the platform goes on trying.
    """

    name: str
    address: str
    connected: bool
    suspended: bool
    follows: bool
    services: int
    lag: int
    connections: int
    changes: int
    listings: dict[str, int]
    mismatches: int
    refused_services: list[RefusedService]
    registry_id: str | None = None
    revision: int | None = None
    last_contact_seconds: int | None = None
    error: str | None = None


class PeerAdministration:
    """Handlers over what `read` tells of the peers."""

    def __init__(self, read: ReadPeers) -> None:
        self._read = read

    def operations(self) -> list[Operation]:
        """The one resource."""
        return [
            Operation(
                method="GET",
                path="/admin/v1/peers",
                operation_id="listPeers",
                summary="List the hosts that share their services with this one",
                tag="Administration",
                scope=Scope.ADMIN,
                handler=self.get,
                answers={HTTPStatus.OK: list[PeerMessage]},
            )
        ]

    async def get(self, request: web.Request) -> web.Response:
        """GET how the links to the peers stand."""
        return json_response([_of_status(status) for status in self._read()])


def _of_status(status: PeerStatus) -> PeerMessage:
    contact_ns = status.last_contact_unix_ns
    return PeerMessage(
        name=status.name,
        address=status.address,
        connected=status.connected,
        suspended=status.suspended,
        follows=status.follows,
        services=status.services,
        lag=status.lag,
        connections=status.counts.connections,
        changes=status.counts.changes,
        listings=dict(status.counts.listings),
        mismatches=status.counts.mismatches,
        refused_services=[
            RefusedService(ser_instance_id=each.service_id, reason=each.reason) for each in status.refused
        ],
        registry_id=status.registry_id or None,
        revision=status.revision,
        last_contact_seconds=None if contact_ns is None else contact_ns // 10**9,
        error=status.error or None,
    )


class PeerMetrics(Collector):
    """How the links stand, read at each scrape."""

    def __init__(self, read: ReadPeers, collectors: CollectorRegistry) -> None:
        self._read = read
        collectors.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Called by prometheus_client at each scrape."""
        statuses, listings = (
            self._read(),
            CounterMetricFamily(
                "mec_peer_listings", "Times that all services of a peer were compared", labels=["peer", "reason"]
            ),
        )
        for status in statuses:
            for reason, count in status.counts.listings.items():
                listings.add_metric([status.name, reason], count)
        return [
            _gauge("connected", "1 while its changes are followed", statuses, lambda each: each.connected),
            _gauge("suspended", "1 while its services are suspended", statuses, lambda each: each.suspended),
            _gauge("follows", "1 while it follows this host", statuses, lambda each: each.follows),
            _gauge("services", "Services that it shares", statuses, lambda each: each.services),
            _gauge("refused_services", "Services that are not taken over", statuses, lambda each: len(each.refused)),
            _gauge("revision", "Revision of its registry followed up to", statuses, lambda each: each.revision or 0),
            _gauge("lag", "Changes that are read and not durable", statuses, lambda each: each.lag),
            _gauge(
                "last_contact_timestamp_seconds",
                "When it was heard of last (Unix time)",
                statuses,
                lambda each: (each.last_contact_unix_ns or 0) / 1e9,
            ),
            _counter("changes", "Changes that were taken over", statuses, lambda each: each.counts.changes),
            _counter("connections", "Times that it was reached", statuses, lambda each: each.counts.connections),
            _counter("mismatches", "Digests that were not the same", statuses, lambda each: each.counts.mismatches),
            _counter("refusals", "Times that a service was refused", statuses, lambda each: each.counts.refusals),
            listings,
        ]


def _gauge(
    name: str, text: str, statuses: Sequence[PeerStatus], value: Callable[[PeerStatus], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"mec_peer_{name}", text, labels=["peer"])
    for status in statuses:
        family.add_metric([status.name], float(value(status)))
    return family


def _counter(
    name: str, text: str, statuses: Sequence[PeerStatus], value: Callable[[PeerStatus], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"mec_peer_{name}", text, labels=["peer"])
    for status in statuses:
        family.add_metric([status.name], value(status))
    return family
