"""DNS and traffic rules as JSON: what comes in goes out again, and what means nothing is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.rules import (
    FilterType,
    InterfaceType,
    IpAddressType,
    RuleState,
    TrafficAction,
    TunnelType,
)
from mec_platform.enablement_api.app_support.rule_messages import (
    DnsRuleMessage,
    TrafficRuleMessage,
    from_dns_rule,
    from_traffic_rule,
    to_dns_rule,
    to_traffic_rule,
)
from mec_platform.enablement_api.exchange import entity_tag

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


def optional(**attributes: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these attributes."""
    return st.fixed_dictionaries({}, optional=attributes)


texts = st.text(min_size=1, max_size=8)
addresses = st.ip_addresses().map(str)
ports = st.integers(0, 65535).map(str)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex("-").upper())
dns_rules = st.builds(
    lambda address, **others: (
        others | {"ipAddressType": IpAddressType(f"IP_V{address.version}"), "ipAddress": str(address)}
    ),
    address=st.ip_addresses(),
    dnsRuleId=texts,
    domainName=st.sampled_from(["a.example", "_mec._tcp.EXAMPLE.com", "xn--bcher-kva.example."]),
    state=st.sampled_from(RuleState),
).flatmap(lambda rule: st.just(rule) | st.integers(0, 2**31 - 1).map(lambda ttl: rule | {"ttl": ttl}))
filters = optional(
    **{name: st.lists(addresses, min_size=1, max_size=2) for name in ("srcAddress", "dstAddress")},
    **{name: st.lists(ports, min_size=1, max_size=2) for name in ("srcPort", "dstPort")},
    **{
        name: st.lists(texts, min_size=1, max_size=2)
        for name in ("protocol", "token", "srcTunnelAddress", "tgtTunnelAddress", "srcTunnelPort", "dstTunnelPort")
    },
    qCI=st.integers(0, 255),
    dSCP=st.integers(0, 63),
    tC=st.integers(0, 255),
)
tunnels = st.fixed_dictionaries(
    {"tunnelType": st.sampled_from(TunnelType)}, optional={"tunnelDstAddress": texts, "tunnelSrcAddress": texts}
)
interfaces = st.fixed_dictionaries(
    {"interfaceType": st.sampled_from(InterfaceType)},
    optional={"tunnelInfo": tunnels, "srcMacAddress": macs, "dstMacAddress": macs, "dstIpAddress": addresses},
)


@st.composite
def traffic_rules(draw: st.DrawFn) -> dict[str, Any]:
    action = draw(st.sampled_from(TrafficAction))
    wanted = action.interfaces
    rule = {
        "trafficRuleId": draw(texts),
        "filterType": draw(st.sampled_from(FilterType)),
        "priority": draw(st.integers(0, 255)),
        "trafficFilter": draw(st.lists(filters, min_size=1, max_size=2)),
        "action": action,
        "state": draw(st.sampled_from(RuleState)),
    }
    return rule | ({"dstInterface": draw(st.lists(interfaces, min_size=wanted, max_size=wanted))} if wanted else {})


@given(first=dns_rules, second=dns_rules)
@settings(derandomize=True, max_examples=60)
def test_every_dns_rule_comes_out_as_it_went_in_and_has_a_tag_of_its_own(first, second):
    messages = [msgspec.json.decode(msgspec.json.encode(body), type=DnsRuleMessage) for body in (first, second)]
    back = [from_dns_rule(to_dns_rule(message)) for message in messages]
    assert [msgspec.to_builtins(message) for message in back] == [first, second]
    assert (entity_tag(back[0]) == entity_tag(back[1])) is (first == second)


@given(first=traffic_rules(), second=traffic_rules())
@settings(derandomize=True, max_examples=60)
def test_every_traffic_rule_comes_out_as_it_went_in_and_has_a_tag_of_its_own(first, second):
    messages = [msgspec.json.decode(msgspec.json.encode(body), type=TrafficRuleMessage) for body in (first, second)]
    back = [from_traffic_rule(to_traffic_rule(message)) for message in messages]
    assert [msgspec.to_builtins(message) for message in back] == [first, second]
    assert (entity_tag(back[0]) == entity_tag(back[1])) is (first == second)
