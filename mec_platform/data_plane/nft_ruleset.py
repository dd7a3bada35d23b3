"""Traffic rules as a script for nftables that replaces all tables of ours in one transaction. Pure; `nftables` runs it.

The first rule that matches a packet decides alone what becomes of it, so every chain that acts on any rule goes through
all rules in their order, and lets a packet pass (`accept`) that belongs to a rule which another chain acts on. Chains, in
the order in which the kernel runs them, all before routing, so forwarded packets and those for this host are seen:

1. `netdev mec ingress`: FORWARD and DUPLICATE to a MAC address: out of the interface that has `srcMacAddress`.
2. `ip mec copy`, `ip6 mec copy`: DUPLICATE to an IP address: the copy goes there as the next hop, unchanged.
3. `inet mec decide`: DROP; FORWARD per PACKET to an IP address: a new destination, each packet by itself.
4. `inet mec translate`: FORWARD per FLOW to an IP address: destination NAT, so the way back is translated as well. A flow
   keeps the way that it began with: a change is for flows that begin later.

Only packets that arrive at the given interfaces are looked at: rules are about users' traffic, and what manages the host
must not depend on what applications wish. A packet's way through other tables of the host is not shortened: what the
operator's own firewall drops stays dropped.
`..._ENCAPSULATED` and `..._DECAPSULATED` are one here: packets are handed on as they arrive, and this host ends no tunnel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mec_platform.data_plane.nft_matches import NotEnforceable, compile_matches
from mec_platform.data_plane.port import DataPlaneRules, OwnedTrafficRule, Refusal, RuleKind
from mec_platform.domain.network_addresses import IpAddress, parse_address, parse_mac
from mec_platform.domain.rules import DestinationInterface, FilterType, InterfaceType, TrafficAction, TrafficRule

TABLES = ("netdev mec", "ip mec", "ip6 mec", "inet mec")

# Before connection tracking (-200), which packets that are rewritten one by one must not see; copies before that.
_COPY_PRIORITY = -310
_DECIDE_PRIORITY = -300
_TRANSLATE_PRIORITY = -100

_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
_DEVICE = re.compile(r"[A-Za-z0-9._-]{1,15}", re.ASCII)
_LONGEST_COMMENT_PART = 60


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface of this host."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class Ruleset:
    """A script for `nft -f`, the rules that are not in it, and the tables that there are afterwards."""

    script: str
    refusals: tuple[Refusal, ...]
    tables: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the chains do about one rule. `addresses` are next hops of copies, or the new destination, by IP version."""

    rule: TrafficRule
    comment: str
    addresses: dict[int, list[str]]
    out_devices: tuple[str, ...]
    new_macs: str

    @property
    def versions(self) -> tuple[int, ...]:
        """The packets that the rule is for: those that one of its destinations takes."""
        return (4, 6) if self.out_devices or not self.addresses else tuple(sorted(self.addresses))

    @property
    def is_copied(self) -> bool:
        return self.rule.action.interfaces == 2


def check_interface(name: str) -> str:
    """The name, if a network interface may have it and a script may hold it. Raises ValueError."""
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a network interface")
    return name


def compile_ruleset(rules: DataPlaneRules, interfaces: Sequence[str], links: Sequence[Link] = ()) -> Ruleset:
    """The whole script for these rules, for packets that arrive at `interfaces`; `links` are all that the host has.

    Without any rule it removes our tables; rules that cannot be enforced are left out and told.
    """
    plans: list[_Plan] = []
    refusals: list[Refusal] = []
    for owned in rules.traffic:
        try:
            plans.append(_plan(owned, links))
        except NotEnforceable as reason:
            refusals.append(Refusal(RuleKind.TRAFFIC, owned.app_instance_id, owned.rule.rule_id, str(reason)))
    ingress = f"filter hook ingress devices = {_set(interfaces)} priority 0"
    elsewhere = f"    meta iifname != {_set(interfaces)} accept\n"
    chains = {
        "netdev mec": [_chain("ingress", ingress, [_ingress(plan) for plan in plans])],
        "ip mec": [_chain("copy", _hook("filter", _COPY_PRIORITY), [_copy(plan, 4) for plan in plans], elsewhere)],
        "ip6 mec": [_chain("copy", _hook("filter", _COPY_PRIORITY), [_copy(plan, 6) for plan in plans], elsewhere)],
        "inet mec": [
            _chain("decide", _hook("filter", _DECIDE_PRIORITY), [_decide(plan) for plan in plans], elsewhere),
            _chain("translate", _hook("nat", _TRANSLATE_PRIORITY), [_translate(plan) for plan in plans], elsewhere),
        ],
    }
    # A table must exist to be deleted: adding one that is there already does nothing.
    script = "".join(f"add table {table}\ndelete table {table}\n" for table in TABLES)
    tables = {table: "".join(each) for table, each in chains.items() if any(each)}
    script += "".join(f"table {table} {{\n{each}}}\n" for table, each in tables.items())
    return Ruleset(script, tuple(refusals), frozenset(tables))


