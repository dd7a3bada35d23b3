"""Messages of the life cycle API and their translation to domain values.

Not an ETSI API, since the platform has no packages and no virtual machines; where MEC 010-2 has a word for something
(`terminationType`, `changeStateTo`), that word is used. What an application is described by is as in Mp1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from mec_platform.domain.applications import AppInstance, AppState, OperationAction
from mec_platform.domain.credentials import Scope
from mec_platform.domain.rules import DnsRule, RuleState, TrafficRule
from mec_platform.enablement_api.app_support import rule_messages
from mec_platform.enablement_api.app_support.messages import AppInfo, RegisteredAppInfo, from_app
from mec_platform.enablement_api.app_support.rule_messages import DnsRuleMessage, TrafficRuleMessage
from mec_platform.enablement_api.endpoints import LocalityMessage, from_locality
from mec_platform.enablement_api.schema_rules import Rule, at_most_one_of

DEFAULT_GRACE_S = 60
LONGEST_GRACE_S = 24 * 3600
"""MEC 010-2 lets an operator wait for ever; here whoever wants that asks again."""

Identifier = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
GraceSeconds = Annotated[int, msgspec.Meta(ge=1, le=LONGEST_GRACE_S)]

MP1_SCOPES = frozenset({Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT})


class DnsRuleDescriptor(DnsRuleMessage, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A DNS rule as in Mp1; it waits for its application to activate it unless its state says otherwise."""

    state: RuleState = RuleState.INACTIVE


class TrafficRuleDescriptor(TrafficRuleMessage, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A traffic rule as in Mp1; it waits for its application to activate it unless its state says otherwise."""

    state: RuleState = RuleState.INACTIVE


class Place(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Where an instance runs: a host or a node of the platform's locality tree."""

    mec_host: str | None = None
    nfvi_node: str | None = None


class AppInstanceRequest(
    AppInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """An instance to be made: what it is described by, and what its descriptor gives it.

    It belongs to the client `clientId`; without one to a client of its own, whose id is the instance's and which may use
    what `scopes` names.
    """

    schema_rule: ClassVar[Rule] = at_most_one_of("clientId", "scopes")

    app_instance_id: Identifier | None = None
    client_id: str | None = None
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)] | None = None
    locality: Place | None = None
    dns_rules: list[DnsRuleDescriptor] = msgspec.field(default_factory=list)
    traffic_rules: list[TrafficRuleDescriptor] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.client_id is not None and self.scopes is not None:
            raise ValueError(
                "clientId names a client that has its scopes already; leave one of clientId and scopes out"
            )
        for name, ids in (
            ("dnsRules", [each.dns_rule_id for each in self.dns_rules]),
            ("trafficRules", [each.traffic_rule_id for each in self.traffic_rules]),
        ):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name} has two rules of one id")


class PendingEnd(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A graceful end under way: what the instance has been asked, and until when (Unix time) it may take."""

    operation_action: OperationAction
    max_graceful_timeout: int
    deadline_unix_s: int


class AppInstanceInfo(RegisteredAppInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An instance as operators see it. `clientId` is absent where it was registered without authentication."""

    operational_state: AppState
    locality: LocalityMessage
    services: int
    subscriptions: int
    dns_rules: list[DnsRuleMessage]
    traffic_rules: list[TrafficRuleMessage]
    client_id: str | None = None
    pending_end: PendingEnd | None = None


class InstanceCredentials(msgspec.Struct, frozen=True, rename="camel"):
    """What an instance asks for tokens with. The secret cannot be read again, only renewed."""

    client_id: str
    client_secret: str


class NewAppInstance(AppInstanceInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An instance as its making is answered; `credentials` are there where they were made with it."""

    credentials: InstanceCredentials | None = None


class EndType(StrEnum):
    """Whether an instance is asked and waited for. MEC 010-2 clauses 6.2.2.8 and 6.2.2.9."""

    GRACEFUL = "GRACEFUL"
    FORCEFUL = "FORCEFUL"


class TerminateAppInstance(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """MEC 010-2 clause 6.2.2.9. `gracefulTerminationTimeout` in seconds is for GRACEFUL; 60 where it is absent."""

    termination_type: EndType
    graceful_termination_timeout: GraceSeconds | None = None

    def __post_init__(self) -> None:
        _check_grace("gracefulTerminationTimeout", self.termination_type, self.graceful_termination_timeout)

    @property
    def grace_s(self) -> int:
        """How long the instance may take; 0 where it is not asked."""
        return _grace_s(self.termination_type, self.graceful_termination_timeout)


class OperationalGoal(StrEnum):
    """MEC 010-2 clause 6.2.2.8."""

    STARTED = "STARTED"
    STOPPED = "STOPPED"


class OperateAppInstance(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """MEC 010-2 clause 6.2.2.8. `stopType` and `gracefulStopTimeout` (seconds) are for STOPPED; forceful where absent."""

    change_state_to: OperationalGoal
    stop_type: EndType | None = None
    graceful_stop_timeout: GraceSeconds | None = None

    def __post_init__(self) -> None:
        if self.change_state_to is OperationalGoal.STARTED and (self.stop_type or self.graceful_stop_timeout):
            raise ValueError("stopType and gracefulStopTimeout are for changeStateTo STOPPED")
        _check_grace("gracefulStopTimeout", self.stop_type, self.graceful_stop_timeout)

    @property
    def grace_s(self) -> int:
        """How long the instance may take; 0 where it is not asked."""
        return _grace_s(self.stop_type, self.graceful_stop_timeout)


def _check_grace(name: str, end_type: EndType | None, grace_s: int | None) -> None:
    if grace_s is not None and end_type is not EndType.GRACEFUL:
        raise ValueError(f"{name} is for a GRACEFUL end")


def _grace_s(end_type: EndType | None, grace_s: int | None) -> int:
    return (grace_s or DEFAULT_GRACE_S) if end_type is EndType.GRACEFUL else 0


def to_rules(message: AppInstanceRequest) -> tuple[list[DnsRule], list[TrafficRule]]:
    """The domain's rules."""
    dns = [rule_messages.to_dns_rule(each) for each in message.dns_rules]
    return dns, [rule_messages.to_traffic_rule(each) for each in message.traffic_rules]


def from_instance(app: AppInstance, *, services: int, subscriptions: int) -> AppInstanceInfo:
    """An instance with how many services it offers and how many subscriptions it has."""
    pending = app.termination
    return AppInstanceInfo(
        **msgspec.structs.asdict(from_app(app)),
        operational_state=app.state,
        locality=from_locality(app.locality),
        services=services,
        subscriptions=subscriptions,
        dns_rules=[rule_messages.from_dns_rule(each) for each in app.dns_rules],
        traffic_rules=[rule_messages.from_traffic_rule(each) for each in app.traffic_rules],
        client_id=app.owner or None,
        pending_end=None
        if pending is None
        else PendingEnd(
            operation_action=pending.action,
            max_graceful_timeout=pending.max_graceful_timeout_s,
            deadline_unix_s=pending.deadline_unix_ns // 10**9,
        ),
    )
