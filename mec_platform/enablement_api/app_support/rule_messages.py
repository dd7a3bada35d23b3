"""Messages of DNS and traffic rules (ETSI GS MEC 011 clauses 7.1.2.2, 7.1.2.3 and 7.1.5) and their translation to domain
values, whose own checks run while a message is decoded."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from mec_platform.domain.rules import (
    LARGEST_DSCP,
    LARGEST_TRAFFIC_CLASS,
    LONGEST_TTL_S,
    LOWEST_PRIORITY,
    DestinationInterface,
    DnsRule,
    FilterType,
    InterfaceType,
    IpAddressType,
    RuleState,
    TrafficAction,
    TrafficFilter,
    TrafficRule,
    TunnelInfo,
    TunnelType,
)
from mec_platform.enablement_api.endpoints import NonEmpty
from mec_platform.enablement_api.schema_rules import Rule

# Said in the document only: the domain checks them, and says better what is wrong.
_DomainName = Annotated[
    str, msgspec.Meta(min_length=1, extra_json_schema={"pattern": r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$"})
]
_Ports = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"^\s*[0-9]{1,5}\s*(-\s*[0-9]{1,5}\s*)?$"})]
# No pattern: in an interface beside DROP, which is not read, it may be anything.
_Mac = Annotated[str, msgspec.Meta(description="As in 02:00:5e:10:00:01.")]


def _destinations(count: int) -> Rule:
    """Actions that take so many interfaces, with as many; a single one needs no list."""
    actions = [action.value for action in TrafficAction if action.interfaces == count]
    interfaces = {"minItems": count, "maxItems": count} | ({"type": "array"} if count > 1 else {})
    required = {"required": ["dstInterface"]} if count else {}
    return {"properties": {"action": {"enum": actions}, "dstInterface": interfaces}} | required


class DnsRuleMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """DnsRule, clause 7.1.2.3."""

    schema_rule: ClassVar[Rule] = {
        "oneOf": [
            {"properties": {"ipAddressType": {"const": "IP_V4"}, "ipAddress": {"format": "ipv4"}}},
            {"properties": {"ipAddressType": {"const": "IP_V6"}, "ipAddress": {"format": "ipv6"}}},
        ]
    }

    dns_rule_id: NonEmpty
    domain_name: _DomainName
    ip_address_type: IpAddressType
    ip_address: NonEmpty
    ttl: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_TTL_S)] | None = None
    state: RuleState

    def __post_init__(self) -> None:
        to_dns_rule(self)


class TunnelInfoMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """TunnelInfo, clause 7.1.5.4."""

    tunnel_type: TunnelType
    tunnel_dst_address: str | None = None
    tunnel_src_address: str | None = None


class DestinationInterfaceMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """DestinationInterface, clause 7.1.5.3."""

    interface_type: InterfaceType
    tunnel_info: TunnelInfoMessage | None = None
    src_mac_address: _Mac | None = None
    dst_mac_address: _Mac | None = None
    dst_ip_address: str | None = None


class TrafficFilterMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """TrafficFilter, clause 7.1.5.2."""

    src_address: list[str] = []
    dst_address: list[str] = []
    src_port: list[_Ports] = []
    dst_port: list[_Ports] = []
    protocol: list[str] = []
    token: list[str] = []
    src_tunnel_address: list[str] = []
    tgt_tunnel_address: list[str] = []
    src_tunnel_port: list[str] = []
    dst_tunnel_port: list[str] = []
    qci: int | None = msgspec.field(default=None, name="qCI")
    dscp: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_DSCP)] | None = msgspec.field(default=None, name="dSCP")
    traffic_class: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_TRAFFIC_CLASS)] | None = msgspec.field(
        default=None, name="tC"
    )


class TrafficRuleMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """TrafficRule, clause 7.1.2.2. `dstInterface` is a list since 2.2.1; a single one, as in 2.1.1, is read too.

    A single one beside DROP is not read, although there should be none: the standard's own tests send it.
    """

    schema_rule: ClassVar[Rule] = {"oneOf": [_destinations(count) for count in (0, 1, 2)]}

    traffic_rule_id: NonEmpty
    filter_type: FilterType
    priority: Annotated[int, msgspec.Meta(ge=0, le=LOWEST_PRIORITY)]
    traffic_filter: Annotated[list[TrafficFilterMessage], msgspec.Meta(min_length=1)]
    action: TrafficAction
    dst_interface: list[DestinationInterfaceMessage] | DestinationInterfaceMessage = []
    state: RuleState

    def __post_init__(self) -> None:
        to_traffic_rule(self)


def to_dns_rule(message: DnsRuleMessage) -> DnsRule:
    """The domain's rule. Raises ValueError where it could not mean anything."""
    return DnsRule(
        rule_id=message.dns_rule_id,
        domain_name=message.domain_name,
        address_type=message.ip_address_type,
        ip_address=message.ip_address,
        ttl_s=message.ttl,
        state=message.state,
    )


