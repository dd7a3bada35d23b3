"""Traffic rules in a real kernel: packets between network namespaces are dropped, forwarded and copied."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from mec_platform.data_plane.nftables import NftablesDataPlane
from mec_platform.data_plane.port import DataPlaneError, DataPlaneRules, active_rules
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
)
from tests.data_plane.namespaces import (
    CLIENT,
    CONTROL_PORT,
    HOST_MAC_TO_OTHER,
    OTHER,
    OTHER_MAC,
    PORT,
    SERVER,
    Net,
    udp_at,
)


@pytest.fixture
def plane(net: Net) -> Iterator[NftablesDataPlane]:
    plane = NftablesDataPlane(["to-client", "to-server"], ["ip", "netns", "exec", net.host])
    yield plane
    plane.apply(DataPlaneRules())


def to_ip(address: str) -> DestinationInterface:
    return DestinationInterface(type=InterfaceType.IP, destination_ip=address)


def wanted(*rules: TrafficRule) -> DataPlaneRules:
    locality = Locality(mec_host="h")
    return active_rules([AppInstance(app_instance_id="a", name="n", locality=locality, traffic_rules=rules)])


def traffic_rule(
    action: TrafficAction,
    *destinations: DestinationInterface,
    priority: int = 1,
    per: FilterType = FilterType.PACKET,
    **criteria: object,
) -> TrafficRule:
    criteria = {"destination_ports": (str(PORT),), "protocols": ("udp",)} | criteria
    return TrafficRule(
        rule_id=f"{action}-{priority}",
        filter_type=per,
        priority=priority,
        filters=(TrafficFilter(**criteria),),
        action=action,
        destinations=destinations,
        state=RuleState.ACTIVE,
    )


def test_drops_what_matches_until_the_rule_is_gone(net, plane):
    net.send("before")
    assert net.at_server() == "before"
    assert plane.apply(wanted(traffic_rule(TrafficAction.DROP, source_addresses=("10.9.1.0/24",)))) == ()
    net.send("dropped")
    assert net.at_server() == "nothing"
    plane.apply(DataPlaneRules())
    net.send("after")
    assert net.at_server() == "after"


def test_of_two_rules_that_match_the_one_with_the_lower_number_decides(net, plane):
    everything = traffic_rule(TrafficAction.DROP, priority=255, destination_ports=())
    passed = traffic_rule(
        TrafficAction.PASSTHROUGH, to_ip(SERVER), priority=0, destination_ports=(f"{PORT}-{CONTROL_PORT}",)
    )
    plane.apply(wanted(everything, passed))
    net.send("passes")
    assert net.at_server() == "passes"


@pytest.mark.parametrize(
    ("criteria", "tos", "arrives"),
    [
        ({"dscp": 46}, 46 << 2, "nothing"),
        ({"dscp": 46}, 0, "x"),
        ({"source_ports": ("4999-5001",)}, 0, "nothing"),
        ({"source_ports": ("5001-5009",)}, 0, "x"),
        ({"protocols": ("tcp",)}, 0, "x"),
        ({"source_addresses": ("10.9.1.3-10.9.1.9", "10.9.1.0-10.9.1.2")}, 0, "nothing"),
    ],
)
def test_filters_match_what_they_say(net, plane, criteria, tos, arrives):
    plane.apply(wanted(traffic_rule(TrafficAction.DROP, **criteria)))
    net.client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    net.send("x")
    net.client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0)
    assert net.at_server() == arrives


def test_the_traffic_class_of_ipv6_is_all_eight_bits(net, plane):
    name = net.host.replace("host", "{}")
    plane.apply(wanted(traffic_rule(TrafficAction.DROP, traffic_class=0xB9)))
    with (
        udp_at(name.format("client"), "fd09:1::2") as client,
        udp_at(name.format("server"), "fd09:2::2", PORT) as server,
    ):
        for traffic_class in (0xB9, 0xB8):
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
            client.sendto(f"{traffic_class:x}".encode(), ("fd09:2::2", PORT))
        assert server.recv(100) == b"b8"


def test_forwards_a_flow_to_another_host_and_translates_its_replies(net, plane):
    redirect = traffic_rule(TrafficAction.FORWARD_DECAPSULATED, to_ip(OTHER), per=FilterType.FLOW)
    plane.apply(wanted(redirect, traffic_rule(TrafficAction.DROP, priority=2)))
    net.send("hello")
    text, source = net.other.recvfrom(100)
    assert text == b"hello"
    net.other.sendto(b"reply", source)
    assert net.client.recvfrom(100) == (b"reply", (SERVER, PORT))
    assert net.at_server() == "nothing"


def test_forwards_packets_one_by_one_without_touching_the_way_back(net, plane):
    plane.apply(wanted(traffic_rule(TrafficAction.FORWARD_DECAPSULATED, to_ip(OTHER), per=FilterType.PACKET)))
    net.send("hello")
    text, source = net.other.recvfrom(100)
    assert text == b"hello"
    net.other.sendto(b"reply", source)
    assert net.client.recvfrom(100) == (b"reply", (OTHER, PORT))


def test_forwards_frames_out_of_the_interface_that_a_mac_address_names(net, plane):
    out = DestinationInterface(
        type=InterfaceType.MAC, source_mac=HOST_MAC_TO_OTHER.replace(":", "-"), destination_mac=OTHER_MAC
    )
    assert plane.apply(wanted(traffic_rule(TrafficAction.FORWARD_ENCAPSULATED, out))) == ()
    net.send("frame")
    frame = net.frame_at_other("frame")
    assert frame[:12] == bytes.fromhex(OTHER_MAC.replace(":", "") + HOST_MAC_TO_OTHER.replace(":", ""))
    assert frame[30:34] == socket.inet_aton(SERVER)
    assert net.at_server() == "nothing"


@pytest.mark.parametrize(
    "destination",
    [to_ip(OTHER), DestinationInterface(type=InterfaceType.MAC, source_mac=HOST_MAC_TO_OTHER)],
    ids=["IP", "MAC"],
)
def test_copies_packets_and_lets_the_original_pass(net, plane, destination):
    # Copies go to two interfaces; the second one here is the client's own, which pays them no attention.
    copied = traffic_rule(TrafficAction.DUPLICATE_DECAPSULATED, destination, to_ip(CLIENT))
    assert plane.apply(wanted(copied, traffic_rule(TrafficAction.DROP, priority=2))) == ()
    net.send("twice")
    assert net.at_server() == "twice"
    assert net.frame_at_other("twice")[30:34] == socket.inet_aton(SERVER)


@pytest.mark.parametrize("per", FilterType)
@pytest.mark.parametrize("action", [TrafficAction.FORWARD_DECAPSULATED, TrafficAction.DUPLICATE_DECAPSULATED])
def test_the_kernel_takes_ipv6_destinations_as_well(plane, action, per):
    destinations = [to_ip("fd09:3::2"), to_ip("fd09:1::2")][: action.interfaces]
    assert plane.apply(wanted(traffic_rule(action, *destinations, per=per, protocols=()))) == ()


def test_notices_that_somebody_flushed_all_tables(net, plane):
    plane.apply(wanted(traffic_rule(TrafficAction.DROP)))
    assert plane.is_intact()
    subprocess.run(["ip", "netns", "exec", net.host, "nft", "flush", "ruleset"], check=True)
    assert not plane.is_intact()
    plane.apply(DataPlaneRules())
    assert plane.is_intact()


def test_rules_that_the_kernel_refuses_leave_the_last_ones_in_force(net, plane):
    plane.apply(wanted(traffic_rule(TrafficAction.DROP)))
    nowhere = NftablesDataPlane(["eth0"], ["ip", "netns", "exec", f"{net.host}-nowhere"])
    with pytest.raises(
        DataPlaneError, match=r"nft refuses: .*; the platform must run as root or with the capability NET_ADMIN"
    ):
        nowhere.apply(wanted(traffic_rule(TrafficAction.PASSTHROUGH, to_ip(SERVER))))
    net.send("dropped")
    assert net.at_server() == "nothing"


def test_packets_that_arrive_elsewhere_are_not_looked_at(net, plane):
    elsewhere = NftablesDataPlane(["to-other"], ["ip", "netns", "exec", net.host])
    elsewhere.apply(wanted(traffic_rule(TrafficAction.DROP, destination_ports=(), protocols=())))
    net.send("passes")
    assert net.at_server() == "passes"


def test_a_host_without_nft_is_told_what_to_install():
    with pytest.raises(DataPlaneError, match="install the packages nftables and iproute2"):
        NftablesDataPlane(["eth0"], ["/nowhere/nft"]).apply(DataPlaneRules())
