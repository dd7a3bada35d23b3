"""Traffic filters (ETSI GS MEC 011 clause 7.1.5.2) as match expressions of nftables. Pure; `nft_ruleset` adds what is done.

Nothing of a filter's text is written: every expression is made of parsed numbers and addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from mec_platform.domain.network_addresses import parse_address_range, parse_port_range
from mec_platform.domain.rules import FilterType, TrafficFilter, TrafficRule

# IANA protocol numbers that have names worth reading in a rule.
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
_WITH_PORTS = frozenset({6, 17, 132, 136})
_NUMBER = re.compile(r"[0-9]{1,3}", re.ASCII)
_FAMILIES = {4: "ip", 6: "ip6"}


class NotEnforceable(ValueError):
    """nftables cannot do what a rule wants; the message says what, and why."""


def compile_matches(rule: TrafficRule, versions: Iterable[int] = (4, 6), both_ways: bool = True) -> list[str]:
    """Expressions of which one matches a packet exactly if the rule does, for packets of these IP versions.

    A rule per FLOW matches the packets of the way back too (clause 7.1.2.2), unless `both_ways` is off because connection
    tracking sees to them.

    Raises:
        NotEnforceable: a filter looks at something that nftables does not see.
    """
    ways = (False, True) if both_ways and rule.filter_type is FilterType.FLOW else (False,)
    matches = [
        match
        for traffic_filter in rule.filters
        for version in versions
        for way_back in ways
        for match in _matches(traffic_filter, version, way_back)
    ]
    return list(dict.fromkeys(matches))


def _matches(wanted: TrafficFilter, version: int, way_back: bool) -> Iterator[str]:
    """At most one expression: none where no packet of this IP version can match."""
    _refuse_unseen(wanted)
    family = _FAMILIES[version]
    protocols = _protocols(wanted)
    sources, destinations = (
        _addresses(texts, version) for texts in (wanted.source_addresses, wanted.destination_addresses)
    )
    header_field = _header_field(wanted, version)
    if sources is None or destinations is None or header_field is None:
        return
    source, destination = ("daddr", "saddr") if way_back else ("saddr", "daddr")
    source_port, destination_port = ("dport", "sport") if way_back else ("sport", "dport")
    parts = [
        f"meta protocol {family}",
        _set(f"{family} {source}", sources),
        _set(f"{family} {destination}", destinations),
        header_field,
        _set("meta l4proto", [str(number) for number in protocols]),
        _set(f"th {source_port}", _ports(wanted.source_ports)),
        _set(f"th {destination_port}", _ports(wanted.destination_ports)),
    ]
    yield " ".join(filter(None, parts))


def _refuse_unseen(wanted: TrafficFilter) -> None:
    tunnel = (
        wanted.source_tunnel_addresses,
        wanted.target_tunnel_addresses,
        wanted.source_tunnel_ports,
        wanted.destination_tunnel_ports,
    )
    if any(tunnel):
        raise NotEnforceable("nftables does not look into GTP tunnels: leave the tunnel's addresses and ports out")
    if wanted.tokens:
        raise NotEnforceable("packets that nftables sees carry no token")
    if wanted.qci is not None:
        raise NotEnforceable("packets that nftables sees carry no QCI: it is known in the radio and core networks only")


def _protocols(wanted: TrafficFilter) -> list[int]:
    numbers = sorted({_protocol(text) for text in wanted.protocols})
    if wanted.source_ports or wanted.destination_ports:
        with_ports = [number for number in numbers or _WITH_PORTS if number in _WITH_PORTS]
        if not with_ports:
            raise NotEnforceable(f"none of the protocols {', '.join(wanted.protocols)} has ports")
        return sorted(with_ports)
    return numbers


def _protocol(text: str) -> int:
    name = text.strip().lower()
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if _NUMBER.fullmatch(name) and int(name) < 256:
        return int(name)
    raise NotEnforceable(
        f"{text!r} is no IP protocol that nftables is told of: a number below 256, or one of {', '.join(PROTOCOLS)}"
    )


def _addresses(texts: tuple[str, ...], version: int) -> list[str] | None:
    """The members of a set; empty where any address does; None where there are addresses, of the other version only."""
    ranges = [each for each in map(parse_address_range, texts) if each.version == version]
    if texts and not ranges:
        return None
    make = IPv4Address if version == 4 else IPv6Address
    intervals = _merge((int(each.first), int(each.last)) for each in ranges)
    return [_interval(str(make(first)), str(make(last))) for first, last in intervals]


def _ports(texts: tuple[str, ...]) -> list[str]:
    intervals = _merge((ports.start, ports.stop - 1) for ports in map(parse_port_range, texts))
    return [_interval(str(first), str(last)) for first, last in intervals]


def _merge(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers as sorted intervals apart: nftables takes no set in which intervals overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _interval(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last}"


def _header_field(wanted: TrafficFilter, version: int) -> str | None:
    """DSCP is asked of IPv4 packets and the traffic class of IPv6 packets (clause 7.1.5.2); None: no packet fits."""
    if wanted.dscp is None and wanted.traffic_class is None:
        return ""
    if version == 4:
        return None if wanted.dscp is None else f"ip dscp {wanted.dscp}"
    # nftables names the first six bits of the traffic class only; all eight begin four bits into the header.
    return None if wanted.traffic_class is None else f"@nh,4,8 {wanted.traffic_class}"


def _set(field: str, members: list[str]) -> str:
    """A set only where it must be one: each is an object of the kernel's, and thousands of them take it minutes."""
    if len(members) > 1:
        return f"{field} {{ {', '.join(members)} }}"
    return " ".join([field, *members]) if members else ""
