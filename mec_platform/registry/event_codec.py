"""How registry events are written in the event log: a kind that names the event, and its fields as JSON.

A kind, once written, keeps its meaning for ever; new fields need defaults, so that old logs stay readable.
"""

from __future__ import annotations

import msgspec

from mec_platform.registry import events
from mec_platform.registry.event_log import LogEntry, Record
from mec_platform.registry.events import Event, Occurrence, subject_of
from mec_platform.registry.transitions import IllegalEvent

KINDS: dict[str, type[Event]] = {
    "app.registered": events.AppRegistered,
    "app.described": events.AppDescribed,
    "app.confirmed_ready": events.AppConfirmedReady,
    "app.termination_requested": events.TerminationRequested,
    "app.ended": events.AppEnded,
    "app.started": events.AppStarted,
    "app.left": events.AppLeft,
    "app.dns_rule_changed": events.DnsRuleChanged,
    "app.traffic_rule_changed": events.TrafficRuleChanged,
    "service.registered": events.ServiceRegistered,
    "service.updated": events.ServiceUpdated,
    "service.state_changed": events.ServiceStateChanged,
    "service.removed": events.ServiceRemoved,
    "subscription.added": events.Subscribed,
    "subscription.removed": events.Unsubscribed,
    "subscription.replaced": events.SubscriptionReplaced,
    "subscription.expiry_noticed": events.ExpiryNoticeGiven,
    "radio.told": events.RadioTold,
    "notification.settled": events.NotificationsSettled,
    "notification.buried": events.NotificationBuried,
    "notification.revived": events.DeadLettersRevived,
    "notification.dropped": events.DeadLettersDropped,
    "client.added": events.ClientAdded,
    "client.removed": events.ClientRemoved,
    "join.permitted": events.JoinPermitted,
    "join.used": events.JoinPermitUsed,
    "join.withdrawn": events.JoinPermitWithdrawn,
    "key.added": events.SigningKeyAdded,
    "key.removed": events.SigningKeyRemoved,
    "registry.founded": events.RegistryFounded,
    "peer.services_changed": events.PeerServicesChanged,
    "peer.forgotten": events.PeerForgotten,
}
_KIND_OF = {event_type: kind for kind, event_type in KINDS.items()}
_ENCODER = msgspec.json.Encoder()
_DECODERS = {kind: msgspec.json.Decoder(event_type) for kind, event_type in KINDS.items()}


def encode_event(event: Event, at_unix_ns: int, actor: str) -> Record:
    """The record to append."""
    return Record(_KIND_OF[type(event)], _ENCODER.encode(event), subject_of(event), actor, at_unix_ns)


def decode_event(entry: LogEntry) -> Occurrence:
    """The event of a log entry, with its revision and time.

    Raises:
        IllegalEvent: the kind or the payload is not one that this version knows.
    """
    try:
        return Occurrence(entry.revision, entry.record.at_unix_ns, _DECODERS[entry.kind].decode(entry.payload))
    except (KeyError, msgspec.DecodeError) as error:
        raise IllegalEvent(f"cannot read entry {entry.revision} of kind {entry.kind!r}: {error!r}") from error
