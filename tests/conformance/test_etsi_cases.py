"""The cases of ETSI's own conformance tests (GS MEC-DEC 032-3: TRAF, DNS, TIME), as far as they ask for what MEC 011 says.

Requests look as theirs do: a foreign Authorization, Content-Type */* on a GET, an If-Match without quotes. What theirs ask
for beyond the standard is not done: a `dstInterface` in answers about rules that drop, a `ttl` in every DNS rule, and one
object as `dstInterface` where 2.2.1 has a list.
"""

from __future__ import annotations

from typing import Any

import pytest

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.rules import (
    DestinationInterface,
    DnsRule,
    FilterType,
    InterfaceType,
    IpAddressType,
    TrafficAction,
    TrafficFilter,
    TrafficRule,
)

ROOT = "/mec_app_support/v2"
TRAFFIC_RULE_ID = "01643118-5ff2-4f9f-9cc4-e6f8758857f6"
DNS_RULE_ID = "e0deee2b-6e50-4f33-ab09-8bf0585025d3"
HEADERS = {"Accept": "application/json", "Authorization": "Basic c29tZWJvZHk6c29tZXRoaW5n"}

# In the older shape, with placeholders, and with an interface that a rule that drops should not have.
TRAFFIC_UPDATE: dict[str, Any] = {
    "trafficRuleId": TRAFFIC_RULE_ID,
    "filterType": "FLOW",
    "priority": 1,
    "trafficFilter": [
        {"srcAddress": ["192.168.1.1"], "srcPort": ["8080"], "protocol": ["?"], "token": ["?"], "qCI": 1, "dSCP": 0}
        | {key: ["?"] for key in ("srcTunnelAddress", "tgtTunnelAddress", "srcTunnelPort", "dstTunnelPort")}
    ],
    "action": "DROP",
    "dstInterface": {"interfaceType": "TUNNEL", "tunnelInfo": {"tunnelType": "GTP_U", "tunnelDstAddress": "?"}},
    "state": "INACTIVE",
}
TRAFFIC_ERROR = {"trafficRuleId": TRAFFIC_RULE_ID, "state": "START"}
DNS_UPDATE = {
    "dnsRuleId": DNS_RULE_ID,
    "domainName": "www.example.com",
    "ipAddressType": "IP_V4",
    "ipAddress": "192.0.2.0",
    "ttl": 30,
    "state": "ACTIVE",
}
DNS_ERROR = {"dnsRuleId": DNS_RULE_ID, "domainName": "www.example.com", "status": 0}


@pytest.fixture
async def app_id(host) -> str:
    """An application instance with one rule of each kind."""
    dns = DnsRule(
        rule_id=DNS_RULE_ID, domain_name="a.example.com", address_type=IpAddressType.IP_V4, ip_address="192.0.2.1"
    )
    traffic = TrafficRule(
        rule_id=TRAFFIC_RULE_ID,
        filter_type=FilterType.PACKET,
        priority=0,
        filters=(TrafficFilter(),),
        action=TrafficAction.PASSTHROUGH,
        destinations=(DestinationInterface(type=InterfaceType.IP, destination_ip="192.0.2.9"),),
    )
    app = await host.applications.register(AppDescription(name="app"), dns_rules=[dns], traffic_rules=[traffic])
    return app.app_instance_id


@pytest.mark.parametrize(
    ("case", "path", "status"),
    [
        ("TRAF_001_OK", "applications/{app}/traffic_rules", 200),
        ("TRAF_001_NF", "applications/none/traffic_rules", 404),
        ("TRAF_002_OK", f"applications/{{app}}/traffic_rules/{TRAFFIC_RULE_ID}", 200),
        ("TRAF_002_NF", "applications/{app}/traffic_rules/none", 404),
        ("DNS_001_OK", "applications/{app}/dns_rules", 200),
        ("DNS_002_OK", f"applications/{{app}}/dns_rules/{DNS_RULE_ID}", 200),
        ("DNS_002_NF", "applications/{app}/dns_rules/none", 404),
        ("TIME_001_OK", "timing/timing_caps", 200),
        ("TIME_002_OK", "timing/current_time", 200),
    ],
)
async def test_etsi_reads(client, app_id, case, path, status):
    response = await client.get(f"{ROOT}/{path.format(app=app_id)}", headers=HEADERS | {"Content-Type": "*/*"})
    assert response.status == status, case
    # Theirs looks for a word that both media types have.
    assert response.content_type == ("application/json" if status == 200 else "application/problem+json")
    if case.endswith("002_OK") and case.startswith("TRAF"):
        assert (await response.json())["trafficRuleId"] == TRAFFIC_RULE_ID
    if case == "DNS_001_OK":
        assert [rule["dnsRuleId"] for rule in await response.json()] == [DNS_RULE_ID]


@pytest.mark.parametrize(
    ("case", "path", "body", "condition", "status"),
    [
        ("TRAF_003_OK", f"traffic_rules/{TRAFFIC_RULE_ID}", TRAFFIC_UPDATE, {}, 200),
        ("TRAF_003_BR", f"traffic_rules/{TRAFFIC_RULE_ID}", TRAFFIC_ERROR, {}, 400),
        ("TRAF_003_NF", "traffic_rules/none", TRAFFIC_UPDATE, {}, 404),
        ("TRAF_003_PF", f"traffic_rules/{TRAFFIC_RULE_ID}", TRAFFIC_UPDATE, {"If-Match": "INVALID_ETAG"}, 412),
        ("DNS_003_OK", f"dns_rules/{DNS_RULE_ID}", DNS_UPDATE, {}, 200),
        ("DNS_003_BR", f"dns_rules/{DNS_RULE_ID}", DNS_ERROR, {}, 400),
        ("DNS_003_NF", "dns_rules/none", DNS_UPDATE, {}, 404),
        ("DNS_003_PF", f"dns_rules/{DNS_RULE_ID}", DNS_UPDATE, {"If-Match": "INVALID_ETAG"}, 412),
    ],
)
async def test_etsi_changes(client, app_id, case, path, body, condition, status):
    response = await client.put(f"{ROOT}/applications/{app_id}/{path}", json=body, headers=HEADERS | condition)
    answer = await response.json()
    assert response.status == status, case
    if case == "TRAF_003_OK":
        assert (answer["trafficRuleId"], answer["action"]) == (TRAFFIC_RULE_ID, "DROP")
        assert "dstInterface" not in answer
    elif status == 200:
        assert answer == body
    else:
        assert (answer["status"], response.content_type) == (status, "application/problem+json")


async def test_conditions_come_before_content(client, app_id):
    path = f"{ROOT}/applications/{app_id}/traffic_rules/{TRAFFIC_RULE_ID}"
    response = await client.put(path, json=TRAFFIC_ERROR, headers={"If-Match": '"other"'})
    assert response.status == 412


async def test_a_list_of_interfaces_beside_drop_is_refused(client, app_id):
    path = f"{ROOT}/applications/{app_id}/traffic_rules/{TRAFFIC_RULE_ID}"
    response = await client.put(path, json=TRAFFIC_UPDATE | {"dstInterface": [TRAFFIC_UPDATE["dstInterface"]]})
    assert response.status == 400
