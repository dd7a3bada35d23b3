"""How registry events are written in the event log: a kind that names the event, and its fields as JSON.

A kind, once written, keeps its meaning for ever; new fields need defaults, so that old logs stay readable.
"""

from __future__ import annotations

import msgspec

from mec_platform.registry import state
from mec_platform.registry.event_log import LogEntry

KINDS: dict[str, type[state.Event]] = {
    "app.registered": state.AppRegistered,
    "app.confirmed_ready": state.AppConfirmedReady,
    "app.left": state.AppLeft,
    "service.registered": state.ServiceRegistered,
    "service.updated": state.ServiceUpdated,
    "service.state_changed": state.ServiceStateChanged,
    "service.removed": state.ServiceRemoved,
}
_KIND_OF = {event_type: kind for kind, event_type in KINDS.items()}


def encode_event(event: state.Event) -> tuple[str, bytes]:
    """Kind and payload."""
    return _KIND_OF[type(event)], msgspec.json.encode(event)


def decode_event(entry: LogEntry) -> state.Event:
    """The event of a log entry.

    Raises:
        state.IllegalEvent: the kind or the payload is not one that this version knows.
    """
    try:
        return msgspec.json.decode(entry.payload, type=KINDS[entry.kind])
    except (KeyError, msgspec.DecodeError) as error:
        raise state.IllegalEvent(f"cannot read entry {entry.revision} of kind {entry.kind!r}: {error!r}") from error