def from_dns_rule(rule: DnsRule) -> DnsRuleMessage:
    """The opposite of `to_dns_rule`."""
    return DnsRuleMessage(
        dns_rule_id=rule.rule_id,
        domain_name=rule.domain_name,
        ip_address_type=rule.address_type,
        ip_address=rule.ip_address,
        ttl=rule.ttl_s,
        state=rule.state,
    )


def to_traffic_rule(message: TrafficRuleMessage) -> TrafficRule:
    """The domain's rule. Raises ValueError where it could not mean anything."""
    destinations = message.dst_interface
    if isinstance(destinations, DestinationInterfaceMessage):
        destinations = [] if message.action is TrafficAction.DROP else [destinations]
    return TrafficRule(
        rule_id=message.traffic_rule_id,
        filter_type=message.filter_type,
        priority=message.priority,
        filters=tuple(_to_filter(each) for each in message.traffic_filter),
        action=message.action,
        destinations=tuple(_to_interface(each) for each in destinations),
        state=message.state,
    )


def from_traffic_rule(rule: TrafficRule) -> TrafficRuleMessage:
    """The opposite of `to_traffic_rule`."""
    return TrafficRuleMessage(
        traffic_rule_id=rule.rule_id,
        filter_type=rule.filter_type,
        priority=rule.priority,
        traffic_filter=[_from_filter(each) for each in rule.filters],
        action=rule.action,
        dst_interface=[_from_interface(each) for each in rule.destinations],
        state=rule.state,
    )


_FILTER_ATTRIBUTES = {
    "src_address": "source_addresses",
    "dst_address": "destination_addresses",
    "src_port": "source_ports",
    "dst_port": "destination_ports",
    "protocol": "protocols",
    "token": "tokens",
    "src_tunnel_address": "source_tunnel_addresses",
    "tgt_tunnel_address": "target_tunnel_addresses",
    "src_tunnel_port": "source_tunnel_ports",
    "dst_tunnel_port": "destination_tunnel_ports",
}


def _to_filter(message: TrafficFilterMessage) -> TrafficFilter:
    lists = {theirs: tuple(getattr(message, ours)) for ours, theirs in _FILTER_ATTRIBUTES.items()}
    return TrafficFilter(**lists, qci=message.qci, dscp=message.dscp, traffic_class=message.traffic_class)


def _from_filter(value: TrafficFilter) -> TrafficFilterMessage:
    lists = {ours: list(getattr(value, theirs)) for ours, theirs in _FILTER_ATTRIBUTES.items()}
    return TrafficFilterMessage(**lists, qci=value.qci, dscp=value.dscp, traffic_class=value.traffic_class)


def _to_interface(message: DestinationInterfaceMessage) -> DestinationInterface:
    tunnel = message.tunnel_info
    return DestinationInterface(
        type=message.interface_type,
        tunnel=None
        if tunnel is None
        else TunnelInfo(
            type=tunnel.tunnel_type,
            destination_address=tunnel.tunnel_dst_address,
            source_address=tunnel.tunnel_src_address,
        ),
        source_mac=message.src_mac_address,
        destination_mac=message.dst_mac_address,
        destination_ip=message.dst_ip_address,
    )


def _from_interface(value: DestinationInterface) -> DestinationInterfaceMessage:
    tunnel = value.tunnel
    return DestinationInterfaceMessage(
        interface_type=value.type,
        tunnel_info=None
        if tunnel is None
        else TunnelInfoMessage(
            tunnel_type=tunnel.type,
            tunnel_dst_address=tunnel.destination_address,
            tunnel_src_address=tunnel.source_address,
        ),
        src_mac_address=value.source_mac,
        dst_mac_address=value.destination_mac,
        dst_ip_address=value.destination_ip,
    )
