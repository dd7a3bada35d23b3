"""What can happen to the registry: facts that the event log holds, named in the past tense, in no other order than it gives.

`transitions` says what each does to the state, `event_codec` how it is written. A fact holds everything that its effect
needs: applying it asks no clock, no chance and no setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mec_platform.domain.applications import AppDescription, AppInstance, OperationAction, PendingTermination
from mec_platform.domain.credentials import Client, JoinPermit, SigningKey
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.rules import DnsRule, TrafficRule
from mec_platform.domain.services import JsonText, ServiceInfo, ServiceState
from mec_platform.domain.subscriptions import Subscription


@dataclass(frozen=True, slots=True)
class AppRegistered:
    """An application instance came, and with it the client that it belongs to where that is a new one."""

    app: AppInstance
    client: Client | None = None


@dataclass(frozen=True, slots=True)
class AppDescribed:
    """An application instance described itself anew; its id, place, rules and state stay."""

    app_instance_id: str
    description: AppDescription


@dataclass(frozen=True, slots=True)
class AppConfirmedReady:
    """An application instance said that it is up and running."""

    app_instance_id: str


@dataclass(frozen=True, slots=True)
class TerminationRequested:
    """An operator asked an application instance to come to an end in its own time."""

    app_instance_id: str
    termination: PendingTermination


@dataclass(frozen=True, slots=True)
class AppEnded:
    """An application instance was stopped or terminated: it confirmed that, its time was over, or it was not asked."""

    app_instance_id: str
    action: OperationAction
    confirmed: bool


@dataclass(frozen=True, slots=True)
class AppStarted:
    """An operator started a stopped application instance again."""

    app_instance_id: str


@dataclass(frozen=True, slots=True)
class AppLeft:
    """An application instance is gone, and everything of it."""

    app_instance_id: str


@dataclass(frozen=True, slots=True)
class DnsRuleChanged:
    """A DNS rule was replaced by one of the same id."""

    app_instance_id: str
    rule: DnsRule


@dataclass(frozen=True, slots=True)
class TrafficRuleChanged:
    """A traffic rule was replaced by one of the same id."""

    app_instance_id: str
    rule: TrafficRule


@dataclass(frozen=True, slots=True)
class ServiceRegistered:
    """A service was offered."""

    service: ServiceInfo


@dataclass(frozen=True, slots=True)
class ServiceUpdated:
    """Its application described a service anew; the ids stay."""

    service: ServiceInfo


@dataclass(frozen=True, slots=True)
class ServiceStateChanged:
    """Nothing but the state of a service changed."""

    service_id: str
    state: ServiceState


@dataclass(frozen=True, slots=True)
class ServiceRemoved:
    """Its application withdrew a service, or the platform evicted one that had been silent for long."""

    service_id: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """An application instance wants to be told."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """An application instance wants to be told no more."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class SubscriptionReplaced:
    """A client wants to be told otherwise, or for longer; id, topic and owner stay, and so does what waits."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class ExpiryNoticeGiven:
    """A subscriber is told that its subscription ends soon."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class RadioTold:
    """Something happened in the radio network, and these subscribers are told of it, in the words of `message` (JSON).

    Whom it concerns was decided before: the radio network is no part of the registry's state.
    """

    message: JsonText
    subscription_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotificationsSettled:
    """Subscribers took their notifications: sequences of each subscription.

    Each is named: one that was revived meanwhile is older than what was delivered, and still waits.
    """

    delivered: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class NotificationBuried:
    """A notification could not be delivered and holds up the others no longer."""

    subscription_id: str
    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLettersRevived:
    """An operator wants the undeliverable notifications of a subscription to be tried again."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class DeadLettersDropped:
    """An operator has no use for the undeliverable notifications of a subscription."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class ClientAdded:
    """Somebody may ask for tokens from now on; one of the same id is replaced: its secret or its scopes are new."""

    client: Client


