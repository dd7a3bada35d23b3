"""`GET /admin/v1/data_plane` and the metrics of the data plane: whether what applications want is what the host enforces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TypeAlias

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from mec_platform.data_plane.port import RuleKind
from mec_platform.data_plane.reconciler import PlaneStatus
from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.exchange import json_response
from mec_platform.enablement_api.operations import Operation

ReadStatuses: TypeAlias = Callable[[], Sequence[PlaneStatus]]


class RefusedRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An active rule without effect on this host, and why."""

    kind: RuleKind
    app_instance_id: str
    rule_id: str
    reason: str


class DataPlaneStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One data plane. `appliedRevision` is the revision of the registry that its rules are those of, absent before the first
    time; `appliedSeconds` is when (Unix time). `error` is why the last attempt failed: the platform goes on trying."""

    name: str
    enforces: list[RuleKind]
    is_current: bool
    dns_rules: int
    traffic_rules: int
    refused_rules: list[RefusedRule]
    failures: int
    applied_revision: int | None = None
    applied_seconds: int | None = None
    error: str | None = None


class DataPlaneReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All data planes; rules of a kind in `notEnforced` are kept and have no effect on this host."""

    planes: list[DataPlaneStatus]
    not_enforced: list[RuleKind]


class DataPlaneAdministration:
    """Handlers over what `read` tells of the data planes."""

    def __init__(self, read: ReadStatuses) -> None:
        self._read = read

    def operations(self) -> list[Operation]:
        """The one resource."""
        return [
            Operation(
                method="GET",
                path="/admin/v1/data_plane",
                operation_id="getDataPlane",
                summary="Read which rules this host enforces, and which it cannot",
                tag="Administration",
                scope=Scope.ADMIN,
                handler=self.get,
                answers={HTTPStatus.OK: DataPlaneReport},
            )
        ]

    async def get(self, request: web.Request) -> web.Response:
        """GET how the data planes stand."""
        statuses = self._read()
        enforced = frozenset[RuleKind]().union(*(status.enforces for status in statuses))
        return json_response(
            DataPlaneReport(
                planes=[_of_status(status) for status in statuses],
                not_enforced=[kind for kind in RuleKind if kind not in enforced],
            )
        )


def _of_status(status: PlaneStatus) -> DataPlaneStatus:
    return DataPlaneStatus(
        name=status.name,
        enforces=sorted(status.enforces),
        is_current=status.is_current,
        dns_rules=status.count(RuleKind.DNS),
        traffic_rules=status.count(RuleKind.TRAFFIC),
        refused_rules=[
            RefusedRule(kind=each.kind, app_instance_id=each.app_instance_id, rule_id=each.rule_id, reason=each.reason)
            for each in status.refusals
        ],
        failures=status.failures,
        applied_revision=None if status.applied is None else status.applied.revision,
        applied_seconds=None if status.applied is None else status.applied_unix_ns // 10**9,
        error=status.error,
    )


class DataPlaneMetrics(Collector):
    """How the data planes stand, read at each scrape."""

    def __init__(self, read: ReadStatuses, collectors: CollectorRegistry) -> None:
        self._read = read
        collectors.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Called by prometheus_client at each scrape."""
        rules = GaugeMetricFamily("mec_data_plane_rules", "Active rules that it has", labels=["plane", "kind"])
        refused = GaugeMetricFamily(
            "mec_data_plane_refused_rules", "Active rules that it cannot enforce", labels=["plane"]
        )
        current = GaugeMetricFamily("mec_data_plane_current", "1 where nothing waits to be applied", labels=["plane"])
        revision = GaugeMetricFamily("mec_data_plane_applied_revision", "Registry's revision applied", labels=["plane"])
        failures = CounterMetricFamily(
            "mec_data_plane_failures", "Attempts to apply rules that failed", labels=["plane"]
        )
        for status in self._read():
            for kind in RuleKind:
                rules.add_metric([status.name, kind], status.count(kind))
            refused.add_metric([status.name], len(status.refusals))
            current.add_metric([status.name], float(status.is_current))
            revision.add_metric([status.name], 0 if status.applied is None else status.applied.revision)
            failures.add_metric([status.name], status.failures)
        return [rules, refused, current, revision, failures]
