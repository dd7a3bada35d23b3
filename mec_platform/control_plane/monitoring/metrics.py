"""What monitoring estimates, in Prometheus form: members, links, forecasts and mass silence, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mec_platform.control_plane.monitoring.radio_forecast import RadioState
from mec_platform.domain.capacity import Snapshot


class Observed(Protocol):
    """What is asked of one deployment."""

    @property
    def model(self) -> str: ...

    def observe(self) -> Snapshot: ...

    def radio(self) -> RadioState: ...


class Deployed(Protocol):
    """All deployments."""

    @property
    def loops(self) -> Sequence[Observed]: ...


class CapacityMetrics(Collector):
    """To be registered once; series go with their members."""

    def __init__(self, deployments: Deployed) -> None:
        self._deployments = deployments

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client at each scrape."""
        seen = [(loop.model, loop.observe()) for loop in self._deployments.loops if loop.model]
        yield from _members(seen)
        yield from _links(seen)
        silence = GaugeMetricFamily("mec_mass_silence", "1 while silence of members is not believed", labels=["model"])
        for model, snapshot in seen:
            silence.add_metric([model], float(bool(snapshot.suspicion)))
        yield silence
        if self._deployments.loops:  # every deployment hears of the same UEs
            yield from _radio(self._deployments.loops[0].radio())


def _members(seen: Sequence[tuple[str, Snapshot]]) -> Iterable[Metric]:
    names = ["model", "member"]
    block = GaugeMetricFamily("mec_node_block_time_seconds", "One row through one block, estimated", labels=names)
    busy = GaugeMetricFamily("mec_node_busy_share", "Share of time that its compute is in use", labels=names)
    trust = GaugeMetricFamily("mec_node_confidence", "That it is there: 1 while its reports come", labels=names)
    token = GaugeMetricFamily("mec_gateway_token_seconds", "95th percentile of its recent tokens", labels=names)
    queued = GaugeMetricFamily("mec_gateway_queued", "Requests that wait for a place", labels=names)
    for model, snapshot in seen:
        for node in snapshot.nodes:
            block.add_metric([model, node.name], node.block_time_s)
            busy.add_metric([model, node.name], node.busy_share)
            trust.add_metric([model, node.name], node.confidence)
        for gateway in snapshot.gateways:
            token.add_metric([model, gateway.name], gateway.token_s)
            queued.add_metric([model, gateway.name], gateway.queued)
    return block, busy, trust, token, queued


def _links(seen: Sequence[tuple[str, Snapshot]]) -> Iterable[Metric]:
    names = ["model", "source", "target"]
    rate = GaugeMetricFamily("mec_link_bytes_per_second", "Rate of one direction, estimated", labels=names)
    trip = GaugeMetricFamily("mec_link_round_trip_seconds", "Round trip of a link, estimated", labels=names)
    trust = GaugeMetricFamily("mec_link_confidence", "How far these are to be trusted, in [0, 1]", labels=names)
    for model, snapshot in seen:
        for link in snapshot.links:
            labels = [model, link.source, link.target]
            rate.add_metric(labels, link.bytes_per_s)
            trip.add_metric(labels, link.round_trip_s)
            trust.add_metric(labels, link.confidence)
    return rate, trip, trust


def _radio(radio: RadioState) -> Iterable[Metric]:
    error = GaugeMetricFamily(
        "mec_radio_forecast_error_seconds",
        "Recent mean absolute error of round trips foretold, and of taking the latest for the future",
        labels=["ue", "forecast"],
    )
    trust = GaugeMetricFamily("mec_radio_forecast_confidence", "Of what is foretold of a UE, in [0, 1]", labels=["ue"])
    for name, ue in radio.ues.items():
        error.add_metric([name, "told"], ue.record.told)
        error.add_metric([name, "persistence"], ue.record.persistence)
        trust.add_metric([name], 0.0 if ue.forecast is None else ue.forecast.confidence)
    return error, trust
