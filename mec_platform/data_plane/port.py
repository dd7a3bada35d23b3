"""The port between the rules of application instances and whatever enforces them on this host.

An adapter is given the whole desired state each time and makes it so, so nothing depends on the order or the number of
changes, and a restart begins with applying everything. Adapters: `recording`, `dnsmasq`, `nftables`; `reconciler` drives them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.errors import MendableError
from mec_platform.domain.rules import DnsRule, RuleState, TrafficRule


class RuleKind(StrEnum):
    """What a data plane may be able to enforce."""

    DNS = "DNS"
    TRAFFIC = "TRAFFIC"


@dataclass(frozen=True, slots=True)
class OwnedDnsRule:
    """An active DNS rule and whose it is; its id alone is unique within its owner only."""

    app_instance_id: str
    rule: DnsRule


@dataclass(frozen=True, slots=True)
class OwnedTrafficRule:
    """An active traffic rule and whose it is."""

    app_instance_id: str
    rule: TrafficRule


@dataclass(frozen=True, slots=True)
class DataPlaneRules:
    """All that is to be enforced: active rules only. DNS rules are ordered by name, traffic rules by precedence."""

    dns: tuple[OwnedDnsRule, ...] = ()
    traffic: tuple[OwnedTrafficRule, ...] = ()

    def count(self, kind: RuleKind) -> int:
        """How many rules of a kind there are."""
        return len(self.dns if kind is RuleKind.DNS else self.traffic)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that this host cannot enforce, and why: all others are enforced."""

    kind: RuleKind
    app_instance_id: str
    rule_id: str
    reason: str


class DataPlaneError(MendableError):
    """The rules could not be applied, not even some of them. The message says what to do."""


class DataPlane(Protocol):
    """Enforces the rules of the kinds in `enforces`; `name` is what logs, metrics and the administration API call it."""

    @property
    def name(self) -> str:
        """Unique among the adapters of a platform."""

    @property
    def enforces(self) -> frozenset[RuleKind]:
        """Empty where rules are written down and nothing else."""

    def apply(self, rules: DataPlaneRules) -> tuple[Refusal, ...]:
        """Makes these the rules that are enforced, all at once, and none else of ours. Blocks: not for the event loop.

        Raises:
            DataPlaneError: what was applied last still holds.
        """

    def is_intact(self) -> bool:
        """Whether what was applied last is still there, as far as a quick look tells: others may have removed it. Blocks.

        Raises:
            DataPlaneError: it cannot be told.
        """


def active_rules(apps: Collection[AppInstance]) -> DataPlaneRules:
    """What is to be enforced for these application instances.

    Of two traffic rules with equal priority the one comes first whose owner's id, then whose own id, does: the standard
    leaves it open, and it must not depend on who changed a rule last.
    """
    dns = [
        OwnedDnsRule(app.app_instance_id, rule)
        for app in apps
        for rule in app.dns_rules
        if rule.state is RuleState.ACTIVE
    ]
    traffic = [
        OwnedTrafficRule(app.app_instance_id, rule)
        for app in apps
        for rule in app.traffic_rules
        if rule.state is RuleState.ACTIVE
    ]
    return DataPlaneRules(
        dns=tuple(sorted(dns, key=lambda each: (each.rule.domain_name, each.app_instance_id, each.rule.rule_id))),
        traffic=tuple(sorted(traffic, key=lambda each: (each.rule.priority, each.app_instance_id, each.rule.rule_id))),
    )
