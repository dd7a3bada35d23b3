"""For operators: `GET /admin/v1/radio`, the UEs that are known and where that comes from; and what is counted of radio."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.exchange import json_response
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.radio_information.feed import RadioFeed
from mec_platform.enablement_api.radio_information.values import PlmnMessage, from_plmn
from mec_platform.enablement_api.security.administration import ROOT
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.radio_state import UeRecord
from mec_platform.radio.values import Technology


class UeMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A UE as it is known now; absent what was not told. `source` says which adapter told it, and of a replay that it is one.
    `age_s` is how long nothing was heard."""

    ue: str
    cell: str
    plmn: PlmnMessage
    technology: Technology
    rsrp_dbm: float | None = None
    rsrq_db: float | None = None
    sinr_db: float | None = None
    round_trip_ms: float | None = None
    timing_advance: int | None = None
    bearers: int
    source: str
    age_s: float


class RadioAdministration:
    """The handler over one radio network."""

    def __init__(self, network: RadioNetwork) -> None:
        self._network = network

    def operations(self) -> list[Operation]:
        """The one resource."""
        return [
            Operation(
                method="GET",
                path=f"{ROOT}/radio",
                operation_id="listRadioUes",
                summary="List the UEs of which radio information is known",
                tag="Administration",
                scope=Scope.ADMIN,
                handler=self.list_ues,
                answers={HTTPStatus.OK: list[UeMessage]},
            )
        ]

    async def list_ues(self, request: web.Request) -> web.Response:
        """By name. `source` begins with "replay of" where nothing of it is measured here and now."""
        now_ns = self._network.now_unix_ns
        records = sorted(self._network.state.ues.values(), key=lambda each: each.ue.name)
        return json_response([_message(each, now_ns) for each in records])


class RadioMetrics(Collector):
    """What there is, read at each scrape."""

    def __init__(self, network: RadioNetwork, feed: RadioFeed, collectors: CollectorRegistry) -> None:
        self._network = network
        self._feed = feed
        collectors.register(self)

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client at each scrape."""
        yield GaugeMetricFamily("mec_radio_ues", "UEs that are known", value=len(self._network.state.ues))
        reports = CounterMetricFamily("mec_radio_reports", "Reports of RAN adapters", labels=["kind"])
        for kind, number in self._network.reports.items():
            reports.add_metric([kind], number)
        yield reports
        happened = CounterMetricFamily("mec_radio_happenings", "News that were in them", labels=["kind"])
        for kind, number in self._feed.happened.items():
            happened.add_metric([kind], number)
        yield happened
        yield CounterMetricFamily(
            "mec_radio_lost", "News that nobody was told of, for the log was out of reach", value=self._feed.lost
        )


def _message(record: UeRecord, now_ns: int) -> UeMessage:
    measurement = record.measurement
    quality = None if measurement is None else measurement.quality
    round_trip_s = None if measurement is None else measurement.round_trip_s
    return UeMessage(
        ue=record.ue.name,
        cell=record.cell.cell_id,
        plmn=from_plmn(record.cell.plmn),
        technology=record.cell.technology,
        rsrp_dbm=None if quality is None else quality.rsrp_dbm,
        rsrq_db=None if quality is None else quality.rsrq_db,
        sinr_db=None if quality is None else quality.sinr_db,
        round_trip_ms=None if round_trip_s is None else round(round_trip_s * 1e3, 3),
        timing_advance=record.timing_advance,
        bearers=len(record.bearers),
        source=record.source,
        age_s=round(max(now_ns - record.seen_unix_ns, 0) / 1e9, 3),
    )
