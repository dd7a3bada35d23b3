"""DNS and traffic rules as JSON: what comes in goes out again, and what means nothing is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mec_platform.enablement_api.app_support.rule_messages import (
    DnsRuleMessage,
    TrafficRuleMessage,
    from_dns_rule,
    from_traffic_rule,
    to_dns_rule,
    to_traffic_rule,
)

DNS_RULE = {
    "dnsRuleId": "dns-1",
    "domainName": "www.example.com",
    "ipAddressType": "IP_V4",
    "ipAddress": "192.0.2.1",
    "ttl": 300,
    "state": "ACTIVE",
}
TRAFFIC_RULE = {
    "trafficRuleId": "traffic-1",
    "filterType": "FLOW",
    "priority": 1,
    "trafficFilter": [
        {
            "srcAddress": ["192.0.2.0/24"],
            "dstAddress": ["198.51.100.1"],
            "srcPort": ["1000-2000"],
            "dstPort": ["80"],
            "protocol": ["TCP"],
            "token": ["t"],
            "srcTunnelAddress": ["192.0.2.9"],
            "tgtTunnelAddress": ["192.0.2.10"],
            "srcTunnelPort": ["2152"],
            "dstTunnelPort": ["2152"],
            "qCI": 1,
            "dSCP": 0,
            "tC": 1,
        }
    ],
    "action": "DUPLICATE_ENCAPSULATED",
    "dstInterface": [
        {
            "interfaceType": "TUNNEL",
            "tunnelInfo": {
                "tunnelType": "GTP_U",
                "tunnelDstAddress": "192.0.2.3",
                "tunnelSrcAddress": "192.0.2.4",
            },
        },
        {
            "interfaceType": "IP",
            "srcMacAddress": "02-00-00-00-00-00",
            "dstMacAddress": "02-00-00-00-00-01",
            "dstIpAddress": "192.0.2.5",
        },
    ],
    "state": "INACTIVE",
}


def traffic_rule(body: Any) -> Any:
    return msgspec.to_builtins(from_traffic_rule(to_traffic_rule(msgspec.convert(body, TrafficRuleMessage))))


def test_a_dns_rule_comes_out_as_it_went_in():
    assert msgspec.to_builtins(from_dns_rule(to_dns_rule(msgspec.convert(DNS_RULE, DnsRuleMessage)))) == DNS_RULE


def test_a_traffic_rule_comes_out_as_it_went_in():
    assert traffic_rule(TRAFFIC_RULE) == TRAFFIC_RULE


def test_a_single_destination_may_stand_without_a_list():
    interface = {"interfaceType": "IP", "dstIpAddress": "192.0.2.5"}
    body = TRAFFIC_RULE | {"action": "PASSTHROUGH", "dstInterface": interface}
    assert traffic_rule(body)["dstInterface"] == [interface]


def test_a_rule_that_drops_names_no_destination():
    body = {key: value for key, value in TRAFFIC_RULE.items() if key != "dstInterface"} | {"action": "DROP"}
    assert traffic_rule(body) == body
    with pytest.raises(msgspec.ValidationError, match="0 destination interfaces, found 2"):
        msgspec.convert(TRAFFIC_RULE | {"action": "DROP"}, TrafficRuleMessage)
