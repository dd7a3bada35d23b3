"""DNS and traffic rules of application instances (ETSI GS MEC 011 clauses 7.1.2.2 and 7.1.2.3), as frozen values.

They come from an application's descriptor; the application may change them later, never add or remove one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RuleState(StrEnum):
    """Whether the data plane acts on a rule."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class IpAddressType(StrEnum):
    """How `DnsRule.ip_address` is written."""

    IP_V6 = "IP_V6"
    IP_V4 = "IP_V4"


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRule:
    """MEC 011 clause 7.1.2.3. `ttl_s` None: the answer does not expire."""

    rule_id: str
    domain_name: str
    address_type: IpAddressType
    ip_address: str
    ttl_s: int | None = None
    state: RuleState = RuleState.INACTIVE


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
    """MEC 011 clause 7.1.5.3."""

    type: InterfaceType
    tunnel: TunnelInfo | None = None
    source_mac: str | None = None
    destination_mac: str | None = None
    destination_ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficFilter:
    """MEC 011 clause 7.1.5.2: attributes AND, values of one attribute OR; an empty filter matches everything."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRule:
    """MEC 011 clause 7.1.2.2. `priority` 0 is the highest, 255 the lowest.

    Raises:
        ValueError: the number of destination interfaces does not suit the action.
    """

    rule_id: str
    filter_type: FilterType
    priority: int
    filters: tuple[TrafficFilter, ...]
    action: TrafficAction
    destinations: tuple[DestinationInterface, ...] = ()
    state: RuleState = RuleState.INACTIVE

    def __post_init__(self) -> None:
        wanted, found = self.action.interfaces, len(self.destinations)
        if wanted != found:
            raise ValueError(f"a rule with action {self.action} names {wanted} destination interfaces, found {found}")