def _plan(owned: OwnedTrafficRule, links: Sequence[Link]) -> _Plan:
    rule = owned.rule
    addresses: dict[int, list[str]] = {}
    devices: list[str] = []
    new_macs = ""
    # Traffic that passes goes where it was going: the interface that such a rule names is not looked at.
    for destination in () if rule.action is TrafficAction.PASSTHROUGH else rule.destinations:
        match destination.type:
            case InterfaceType.TUNNEL:
                raise NotEnforceable("nftables opens no tunnels: let an interface of type IP or MAC be the destination")
            case InterfaceType.IP:
                address = _address_of(destination)
                addresses.setdefault(address.version, []).append(str(address))
            case InterfaceType.MAC:
                devices.append(_device_of(destination, links))
                new_macs = _new_macs(rule, destination)
    comment = "/".join(_UNSAFE.sub("_", part)[:_LONGEST_COMMENT_PART] for part in (owned.app_instance_id, rule.rule_id))
    plan = _Plan(rule, comment, addresses, tuple(dict.fromkeys(devices)), new_macs)
    if not compile_matches(rule, plan.versions):
        raise NotEnforceable("no packet can match: what it asks for, or its destination, is of different IP versions")
    return plan


def _address_of(destination: DestinationInterface) -> IpAddress:
    if destination.destination_ip is None:
        raise NotEnforceable("the destination interface of type IP has no dstIpAddress")
    return parse_address(destination.destination_ip)


def _device_of(destination: DestinationInterface, links: Sequence[Link]) -> str:
    if destination.source_mac is None:
        raise NotEnforceable(
            "the destination interface of type MAC has no srcMacAddress: it says which way out is meant"
        )
    mac = parse_mac(destination.source_mac)
    names = [link.name for link in links if link.mac == mac and _DEVICE.fullmatch(link.name)]
    if len(names) != 1:
        found = f"{', '.join(names)} have" if names else "no interface of this host has"
        raise NotEnforceable(f"{found} the MAC address {mac}: exactly one must")
    return names[0]


def _new_macs(rule: TrafficRule, destination: DestinationInterface) -> str:
    if destination.destination_mac is None:
        return ""
    if rule.action.interfaces == 2:
        raise NotEnforceable(
            "a copy keeps its MAC addresses: leave dstMacAddress out, and let the receiver take all frames"
        )
    source, target = parse_mac(destination.source_mac or ""), parse_mac(destination.destination_mac)
    return f"ether saddr set {source} ether daddr set {target} "


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of one rule in one chain; those that only let packets pass are not worth a chain."""

    acts: bool
    lines: list[str]


def _ingress(plan: _Plan) -> _Lines:
    matches = compile_matches(plan.rule, plan.versions)
    if not plan.out_devices:
        return _let_pass(plan, matches)
    # What comes back from the receiver must not be sent to it again.
    elsewhere = f"meta iifname != {_set(plan.out_devices)}"
    if plan.is_copied:
        action = " ".join(f"dup to {_quoted(device)}" for device in plan.out_devices) + " accept"
    else:
        action = f"{plan.new_macs}fwd to {_quoted(plan.out_devices[0])}"
    return _act(plan, [f"{elsewhere} {match}" for match in matches], action)


def _copy(plan: _Plan, version: int) -> _Lines:
    hops = plan.addresses.get(version, [])
    matches = compile_matches(plan.rule, [version]) if version in plan.versions else []
    if not (plan.is_copied and hops):
        return _let_pass(plan, matches)
    return _act(plan, matches, " ".join(f"dup to {hop}" for hop in hops) + " accept")


def _decide(plan: _Plan) -> _Lines:
    matches = compile_matches(plan.rule, plan.versions)
    if plan.rule.action is TrafficAction.DROP:
        return _act(plan, matches, "drop")
    if plan.is_copied or not plan.addresses or plan.rule.filter_type is FilterType.FLOW:
        return _let_pass(plan, matches)
    version, (address,) = next(iter(plan.addresses.items()))
    # Untracked: otherwise the connection's replies would be translated, and the next chain would look at it again.
    return _act(plan, matches, f"notrack {'ip' if version == 4 else 'ip6'} daddr set {address} accept")


def _translate(plan: _Plan) -> _Lines:
    matches = compile_matches(plan.rule, plan.versions)
    if plan.is_copied or not plan.addresses or plan.rule.filter_type is FilterType.PACKET:
        return _let_pass(plan, matches)
    version, (address,) = next(iter(plan.addresses.items()))
    there = compile_matches(plan.rule, plan.versions, both_ways=False)
    redirected = _act(plan, there, f"dnat {'ip' if version == 4 else 'ip6'} to {address}")
    return _Lines(True, redirected.lines + _let_pass(plan, [each for each in matches if each not in there]).lines)


def _act(plan: _Plan, matches: list[str], action: str) -> _Lines:
    return _Lines(True, [f'    {match} counter {action} comment "{plan.comment}"\n' for match in matches])


def _let_pass(plan: _Plan, matches: list[str]) -> _Lines:
    return _Lines(False, _act(plan, matches, "accept").lines)


def _chain(name: str, hook: str, rules: list[_Lines], before: str = "") -> str:
    """A base chain; empty where no rule acts in it. Rules after the last that acts would only let packets pass."""
    while rules and not rules[-1].acts:
        rules.pop()
    lines = "".join(line for rule in rules for line in rule.lines)
    return f"  chain {name} {{\n    type {hook}; policy accept;\n{before}{lines}  }}\n" if lines else ""


def _hook(kind: str, priority: int) -> str:
    return f"{kind} hook prerouting priority {priority}"


def _set(names: Iterable[str]) -> str:
    return f"{{ {', '.join(map(_quoted, names))} }}"


def _quoted(name: str) -> str:
    return f'"{name}"'
