"""Subscriptions of applications, what they are told, and which changes they match (ETSI GS MEC 011 clauses 7.1.3, 7.1.4,
8.1.3, 8.1.4), as frozen values. How a notification is written and delivered is the HTTP edge's affair."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mec_platform.domain.applications import OperationAction
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import JsonText, ServiceInfo, ServiceState


class ChangeType(StrEnum):
    """MEC 011 clause 8.1.4.2: what happened to the availability of a service."""

    ADDED = "ADDED"
    REMOVED = "REMOVED"
    STATE_CHANGED = "STATE_CHANGED"
    ATTRIBUTES_CHANGED = "ATTRIBUTES_CHANGED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a subscriber wants its notifications (MEC 009 clause 6.12): posted to a URI, or over a WebSocket.

    `requests_test` asks for a test notification before the first real one.

    Raises:
        ValueError: neither a callback nor a WebSocket is asked for.
    """

    callback_uri: str | None = None
    websocket: bool = False
    requests_test: bool = False

    def __post_init__(self) -> None:
        if self.callback_uri is None and not self.websocket:
            raise ValueError("callbackReference or websockNotifConfig must be present")


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilityFilter:
    """MEC 011 clause 8.1.3.2: attributes AND, values of a list OR, None matches all.

    Raises:
        ValueError: more than one of the three identity lists is present.
    """

    service_ids: frozenset[str] | None = None
    names: frozenset[str] | None = None
    category_ids: frozenset[str] | None = None
    states: frozenset[ServiceState] | None = None
    is_local: bool | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.service_ids, self.names, self.category_ids)) > 1:
            raise ValueError("serInstanceIds, serNames and serCategories exclude each other")

    def matches(self, service: ServiceInfo, consumer: Locality) -> bool:
        """Whether a change that left `service` behind (or removed it as it was) is for a consumer at that place."""
        category_id = service.category.id if service.category else None
        return (
            (self.service_ids is None or service.service_id in self.service_ids)
            and (self.names is None or service.name in self.names)
            and (self.category_ids is None or category_id in self.category_ids)
            and (self.states is None or service.state in self.states)
            and self.is_local in (None, service.is_local_to(consumer))
            and service.is_offered_at(consumer)
        )


class Topic(StrEnum):
    """What a subscription is about; the names are the standard's types of subscriptions."""

    SERVICE_AVAILABILITY = "SerAvailabilityNotificationSubscription"
    APP_TERMINATION = "AppTerminationNotificationSubscription"
    CELL_CHANGE = "CellChangeSubscription"
    BEARER_ESTABLISHMENT = "RabEstSubscription"
    BEARER_MODIFICATION = "RabModSubscription"
    BEARER_RELEASE = "RabRelSubscription"
    MEASUREMENT = "MeasRepUeSubscription"
    NR_MEASUREMENT = "NrMeasRepUeSubscription"
    TIMING_ADVANCE = "MeasTaSubscription"
    CARRIER_AGGREGATION = "CaReconfSubscription"
    S1_BEARER = "S1BearerSubscription"


RADIO_TOPICS = frozenset(Topic) - {Topic.SERVICE_AVAILABILITY, Topic.APP_TERMINATION}
"""Those of MEC 012, which are a client's own and not an application instance's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """When a subscription ends by itself (MEC 012, expiryDeadline), and when its subscriber is told so; Unix time."""

    deadline_unix_ns: int
    notice_unix_ns: int
    noticed: bool = False

    @property
    def next_unix_ns(self) -> int:
        """When there is something to do next."""
        return self.deadline_unix_ns if self.noticed else self.notice_unix_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription of an application instance (MEC 011 clauses 7.1.3.2 and 8.1.3.2).

    `filter` is looked at for SERVICE_AVAILABILITY only. `criteria_text` is the filter as its subscriber wrote it, JSON, which
    is what a GET shows; None where there was none. `platform_uri` is the origin at which the subscriber reached the platform:
    links in its notifications begin with it, as nothing else says under which address the platform is known to it.

    A subscription to one of `RADIO_TOPICS` is that of the client `owner` (empty where authentication is off). It has an
    application instance where it is to end with that one, else an empty `app_instance_id`, and `criteria_text` is all that its
    subscriber wrote.
    """

    subscription_id: str
    app_instance_id: str
    topic: Topic
    delivery: Delivery
    filter: AvailabilityFilter = AvailabilityFilter()
    criteria_text: JsonText | None = None
    platform_uri: str = ""
    owner: str = ""
    expiry: Expiry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReference:
    """An entry of ServiceAvailabilityNotification.serviceReferences, clause 8.1.4.2; a REMOVED one carries no link."""

    change: ChangeType
    service_id: str
    app_instance_id: str
    name: str
    state: ServiceState


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminationAnnounced:
    """AppTerminationNotification, clause 7.1.4.2."""

    action: OperationAction
    max_graceful_timeout_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryAnnounced:
    """ExpiryNotification (MEC 012 clause 6.4.10): the subscription ends at the deadline unless it is replaced before."""

    at_unix_ns: int
    deadline_unix_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One message to one subscription: changed services, or a termination, or the subscription's own end, or what happened in the
    radio network, or (with none of these) a test (MEC 009 clause 6.12).

    `radio` is JSON as the HTTP edge wrote it, without the link to the subscription: the registry does not look into it.
    `sequence` is the revision of its cause: it grows within a subscription.
    """

    subscription_id: str
    sequence: int
    services: tuple[ServiceReference, ...] = ()
    termination: TerminationAnnounced | None = None
    expiry: ExpiryAnnounced | None = None
    radio: JsonText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A notification that could not be delivered, and why."""

    notification: Notification
    reason: str
    at_unix_ns: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """What one subscription has not been told yet, oldest first, and what it never will be unless somebody asks."""

    waiting: tuple[Notification, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
