"""What a server-sent event of the watch holds, and how it is written: each change once for all who see it alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.enablement_api.service_management.messages import ServiceInfoMessage
from mec_platform.enablement_api.service_management.writing import ServiceWriter
from mec_platform.registry.change_feed import Change, ChangeSet, WatchFilter

LARGEST_EVENT_BYTES = 1 << 18
"""Events are closed by the change that comes to this, some 250 services; then others have their turn."""


class LayersMessage(msgspec.Struct, frozen=True):
    """Blocks [start, stop) of the model."""

    start: int
    stop: int


class CapabilitiesMessage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a service can do, beside what MEC 011 lets it say; absent where it does not."""

    model: str = ""
    layers: LayersMessage | None = None
    quantisation: str = ""
    hardware_target: str = ""
    trust_level: int = 0
    labels: dict[str, str] = {}


class ServiceChangeMessage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """LISTED: it was there when the watch began. REMOVED: the service as it was last."""

    kind: Literal["LISTED", "ADDED", "ATTRIBUTES_CHANGED", "STATE_CHANGED", "REMOVED"]
    service: ServiceInfoMessage
    capabilities: CapabilitiesMessage | None = None


class ServiceChangesMessage(msgspec.Struct, frozen=True, rename="camel"):
    """The data of the event `changes`. With `more`, others of the same revision follow, and the event has no id yet."""

    revision: int
    more: bool
    changes: list[ServiceChangeMessage]


class _Written(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ServiceChangeMessage whose service is written already."""

    kind: str
    service: msgspec.Raw
    capabilities: CapabilitiesMessage | None = None


class EventWriter:
    """Writes for consumers that see services alike: `is_local` and the links depend on who and where they are."""

    def __init__(self, writer: ServiceWriter) -> None:
        self._writer = writer

    def changes(self, changes: ChangeSet, wanted: WatchFilter, base_uri: str) -> list[bytes]:
        """Events of what concerns a watcher; none where nothing does."""
        written = [self._change(change, kind, wanted, base_uri) for change, kind in wanted.select(changes)]
        return list(_events(written, changes.revision)) if written else []

    def listing(
        self, services: Iterable[ServiceInfo], revision: int, wanted: WatchFilter, base_uri: str
    ) -> Iterator[bytes]:
        """Events that list services as they are at a revision; one at least."""
        return _events((self._write("LISTED", each, wanted, base_uri) for each in services), revision)

    def _change(self, change: Change, kind: ChangeType, wanted: WatchFilter, base_uri: str) -> bytes:
        key = ("json", kind, wanted.place, base_uri)
        known = change.encoded.get(key)
        if known is None:
            known = change.encoded[key] = self._write(kind.value, change.service, wanted, base_uri)
        return known

    def _write(self, kind: str, service: ServiceInfo, wanted: WatchFilter, base_uri: str) -> bytes:
        is_local = wanted.place is not None and service.is_local_to(wanted.place)
        said = None if service.capabilities is None else _capabilities(service.capabilities)
        return msgspec.json.encode(_Written(kind, self._writer.write(service, is_local, base_uri).json, said))


def compacted_event(current: int) -> bytes:
    """The last event of a watch that cannot go on. Its empty id has clients forget where they were: they list again."""
    return b'id\nevent: compacted\ndata: {"revision":%d}\n\n' % current


def heartbeat(revision: int) -> bytes:
    """No event: it moves on where the client would resume, and shows that somebody is there."""
    return b": nothing else up to here\nid: %d\n\n" % revision


def _events(written: Iterable[bytes], revision: int) -> Iterator[bytes]:
    waiting, size = list[bytes](), 0
    for each in written:
        if size + len(each) > LARGEST_EVENT_BYTES and waiting:
            yield _event(waiting, revision, more=True)
            waiting, size = [], 0
        waiting.append(each)
        size += len(each)
    yield _event(waiting, revision, more=False)


def _event(written: list[bytes], revision: int, *, more: bool) -> bytes:
    id_line = b"" if more else b"id: %d\n" % revision
    data = b'{"revision":%d,"more":%s,"changes":[%s]}' % (revision, b"true" if more else b"false", b",".join(written))
    return b"%sevent: changes\ndata: %s\n\n" % (id_line, data)


def _capabilities(capabilities: Capabilities) -> CapabilitiesMessage:
    layers = capabilities.layers
    return CapabilitiesMessage(
        model=capabilities.model,
        layers=None if layers is None else LayersMessage(layers.start, layers.stop),
        quantisation=capabilities.quantisation,
        hardware_target=capabilities.hardware_target,
        trust_level=capabilities.trust_level,
        labels=dict(capabilities.labels),
    )
