"""How a whole registry state is written: one JSON line for each record, after a line that says what the file is.

Counterpart of `event_codec` for the snapshots that take the place of old events. Indexes are not written: they follow
from the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from immutables import Map

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.credentials import Client, JoinPermit, SigningKey
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import Outbox, Subscription
from mec_platform.registry.state import (
    Index,
    IndexDraft,
    RegistryState,
    app_keys,
    service_keys,
    subscription_keys,
)
from mec_platform.registry.transitions import IllegalEvent

FORMAT = 1

_TABLES: dict[str, Any] = {
    "apps": AppInstance,
    "services": ServiceInfo,
    "subscriptions": Subscription,
    "outboxes": Outbox,
    "clients": Client,
    "signing_keys": SigningKey,
    "join_permits": JoinPermit,
    "peers": PeerCursor,
    "order": int,
}


@dataclass(frozen=True, slots=True)
class _Header:
    format: int
    revision: int
    registry_id: str = ""


def encode_state(state: RegistryState) -> Iterator[bytes]:
    """The lines, each ended by a line feed; one at a time, so that a thread may write a large state beside other work."""
    encoder = msgspec.json.Encoder()
    yield encoder.encode(_Header(FORMAT, state.revision, state.registry_id)) + b"\n"
    for table in _TABLES:
        for record_id, record in getattr(state, table).items():
            yield encoder.encode((table, record_id, record)) + b"\n"


def decode_state(payload: bytes) -> RegistryState:
    """The state that `encode_state` wrote.

    Raises:
        IllegalEvent: this is no state, or one that a newer version wrote.
    """
    decoders: dict[str, msgspec.json.Decoder[Any]] = {
        table: msgspec.json.Decoder(tuple.__class_getitem__((str, str, record))) for table, record in _TABLES.items()
    }
    tables: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
    try:
        header_line, *lines = payload.splitlines()
        header = msgspec.json.decode(header_line, type=_Header)
        if header.format != FORMAT:
            raise IllegalEvent(f"the snapshot has format {header.format}, this platform reads format {FORMAT}")
        for line in lines:
            # Every line begins with ["<table>", and no table's name needs escaping.
            table = line[2 : line.index(b'"', 2)].decode()
            _, record_id, record = decoders[table].decode(line)
            tables[table][record_id] = record
    except (KeyError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise IllegalEvent(f"cannot read the snapshot of the registry: {error!r}") from error
    return RegistryState(
        **{table: Map(records) for table, records in tables.items()},
        revision=header.revision,
        registry_id=header.registry_id,
        services_by=_index(tables["services"], service_keys),
        subscriptions_by=_index(tables["subscriptions"], subscription_keys),
        apps_by=_index(tables["apps"], app_keys),
    )


def _index(records: dict[str, Any], keys_of: Any) -> Index:
    index = IndexDraft(Map())
    for record_id, record in records.items():
        index.add(keys_of(record), record_id)
    return index.finish()
