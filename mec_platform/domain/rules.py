"""DNS and traffic rules of application instances (ETSI GS MEC 011 clauses 7.1.2.2 and 7.1.2.3), as frozen values.

They come from an application's descriptor; the application may change them later, never add or remove one. A rule that
could not mean anything cannot be made; whether this host can enforce a rule is the data plane's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mec_platform.domain.network_addresses import (
    parse_address,
    parse_address_range,
    parse_domain_name,
    parse_mac,
    parse_port_range,
)

LOWEST_PRIORITY = 255
LARGEST_DSCP = 63
LARGEST_TRAFFIC_CLASS = 255
LONGEST_TTL_S = 2**31 - 1
"""RFC 2181 clause 8."""


class RuleState(StrEnum):
    """Whether the data plane acts on a rule."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class IpAddressType(StrEnum):
    """How `DnsRule.ip_address` is written."""

    IP_V6 = "IP_V6"
    IP_V4 = "IP_V4"

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if self is IpAddressType.IP_V6 else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRule:
    """MEC 011 clause 7.1.2.3. `ttl_s` None: the answer does not expire.

    Raises:
        ValueError: no domain name, no address of the type, or no TTL that DNS has.
    """

    rule_id: str
    domain_name: str
    address_type: IpAddressType
    ip_address: str
    ttl_s: int | None = None
    state: RuleState = RuleState.INACTIVE

    def __post_init__(self) -> None:
        parse_domain_name(self.domain_name)
        if parse_address(self.ip_address).version != self.address_type.version:
            raise ValueError(f"{self.ip_address!r} is no address of type {self.address_type}")
        _check_range("ttl", self.ttl_s, LONGEST_TTL_S)


class FilterType(StrEnum):
    """Whether a traffic rule looks at single packets or at flows."""

    FLOW = "FLOW"
    PACKET = "PACKET"


class TrafficAction(StrEnum):
    """What happens to the traffic that a rule matches."""

    DROP = "DROP"
    FORWARD_DECAPSULATED = "FORWARD_DECAPSULATED"
    FORWARD_ENCAPSULATED = "FORWARD_ENCAPSULATED"
    PASSTHROUGH = "PASSTHROUGH"
    DUPLICATE_DECAPSULATED = "DUPLICATE_DECAPSULATED"
    DUPLICATE_ENCAPSULATED = "DUPLICATE_ENCAPSULATED"

    @property
    def interfaces(self) -> int:
        """How many destination interfaces a rule of this action names (clause 7.1.2.2, note)."""
        if self is TrafficAction.DROP:
            return 0
        return 2 if self.name.startswith("DUPLICATE") else 1


class InterfaceType(StrEnum):
    """MEC 011 clause 7.1.5.3."""

    TUNNEL = "TUNNEL"
    MAC = "MAC"
    IP = "IP"


class TunnelType(StrEnum):
    """MEC 011 clause 7.1.5.4."""

    GTP_U = "GTP_U"
    GRE = "GRE"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelInfo:
    """MEC 011 clause 7.1.5.4."""

    type: TunnelType
    destination_address: str | None = None
    source_address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationInterface:
    """MEC 011 clause 7.1.5.3. What the type says nothing about may be there and means nothing.

    Raises:
        ValueError: a MAC or IP address that is none.
    """

    type: InterfaceType
    tunnel: TunnelInfo | None = None
    source_mac: str | None = None
    destination_mac: str | None = None
    destination_ip: str | None = None

    def __post_init__(self) -> None:
        for mac in filter(None, (self.source_mac, self.destination_mac)):
            parse_mac(mac)
        if self.destination_ip is not None:
            parse_address(self.destination_ip)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficFilter:
    """MEC 011 clause 7.1.5.2: attributes AND, values of one attribute OR; an empty filter matches everything.

    `dscp` is looked at in IPv4 packets, `traffic_class` in IPv6 packets. How protocols, tokens and tunnels are written is
    left open by the standard, so any text is kept.

    Raises:
        ValueError: an address or a port that is none, a DSCP or traffic class beyond the header's field.
    """

    source_addresses: tuple[str, ...] = ()
    destination_addresses: tuple[str, ...] = ()
    source_ports: tuple[str, ...] = ()
    destination_ports: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    source_tunnel_addresses: tuple[str, ...] = ()
    target_tunnel_addresses: tuple[str, ...] = ()
    source_tunnel_ports: tuple[str, ...] = ()
    destination_tunnel_ports: tuple[str, ...] = ()
    qci: int | None = None
    dscp: int | None = None
    traffic_class: int | None = None

    def __post_init__(self) -> None:
        for address in (*self.source_addresses, *self.destination_addresses):
            parse_address_range(address)
        for port in (*self.source_ports, *self.destination_ports):
            parse_port_range(port)
        _check_range("dSCP", self.dscp, LARGEST_DSCP)
        _check_range("tC", self.traffic_class, LARGEST_TRAFFIC_CLASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRule:
    """MEC 011 clause 7.1.2.2. `priority` 0 is the highest, 255 the lowest.

    Raises:
        ValueError: no filter, a priority beyond 255, or a number of destination interfaces that does not suit the action.
    """

    rule_id: str
    filter_type: FilterType
    priority: int
    filters: tuple[TrafficFilter, ...]
    action: TrafficAction
    destinations: tuple[DestinationInterface, ...] = ()
    state: RuleState = RuleState.INACTIVE

    def __post_init__(self) -> None:
        _check_range("priority", self.priority, LOWEST_PRIORITY)
        if not self.filters:
            raise ValueError("trafficFilter must have at least one filter; an empty one {} matches all traffic")
        wanted, found = self.action.interfaces, len(self.destinations)
        if wanted != found:
            raise ValueError(f"a rule with action {self.action} names {wanted} destination interfaces, found {found}")


def _check_range(name: str, value: int | None, largest: int) -> None:
    if value is not None and not 0 <= value <= largest:
        raise ValueError(f"{name} must be from 0 to {largest}, found {value}")
