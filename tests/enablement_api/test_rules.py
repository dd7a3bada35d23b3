"""DNS and traffic rules over Mp1: read, replaced, and never by somebody who has not seen what is replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mec_platform.domain.applications import AppDescription, OperationAction
from mec_platform.domain.rules import (
    DestinationInterface,
    DnsRule,
    FilterType,
    InterfaceType,
    IpAddressType,
    RuleState,
    TrafficAction,
    TrafficFilter,
    TrafficRule,
)
from mec_platform.registry.effects import ApplyRules

APPS = "/mec_app_support/v2/applications"

DNS_RULE = {
    "dnsRuleId": "dns-1",
    "domainName": "www.example.com",
    "ipAddressType": "IP_V4",
    "ipAddress": "192.0.2.1",
    "ttl": 300,
    "state": "INACTIVE",
}
TRAFFIC_RULE = {
    "trafficRuleId": "traffic-1",
    "filterType": "FLOW",
    "priority": 1,
    "trafficFilter": [{"srcAddress": ["192.0.2.0/24"], "dstPort": ["80"], "protocol": ["TCP"], "dSCP": 0}],
    "action": "FORWARD_DECAPSULATED",
    "dstInterface": [{"interfaceType": "IP", "dstIpAddress": "192.0.2.9"}],
    "state": "INACTIVE",
}
ONE_INTERFACE = [{"interfaceType": "IP", "dstIpAddress": "192.0.2.9"}]


@pytest.fixture
async def app_id(host) -> str:
    """An application instance whose descriptor has two rules of each kind."""
    dns = [
        DnsRule(
            rule_id=f"dns-{number}",
            domain_name="www.example.com",
            address_type=IpAddressType.IP_V4,
            ip_address="192.0.2.1",
            ttl_s=300,
        )
        for number in (1, 2)
    ]
    traffic = [
        TrafficRule(
            rule_id=f"traffic-{number}",
            filter_type=FilterType.FLOW,
            priority=1,
            filters=(
                TrafficFilter(
                    source_addresses=("192.0.2.0/24",), destination_ports=("80",), protocols=("TCP",), dscp=0
                ),
            ),
            action=TrafficAction.FORWARD_DECAPSULATED,
            destinations=(DestinationInterface(type=InterfaceType.IP, destination_ip="192.0.2.9"),),
        )
        for number in (1, 2)
    ]
    app = await host.applications.register(AppDescription(name="greeter"), dns_rules=dns, traffic_rules=traffic)
    return app.app_instance_id


KINDS = pytest.mark.parametrize(
    ("collection", "rule_id", "rule"), [("dns_rules", "dns-1", DNS_RULE), ("traffic_rules", "traffic-1", TRAFFIC_RULE)]
)


@KINDS
async def test_lists_the_rules_in_the_descriptors_order(client, app_id, collection, rule_id, rule):
    response = await client.get(f"{APPS}/{app_id}/{collection}")
    first, second = await response.json()
    assert (response.status, first) == (200, rule)
    assert [value for key, value in second.items() if key.endswith("RuleId")] == [rule_id[:-1] + "2"]


@KINDS
async def test_an_application_without_rules_has_an_empty_list(client, host, collection, rule_id, rule):
    app = await host.applications.register(AppDescription(name="plain"))
    response = await client.get(f"{APPS}/{app.app_instance_id}/{collection}")
    assert (response.status, await response.json()) == (200, [])


@KINDS
async def test_reads_a_rule_with_an_etag_that_stands_for_its_content(client, app_id, collection, rule_id, rule):
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    response = await client.get(path)
    assert (response.status, await response.json()) == (200, rule)
    tag = response.headers["ETag"]
    assert tag.startswith('"')
    unchanged = await client.put(path, json=rule)
    assert unchanged.headers["ETag"] == tag
    changed = await client.put(path, json=rule | {"state": "ACTIVE"})
    assert changed.headers["ETag"] != tag
    assert (await client.get(path)).headers["ETag"] == changed.headers["ETag"]
    back = await client.put(path, json=rule)
    assert back.headers["ETag"] == tag


@KINDS
async def test_replaces_a_rule_and_tells_the_data_plane(client, host, app_id, collection, rule_id, rule):
    effects: list[Any] = []
    host.registry.add_listener(effects.append)
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    tag = (await client.get(path)).headers["ETag"]
    changed = rule | {"state": "ACTIVE"}
    response = await client.put(path, json=changed, headers={"If-Match": tag})
    assert (response.status, await response.json()) == (200, changed)
    assert await (await client.get(path)).json() == changed
    assert effects == [ApplyRules(app_id)]


@KINDS
@pytest.mark.parametrize("condition", ['"other"', "INVALID_ETAG", '"a", "b"', 'W/"other"', ""])
async def test_refuses_a_change_of_another_version_than_the_client_has_seen(
    client, app_id, collection, rule_id, rule, condition
):
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    response = await client.put(path, json=rule | {"state": "ACTIVE"}, headers={"If-Match": condition})
    assert (response.status, response.content_type) == (412, "application/problem+json")
    assert await (await client.get(path)).json() == rule


@KINDS
async def test_of_two_changes_of_the_same_version_exactly_one_wins(client, app_id, collection, rule_id, rule):
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    ours, theirs = ("ttl", "ttl") if collection == "dns_rules" else ("priority", "priority")
    bodies = [rule | {ours: 7}, rule | {theirs: 9}]
    for _ in range(5):
        tag = (await client.get(path)).headers["ETag"]
        answers = await asyncio.gather(*(client.put(path, json=body, headers={"If-Match": tag}) for body in bodies))
        assert sorted(answer.status for answer in answers) == [200, 412]
        (winner,) = [body for body, answer in zip(bodies, answers, strict=True) if answer.status == 200]
        assert await (await client.get(path)).json() == winner
        bodies = [body | {ours: body[ours] + 10} for body in bodies]


@KINDS
async def test_any_existing_version_is_meant_by_a_star(client, app_id, collection, rule_id, rule):
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    assert (await client.put(path, json=rule, headers={"If-Match": "*"})).status == 200


@KINDS
async def test_unknown_rules_and_applications_are_not_found(client, app_id, collection, rule_id, rule):
    for path in (f"{APPS}/{app_id}/{collection}/none", f"{APPS}/none/{collection}/{rule_id}"):
        # The body is another rule's: that nothing is there comes first.
        for response in (await client.get(path), await client.put(path, json=rule, headers={"If-Match": "*"})):
            assert (response.status, response.content_type) == (404, "application/problem+json")
    assert (await client.get(f"{APPS}/none/{collection}")).status == 404


@KINDS
async def test_a_rule_keeps_its_id(client, app_id, collection, rule_id, rule):
    (id_name,) = [key for key in rule if key.endswith("RuleId")]
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    response = await client.put(path, json=rule | {id_name: rule_id[:-1] + "2"})
    assert response.status == 400
    assert id_name in (await response.json())["detail"]
    stale = await client.put(path, json=rule | {id_name: "other"}, headers={"If-Match": '"other"'})
    assert stale.status == 412


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ipAddressType": "IP_V6"}, "no address of type IP_V6"),
        ({"ipAddressType": "IP"}, "ipAddressType"),
        ({"ipAddress": "192.0.2.1\n127.0.0.1 evil"}, "no IP address"),
        ({"domainName": "a b"}, "no domain name"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": "300"}, "ttl"),
        ({"state": "START"}, "state"),
        ({"state": None}, "state"),
        ({"domainName": None}, "domainName"),
    ],
)
async def test_a_dns_rule_that_means_nothing_is_refused(client, app_id, change, said):
    response = await client.put(f"{APPS}/{app_id}/dns_rules/dns-1", json=DNS_RULE | change)
    assert response.status == 400
    assert said in (await response.json())["detail"]


@pytest.mark.parametrize("missing", ["dnsRuleId", "domainName", "ipAddressType", "ipAddress", "state"])
async def test_a_dns_rule_must_be_complete(client, app_id, missing):
    body = {key: value for key, value in DNS_RULE.items() if key != missing}
    response = await client.put(f"{APPS}/{app_id}/dns_rules/dns-1", json=body)
    assert response.status == 400
    assert missing in (await response.json())["detail"]


async def test_a_dns_rule_without_ttl_does_not_expire(client, app_id):
    body = {key: value for key, value in DNS_RULE.items() if key != "ttl"}
    response = await client.put(f"{APPS}/{app_id}/dns_rules/dns-1", json=body)
    assert await response.json() == body


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"priority": -1}, "priority"),
        ({"priority": 256}, "priority"),
        ({"action": "DROP"}, "names 0 destination interfaces, found 1"),
        ({"dstInterface": []}, "names 1 destination interfaces, found 0"),
        ({"action": "PASSTHROUGH", "dstInterface": ONE_INTERFACE * 2}, "names 1 destination interfaces, found 2"),
        ({"action": "DUPLICATE_DECAPSULATED"}, "names 2 destination interfaces, found 1"),
        ({"trafficFilter": []}, "trafficFilter"),
        ({"trafficFilter": [{"dSCP": 64}]}, "<= 63"),
        ({"trafficFilter": [{"tC": 256}]}, "<= 255"),
        ({"trafficFilter": [{"srcAddress": ["192.0.2.9-192.0.2.1"]}]}, "ends before it begins"),
        ({"trafficFilter": [{"dstPort": ["80;drop"]}]}, "neither a port nor a range"),
        ({"dstInterface": [{"interfaceType": "MAC", "srcMacAddress": "02:00"}]}, "no MAC address"),
        ({"dstInterface": [{"interfaceType": "IP", "dstIpAddress": "host"}]}, "no IP address"),
        ({"dstInterface": [{"interfaceType": "TUNNEL", "tunnelInfo": {}}]}, "tunnelType"),
        ({"filterType": "BOTH"}, "filterType"),
        ({"action": "LOSE"}, "action"),
        ({"state": "START"}, "state"),
    ],
)
async def test_a_traffic_rule_that_means_nothing_is_refused(client, app_id, change, said):
    response = await client.put(f"{APPS}/{app_id}/traffic_rules/traffic-1", json=TRAFFIC_RULE | change)
    assert response.status == 400
    assert said in (await response.json())["detail"]


@pytest.mark.parametrize(
    ("action", "interfaces"),
    [("DROP", 0), ("PASSTHROUGH", 1), ("FORWARD_ENCAPSULATED", 1), ("DUPLICATE_ENCAPSULATED", 2)],
)
async def test_a_traffic_rule_names_as_many_interfaces_as_its_action_takes(client, app_id, action, interfaces):
    body = TRAFFIC_RULE | {"action": action, "dstInterface": ONE_INTERFACE * interfaces}
    response = await client.put(f"{APPS}/{app_id}/traffic_rules/traffic-1", json=body)
    assert response.status == 200
    assert (await response.json()).get("dstInterface", []) == ONE_INTERFACE * interfaces


async def test_the_single_destination_of_the_older_version_is_answered_as_a_list(client, app_id):
    body = TRAFFIC_RULE | {"dstInterface": ONE_INTERFACE[0]}
    response = await client.put(f"{APPS}/{app_id}/traffic_rules/traffic-1", json=body)
    assert (await response.json())["dstInterface"] == ONE_INTERFACE


@KINDS
async def test_an_application_that_has_ended_changes_no_rules(client, host, app_id, collection, rule_id, rule):
    await host.applications.request_end(app_id, OperationAction.STOPPING, 0)
    path = f"{APPS}/{app_id}/{collection}/{rule_id}"
    assert (await client.put(path, json=rule | {"state": "ACTIVE"})).status == 409
    assert (await (await client.get(path)).json())["state"] == RuleState.INACTIVE
