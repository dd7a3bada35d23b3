"""What the registry's shells have to do about what happened; `transitions` names it, listeners of `registry` do it."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import ChangeType


@dataclass(frozen=True, slots=True)
class AnnounceService:
    """Tell whoever listens; `service` is as it is after the change, or as it was last where it was REMOVED.

    All changes of one event have its revision.
    """

    change: ChangeType
    service: ServiceInfo
    revision: int


@dataclass(frozen=True, slots=True)
class HistoryBegins:
    """The state was taken over as a whole, as it was at this revision: what had led there is not told one by one."""

    revision: int


@dataclass(frozen=True, slots=True)
class ExpectHeartbeats:
    """From now on the service must be heard of at this interval; once it is suspended it goes after so many more, or with
    0 never."""

    service_id: str
    interval_s: int
    evict_after_intervals: int = 0


@dataclass(frozen=True, slots=True)
class ForgetHeartbeats:
    """Heartbeats of this service do not matter any more."""

    service_id: str


@dataclass(frozen=True, slots=True)
class DeliverNotifications:
    """Something waits in the outbox of this subscription."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class EndSubscription:
    """This subscription and its outbox are gone: deliver nothing more."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class AwaitExpiry:
    """At this time the subscription's end is to be announced, or it is to end."""

    subscription_id: str
    at_unix_ns: int


@dataclass(frozen=True, slots=True)
class ForgetExpiry:
    """The end of this subscription is awaited no more."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class ApplyRules:
    """The rules of this application instance, or whether they count, changed."""

    app_instance_id: str


@dataclass(frozen=True, slots=True)
class AwaitTermination:
    """End this application instance at the deadline, unless it confirms before."""

    app_instance_id: str
    deadline_unix_ns: int


@dataclass(frozen=True, slots=True)
class ForgetTermination:
    """The end of this application instance is awaited no more."""

    app_instance_id: str


Effect = (
    AnnounceService
    | HistoryBegins
    | ExpectHeartbeats
    | ForgetHeartbeats
    | DeliverNotifications
    | EndSubscription
    | AwaitExpiry
    | ForgetExpiry
    | ApplyRules
    | AwaitTermination
    | ForgetTermination
)
