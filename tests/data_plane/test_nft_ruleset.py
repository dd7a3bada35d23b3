"""Traffic rules as scripts for nftables: what is written, what is refused, and that no text of a rule gets into a script."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.data_plane.nft_matches import NotEnforceable, compile_matches
from mec_platform.data_plane.nft_ruleset import Link, compile_ruleset
from mec_platform.data_plane.port import DataPlaneRules, OwnedTrafficRule, active_rules
from mec_platform.domain.applications import AppInstance
from mec_platform.domain.locality import Locality
from mec_platform.domain.rules import (
    DestinationInterface,
    FilterType,
    InterfaceType,
    RuleState,
    TrafficAction,
    TrafficFilter,
    TrafficRule,
    TunnelInfo,
    TunnelType,
)

LINKS = (
    Link("lo", "00:00:00:00:00:00"),
    Link("eth0", "02:00:00:00:00:01"),
    Link("eth1", "02:00:00:00:00:02"),
    Link("eth2", "02:00:00:00:00:03"),
    Link("eth2.7", "02:00:00:00:00:03"),
)

USERS = ("eth0", "eth1")


def to_ip(address: str) -> DestinationInterface:
    return DestinationInterface(type=InterfaceType.IP, destination_ip=address)


def to_mac(source: str | None, destination: str | None = None) -> DestinationInterface:
    return DestinationInterface(type=InterfaceType.MAC, source_mac=source, destination_mac=destination)


def traffic_rule(
    action: TrafficAction,
    *destinations: DestinationInterface,
    filters: tuple[TrafficFilter, ...] = (TrafficFilter(destination_addresses=("203.0.113.7",)),),
    per: FilterType = FilterType.PACKET,
    priority: int = 1,
    rule_id: str = "r",
) -> TrafficRule:
    return TrafficRule(
        rule_id=rule_id,
        filter_type=per,
        priority=priority,
        filters=filters,
        action=action,
        destinations=destinations,
        state=RuleState.ACTIVE,
    )


def wanted(*rules: TrafficRule) -> DataPlaneRules:
    locality = Locality(mec_host="h")
    return active_rules([AppInstance(app_instance_id="a", name="n", locality=locality, traffic_rules=rules)])


def matches(**criteria: object) -> list[str]:
    return compile_matches(traffic_rule(TrafficAction.DROP, filters=(TrafficFilter(**criteria),)))


def refusal(*destinations: DestinationInterface, action: TrafficAction, **criteria: object) -> str:
    rule = traffic_rule(action, *destinations, filters=(TrafficFilter(**criteria),))
    (refused,) = compile_ruleset(wanted(rule), USERS, LINKS).refusals
    return refused.reason


def test_rules_take_precedence_by_priority_then_by_ids_whoever_changed_them_last():
    def app(name: str, *rules: TrafficRule) -> AppInstance:
        return AppInstance(app_instance_id=name, name="n", locality=Locality(mec_host="h"), traffic_rules=rules)

    drop = [
        traffic_rule(TrafficAction.DROP, rule_id=rule_id, priority=priority)
        for rule_id, priority in (("x", 255), ("y", 0), ("z", 7))
    ]
    apps = [app("b", *drop), app("a", drop[2])]
    expected = [("b", "y"), ("a", "z"), ("b", "z"), ("b", "x")]
    for order in (apps, apps[::-1]):
        assert [(each.app_instance_id, each.rule.rule_id) for each in active_rules(order).traffic] == expected


def test_without_rules_all_tables_of_ours_are_removed():
    script = compile_ruleset(DataPlaneRules(), USERS).script
    assert script.splitlines() == [
        line
        for family in ("netdev", "ip", "ip6", "inet")
        for line in (f"add table {family} mec", f"delete table {family} mec")
    ]


GOLDEN = """\
table netdev mec {
  chain ingress {
    type filter hook ingress devices = { "eth0", "eth1" } priority 0; policy accept;
    meta protocol ip ip daddr 203.0.113.1 counter accept comment "a/drop"
    meta protocol ip ip daddr 203.0.113.2 counter accept comment "a/pass"
    meta protocol ip ip daddr 203.0.113.3 counter accept comment "a/copy"
    meta protocol ip ip daddr 203.0.113.4 counter accept comment "a/rewrite"
    meta protocol ip ip daddr 203.0.113.5 counter accept comment "a/redirect"
    meta protocol ip ip saddr 203.0.113.5 counter accept comment "a/redirect"
    meta iifname != { "eth0" } meta protocol ip ip daddr 203.0.113.6 counter \
ether saddr set 02:00:00:00:00:01 ether daddr set 02:00:00:00:00:99 fwd to "eth0" comment "a/out"
    meta iifname != { "eth0", "eth1" } meta protocol ip ip daddr 203.0.113.7 counter \
dup to "eth0" dup to "eth1" accept comment "a/mirror"
  }
}
table ip mec {
  chain copy {
    type filter hook prerouting priority -310; policy accept;
    meta iifname != { "eth0", "eth1" } accept
    meta protocol ip ip daddr 203.0.113.1 counter accept comment "a/drop"
    meta protocol ip ip daddr 203.0.113.2 counter accept comment "a/pass"
    meta protocol ip ip daddr 203.0.113.3 counter dup to 192.0.2.1 dup to 192.0.2.2 accept comment "a/copy"
  }
}
table inet mec {
  chain decide {
    type filter hook prerouting priority -300; policy accept;
    meta iifname != { "eth0", "eth1" } accept
    meta protocol ip ip daddr 203.0.113.1 counter drop comment "a/drop"
    meta protocol ip ip daddr 203.0.113.2 counter accept comment "a/pass"
    meta protocol ip ip daddr 203.0.113.3 counter accept comment "a/copy"
    meta protocol ip ip daddr 203.0.113.4 counter notrack ip daddr set 192.0.2.3 accept comment "a/rewrite"
  }
  chain translate {
    type nat hook prerouting priority -100; policy accept;
    meta iifname != { "eth0", "eth1" } accept
    meta protocol ip ip daddr 203.0.113.1 counter accept comment "a/drop"
    meta protocol ip ip daddr 203.0.113.2 counter accept comment "a/pass"
    meta protocol ip ip daddr 203.0.113.3 counter accept comment "a/copy"
    meta protocol ip ip daddr 203.0.113.4 counter accept comment "a/rewrite"
    meta protocol ip ip daddr 203.0.113.5 counter dnat ip to 192.0.2.4 comment "a/redirect"
    meta protocol ip ip saddr 203.0.113.5 counter accept comment "a/redirect"
  }
}
"""


def test_each_chain_goes_through_all_rules_up_to_the_last_that_it_acts_on():
    to_address = [(TrafficFilter(destination_addresses=(f"203.0.113.{last}",)),) for last in range(8)]
    eth0, eth1 = "02-00-00-00-00-01", "02:00:00:00:00:02"
    redirected = traffic_rule(
        TrafficAction.FORWARD_DECAPSULATED,
        to_ip("192.0.2.4"),
        filters=to_address[5],
        per=FilterType.FLOW,
        priority=5,
        rule_id="redirect",
    )
    rules = wanted(
        traffic_rule(
            TrafficAction.DUPLICATE_ENCAPSULATED,
            to_mac(eth0),
            to_mac(eth1),
            filters=to_address[7],
            priority=7,
            rule_id="mirror",
        ),
        traffic_rule(
            TrafficAction.FORWARD_ENCAPSULATED,
            to_mac(eth0, "02:00:00:00:00:99"),
            filters=to_address[6],
            priority=6,
            rule_id="out",
        ),
        redirected,
        traffic_rule(
            TrafficAction.FORWARD_DECAPSULATED, to_ip("192.0.2.3"), filters=to_address[4], priority=4, rule_id="rewrite"
        ),
        traffic_rule(
            TrafficAction.DUPLICATE_DECAPSULATED,
            to_ip("192.0.2.1"),
            to_ip("192.0.2.2"),
            filters=to_address[3],
            priority=3,
            rule_id="copy",
        ),
        traffic_rule(TrafficAction.PASSTHROUGH, to_ip("192.0.2.9"), filters=to_address[2], priority=2, rule_id="pass"),
        traffic_rule(TrafficAction.DROP, filters=to_address[1], priority=0, rule_id="drop"),
    )
    ruleset = compile_ruleset(rules, USERS, LINKS)
    assert ruleset.refusals == ()
    assert ruleset.script.split("delete table inet mec\n")[1] == GOLDEN


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({}, ["meta protocol ip", "meta protocol ip6"]),
        (
            {"source_addresses": ("192.0.2.0/25", "192.0.2.128/255.255.255.128", "198.51.100.1-198.51.100.9")},
            ["meta protocol ip ip saddr { 192.0.2.0-192.0.2.255, 198.51.100.1-198.51.100.9 }"],
        ),
        (
            {"destination_addresses": ("2001:db8:1::/64-2001:db8:2::/64",)},
            ["meta protocol ip6 ip6 daddr 2001:db8:1::-2001:db8:2:0:ffff:ffff:ffff:ffff"],
        ),
        (
            {"source_addresses": ("192.0.2.1", "::1"), "destination_addresses": ("192.0.2.2",)},
            ["meta protocol ip ip saddr 192.0.2.1 ip daddr 192.0.2.2"],
        ),
        (
            {"destination_ports": ("80", "8000-8080", "8050-8100"), "source_addresses": ("192.0.2.1",)},
            ["meta protocol ip ip saddr 192.0.2.1 meta l4proto { 6, 17, 132, 136 } th dport { 80, 8000-8100 }"],
        ),
        (
            {"source_ports": ("53",), "protocols": ("UDP", "1"), "source_addresses": ("::/0",)},
            ["meta protocol ip6 ip6 saddr ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff meta l4proto 17 th sport 53"],
        ),
        ({"protocols": ("icmp", "47"), "dscp": 46}, ["meta protocol ip ip dscp 46 meta l4proto { 1, 47 }"]),
        ({"traffic_class": 184}, ["meta protocol ip6 @nh,4,8 184"]),
        ({"dscp": 0, "traffic_class": 1}, ["meta protocol ip ip dscp 0", "meta protocol ip6 @nh,4,8 1"]),
        ({"dscp": 0, "source_addresses": ("::1",)}, []),
    ],
)
def test_a_filter_becomes_one_expression_for_each_ip_version_that_it_can_match(criteria, expected):
    assert matches(**criteria) == expected


def test_a_rule_per_flow_matches_the_way_back_as_well():
    wanted_filter = TrafficFilter(source_addresses=("192.0.2.1",), destination_ports=("80",), protocols=("tcp",))
    rule = traffic_rule(TrafficAction.DROP, filters=(wanted_filter,), per=FilterType.FLOW)
    assert compile_matches(rule) == [
        "meta protocol ip ip saddr 192.0.2.1 meta l4proto 6 th dport 80",
        "meta protocol ip ip daddr 192.0.2.1 meta l4proto 6 th sport 80",
    ]


@pytest.mark.parametrize(
    ("criteria", "reason"),
    [
        ({"tokens": ("t",)}, "token"),
        ({"source_tunnel_addresses": ("192.0.2.1",)}, "GTP tunnels"),
        ({"destination_tunnel_ports": ("2152",)}, "GTP tunnels"),
        ({"qci": 9}, "QCI"),
        ({"protocols": ("?",)}, "'\\?' is no IP protocol"),
        ({"protocols": ("256",)}, "'256' is no IP protocol"),
        ({"protocols": ("icmp",), "source_ports": ("1",)}, "icmp has ports"),
    ],
)
def test_what_nftables_does_not_see_is_refused_with_the_reason(criteria, reason):
    with pytest.raises(NotEnforceable, match=reason):
        matches(**criteria)


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        (DestinationInterface(type=InterfaceType.TUNNEL, tunnel=TunnelInfo(type=TunnelType.GRE)), "opens no tunnels"),
        (DestinationInterface(type=InterfaceType.IP), "no dstIpAddress"),
        (to_mac(None), "no srcMacAddress"),
        (to_mac("02:00:00:00:00:77"), "no interface of this host has"),
        (to_mac("02:00:00:00:00:03"), "eth2, eth2.7 have"),
        (to_ip("2001:db8::1"), "different IP versions"),
    ],
)
def test_a_destination_that_nftables_cannot_reach_is_refused_with_the_reason(destination, reason):
    told = refusal(destination, action=TrafficAction.FORWARD_DECAPSULATED, source_addresses=("192.0.2.1",))
    assert reason in told


def test_a_copy_keeps_its_mac_addresses():
    both = to_mac("02:00:00:00:00:01", "02:00:00:00:00:99"), to_ip("192.0.2.1")
    assert "leave dstMacAddress out" in refusal(*both, action=TrafficAction.DUPLICATE_DECAPSULATED)


def test_a_rule_that_cannot_be_enforced_keeps_no_other_from_being_enforced():
    refused = traffic_rule(TrafficAction.DROP, filters=(TrafficFilter(qci=1),), rule_id="refused")
    ruleset = compile_ruleset(wanted(refused, traffic_rule(TrafficAction.DROP, rule_id="kept")), USERS, LINKS)
    assert [each.rule_id for each in ruleset.refusals] == ["refused"]
    assert 'comment "a/kept"' in ruleset.script
    assert "refused" not in ruleset.script


SAFE_LINE = re.compile(r'[a-z0-9 .,:{}=!@_"/A-Z;+-]*')


@given(
    texts=st.lists(st.text('a1.:-/ \n\r";{}#$\\\u2028é'), min_size=9, max_size=9),
    address=st.ip_addresses().map(str),
    name=st.text(max_size=20),
)
@settings(derandomize=True, max_examples=150)
def test_whatever_a_rule_says_no_line_break_and_no_statement_of_its_gets_into_a_script(texts, address, name):
    rule_id, owner, *values = texts
    try:
        criteria = TrafficFilter(
            source_addresses=(values[0] or address,), source_ports=(values[1] or "1",), protocols=(values[2] or "tcp",)
        )
        destination = DestinationInterface(
            type=InterfaceType.MAC, source_mac=values[3] or "02:00:00:00:00:01", destination_mac=values[4] or None
        )
        rule = traffic_rule(TrafficAction.FORWARD_DECAPSULATED, destination, filters=(criteria,), rule_id=rule_id)
    except ValueError:
        rule = traffic_rule(TrafficAction.FORWARD_DECAPSULATED, to_mac("02:00:00:00:00:01"), rule_id=rule_id)
    rules = DataPlaneRules(traffic=(OwnedTrafficRule(owner, rule),))
    ruleset = compile_ruleset(rules, USERS, [*LINKS, Link(name, "02:00:00:00:00:99")])
    lines = ruleset.script.split("\n")
    assert all(SAFE_LINE.fullmatch(line) for line in lines)
    rule_lines = [line for line in lines if "counter" in line]
    assert len(rule_lines) == (0 if ruleset.refusals else 1)
    assert all(line.count('"') == 6 and ";" not in line and "#" not in line for line in rule_lines)
