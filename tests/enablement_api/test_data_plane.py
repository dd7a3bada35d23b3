"""From a rule that an application changes to the file that dnsmasq serves, and what operators see of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.data_plane.hosts_file import FILE_NAME, DnsmasqDataPlane
from mec_platform.data_plane.port import DataPlaneRules, Refusal, RuleKind
from mec_platform.data_plane.reconciler import PlaneStatus, Wanted
from mec_platform.domain.applications import AppDescription, OperationAction
from mec_platform.domain.rules import (
    DnsRule,
    FilterType,
    IpAddressType,
    RuleState,
    TrafficAction,
    TrafficFilter,
    TrafficRule,
)
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.rule_enforcement import enforce_rules
from tests.conformance.answers import AnswerChecker

APPS = "/mec_app_support/v2/applications"
DATA_PLANE = "/admin/v1/data_plane"


class Dnsmasq(DnsmasqDataPlane):
    """The adapter; tells a test when it was done."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._loop = asyncio.get_running_loop()
        self.done = asyncio.Queue[None]()

    def apply(self, rules: DataPlaneRules) -> tuple[Refusal, ...]:
        refusals = super().apply(rules)
        self._loop.call_soon_threadsafe(self.done.put_nowait, None)
        return refusals


@pytest.fixture
async def plane(host, app_id, tmp_path) -> AsyncIterator[Dnsmasq]:
    """Enforces the rules of the host's registry."""
    plane = Dnsmasq(tmp_path)
    host.reconciler = enforce_rules(host.registry, [plane])
    host.reconciler.start()
    yield plane
    await host.reconciler.stop()


@pytest.fixture
async def app_id(host) -> str:
    """An application instance with a DNS rule that is off, and a traffic rule that is on."""
    dns = DnsRule(
        rule_id="dns", domain_name="www.example.com", address_type=IpAddressType.IP_V4, ip_address="192.0.2.1"
    )
    traffic = TrafficRule(
        rule_id="traffic",
        filter_type=FilterType.FLOW,
        priority=1,
        filters=(TrafficFilter(),),
        action=TrafficAction.DROP,
        state=RuleState.ACTIVE,
    )
    app = await host.applications.register(AppDescription(name="a"), dns_rules=[dns], traffic_rules=[traffic])
    return app.app_instance_id


@pytest.fixture
async def client(host, plane) -> AsyncIterator[TestClient]:
    app = make_enablement_app(host, data_plane=lambda: host.reconciler.statuses)
    checker = AnswerChecker(app)
    async with TestClient(TestServer(app)) as client:
        yield client
    assert checker.complaints == []


async def hosts_after_next_change(plane: Dnsmasq, tmp_path: Path) -> list[str]:
    await plane.done.get()
    return (tmp_path / FILE_NAME).read_text().splitlines()[1:]


async def test_a_rule_is_served_once_it_is_active_and_no_more_when_its_application_ends(
    client, host, plane, app_id, tmp_path
):
    assert await hosts_after_next_change(plane, tmp_path) == []
    path = f"{APPS}/{app_id}/dns_rules/dns"
    rule = await (await client.get(path)).json()
    for change, expected in (
        ({"state": "ACTIVE"}, ["192.0.2.1 www.example.com"]),
        ({"state": "ACTIVE", "ipAddress": "192.0.2.2"}, ["192.0.2.2 www.example.com"]),
    ):
        assert (await client.put(path, json=rule | change)).status == 200
        assert await hosts_after_next_change(plane, tmp_path) == expected
    await host.applications.request_end(app_id, OperationAction.TERMINATING, 0)
    assert await hosts_after_next_change(plane, tmp_path) == []


async def test_a_platform_that_starts_again_applies_what_it_knows(host, plane, app_id, tmp_path):
    await plane.done.get()
    rule = host.applications.get(app_id).dns_rules[0]
    active = DnsRule(
        rule_id="dns",
        domain_name=rule.domain_name,
        address_type=rule.address_type,
        ip_address=rule.ip_address,
        state=RuleState.ACTIVE,
    )
    await host.applications.change_dns_rule(app_id, active)
    await plane.done.get()
    await host.reconciler.stop()
    (tmp_path / FILE_NAME).unlink()
    again = enforce_rules(host.registry, [plane])
    again.start()
    assert await hosts_after_next_change(plane, tmp_path) == ["192.0.2.1 www.example.com"]
    await again.stop()


STATUSES = (
    PlaneStatus(
        name="nftables",
        enforces=frozenset({RuleKind.TRAFFIC}),
        applied=Wanted(41, DataPlaneRules()),
        applied_unix_ns=1_700_000_000_999_999_999,
        is_current=True,
        refusals=(Refusal(RuleKind.TRAFFIC, "app-1", "traffic", "packets that nftables sees carry no token"),),
    ),
    PlaneStatus(name="away", enforces=frozenset(), error="start it", failures=3, failures_in_a_row=2),
)


async def test_operators_see_what_is_enforced_and_what_is_not(host):
    app = make_enablement_app(host, data_plane=lambda: STATUSES)
    checker = AnswerChecker(app)
    async with TestClient(TestServer(app)) as client:
        response = await client.get(DATA_PLANE)
        nothing = {"dnsRules": 0, "trafficRules": 0, "refusedRules": [], "failures": 0, "enforces": []}
        assert await response.json() == {
            "planes": [
                nothing
                | {
                    "name": "nftables",
                    "enforces": ["TRAFFIC"],
                    "isCurrent": True,
                    "refusedRules": [
                        {
                            "kind": "TRAFFIC",
                            "appInstanceId": "app-1",
                            "ruleId": "traffic",
                            "reason": "packets that nftables sees carry no token",
                        }
                    ],
                    "appliedRevision": 41,
                    "appliedSeconds": 1_700_000_000,
                },
                nothing | {"name": "away", "isCurrent": False, "failures": 3, "error": "start it"},
            ],
            "notEnforced": ["DNS"],
        }
        exposed = await (await client.get("/metrics")).text()
    for line in (
        'mec_data_plane_rules{kind="TRAFFIC",plane="nftables"} 0.0',
        'mec_data_plane_refused_rules{plane="nftables"} 1.0',
        'mec_data_plane_applied_revision{plane="nftables"} 41.0',
        'mec_data_plane_current{plane="away"} 0.0',
        'mec_data_plane_failures_total{plane="away"} 3.0',
    ):
        assert line in exposed
    assert checker.complaints == []