@dataclass(frozen=True, slots=True)
class ClientRemoved:
    """A client's credentials are worth nothing any more."""

    client_id: str


@dataclass(frozen=True, slots=True)
class JoinPermitted:
    """A member may join; permits that had expired by then are forgotten."""

    permit: JoinPermit


@dataclass(frozen=True, slots=True)
class JoinPermitUsed:
    """A member has joined: its permit is gone, and it is a client of the APIs from now on, in place of who had that id."""

    permit_id: str
    client: Client


@dataclass(frozen=True, slots=True)
class JoinPermitWithdrawn:
    """An operator wants nobody to join by this any more."""

    permit_id: str


@dataclass(frozen=True, slots=True)
class SigningKeyAdded:
    """Tokens are signed with this key from now on."""

    key: SigningKey


@dataclass(frozen=True, slots=True)
class SigningKeyRemoved:
    """Tokens signed with this key are worth nothing any more."""

    key_id: str


@dataclass(frozen=True, slots=True)
class RegistryFounded:
    """This registry got its identity, by which peers know it from another one under the same name."""

    registry_id: str


@dataclass(frozen=True, slots=True)
class PeerServicesChanged:
    """What another host shares with this one changed; the copy and the place in the peer's history move together.

    `put` are services as they are now, each with the peer as its origin; `removed` are ids of copies that are no more.
    """

    peer: str
    cursor: PeerCursor
    put: tuple[ServiceInfo, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerForgotten:
    """An operator took a host from the peers of this one: all that it shared is gone."""

    peer: str


Event = (
    AppRegistered
    | AppDescribed
    | AppConfirmedReady
    | TerminationRequested
    | AppEnded
    | AppStarted
    | AppLeft
    | DnsRuleChanged
    | TrafficRuleChanged
    | ServiceRegistered
    | ServiceUpdated
    | ServiceStateChanged
    | ServiceRemoved
    | Subscribed
    | Unsubscribed
    | SubscriptionReplaced
    | ExpiryNoticeGiven
    | RadioTold
    | NotificationsSettled
    | NotificationBuried
    | DeadLettersRevived
    | DeadLettersDropped
    | ClientAdded
    | ClientRemoved
    | JoinPermitted
    | JoinPermitUsed
    | JoinPermitWithdrawn
    | SigningKeyAdded
    | SigningKeyRemoved
    | RegistryFounded
    | PeerServicesChanged
    | PeerForgotten
)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event with its place in the log's stream and its time."""

    revision: int
    at_unix_ns: int
    event: Event


def subject_of(event: Event) -> str:
    """The id of the resource that an event is about, for the audit trail; empty for what is about many."""
    match event:
        case AppRegistered(app):
            return app.app_instance_id
        case ServiceRegistered(service) | ServiceUpdated(service):
            return service.service_id
        case ServiceStateChanged() | ServiceRemoved():
            return event.service_id
        case DnsRuleChanged(app_instance_id, rule) | TrafficRuleChanged(app_instance_id, rule):
            return f"{app_instance_id}/{rule.rule_id}"
        case Subscribed(subscription) | SubscriptionReplaced(subscription):
            return subscription.subscription_id
        case Unsubscribed() | ExpiryNoticeGiven() | NotificationBuried() | DeadLettersRevived() | DeadLettersDropped():
            return event.subscription_id
        case NotificationsSettled() | RadioTold():
            return ""
        case ClientAdded(client):
            return client.client_id
        case ClientRemoved():
            return event.client_id
        case JoinPermitted(permit):
            return permit.name
        case JoinPermitUsed(_, client):
            return client.client_id
        case JoinPermitWithdrawn():
            return event.permit_id
        case SigningKeyAdded(key):
            return key.key_id
        case SigningKeyRemoved():
            return event.key_id
        case RegistryFounded():
            return event.registry_id
        case PeerServicesChanged() | PeerForgotten():
            return event.peer
        case _:
            return event.app_instance_id
