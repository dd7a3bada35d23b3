"""What the registry knows, as one immutable value with the indexes that its questions need.

It changes by `transitions.apply_events` alone. Persistent maps share what did not change, so that a version for readers
and one for the next decision cost next to nothing. No clock, no randomness, no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from immutables import Map, MapMutation

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.credentials import Client, JoinPermit, SigningKey
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import RADIO_TOPICS, AvailabilityFilter, Outbox, Subscription, Topic

Key: TypeAlias = tuple[str, str]
"""A kind of attribute and its value, as in ("name", "greeting")."""

Index: TypeAlias = "Map[Key, Map[str, None]]"
"""Ids of the records that have an attribute of this value."""

ANY: Key = ("any", "")


@dataclass(frozen=True, slots=True)
class RegistryState:
    """All records by id. `revision` is that of the last applied event; `order` gives the revision at which each record came.

    `registry_id` is this registry's identity among its peers, empty while it has none; `peers` has the place in the history
    of each host whose services are copied here, by its name.

    The indexes follow from the records, so equality of states is equality of what they know.
    """

    apps: Map[str, AppInstance] = field(default_factory=Map)
    services: Map[str, ServiceInfo] = field(default_factory=Map)
    subscriptions: Map[str, Subscription] = field(default_factory=Map)
    outboxes: Map[str, Outbox] = field(default_factory=Map)
    clients: Map[str, Client] = field(default_factory=Map)
    signing_keys: Map[str, SigningKey] = field(default_factory=Map)
    join_permits: Map[str, JoinPermit] = field(default_factory=Map)
    peers: Map[str, PeerCursor] = field(default_factory=Map)
    order: Map[str, int] = field(default_factory=Map)
    revision: int = 0
    registry_id: str = ""
    services_by: Index = field(default_factory=Map, repr=False, compare=False)
    subscriptions_by: Index = field(default_factory=Map, repr=False, compare=False)
    apps_by: Index = field(default_factory=Map, repr=False, compare=False)

    def in_order(self, ids: Iterable[str]) -> list[str]:
        """Ids of records, oldest first."""
        return sorted(ids, key=self.order.__getitem__)

    def services_with(self, key: Key) -> Map[str, None]:
        """Ids of the services that have an attribute of this value; see `service_keys` for which are kept."""
        return self.services_by.get(key, _NONE)

    def service_registered_as(self, app_instance_id: str, key: str) -> ServiceInfo | None:
        """The service that an application instance has registered under this idempotency key, while it exists."""
        for service_id in self.services_with(_registration(app_instance_id, key)):
            return self.services[service_id]
        return None

    def apps_of(self, owner: str) -> Map[str, None]:
        """Ids of the application instances that belong to this client."""
        return self.apps_by.get(("owner", owner), _NONE)

    def subscriptions_of(self, app_instance_id: str) -> list[Subscription]:
        """An application instance's subscriptions, oldest first."""
        ids = self.subscriptions_by.get(("app", app_instance_id), _NONE)
        return [self.subscriptions[each] for each in self.in_order(ids)]

    def subscriptions_with(self, key: Key) -> Map[str, None]:
        """Ids of the subscriptions that are under this key; see `subscription_keys`."""
        return self.subscriptions_by.get(key, _NONE)


_NONE: Map[str, None] = Map()


def app_keys(app: AppInstance) -> list[Key]:
    """Under what an application instance is found."""
    return [("owner", app.owner)] if app.owner else []


def service_keys(service: ServiceInfo) -> list[Key]:
    """Under what a service is found."""
    keys = [("name", service.name)]
    # An application of another host is none of ours, whatever its id.
    keys.append(("origin", service.origin) if service.origin else ("app", service.app_instance_id))
    if service.category is not None:
        keys.append(("category", service.category.id))
    if service.capabilities is not None:
        said = (("model", service.capabilities.model), ("target", service.capabilities.hardware_target))
        keys += [(kind, value) for kind, value in said if value]
    if service.registration is not None and not service.origin:
        keys.append(_registration(service.app_instance_id, service.registration.key))
    return keys


def _registration(app_instance_id: str, key: str) -> Key:
    # Keys have no control characters, so no two pairs are written alike.
    return ("registration", f"{app_instance_id}\0{key}")


def subscription_keys(subscription: Subscription) -> list[Key]:
    """Under what a subscription is found: its application, and where it is about services, each that it names or ANY; where
    it is about radio, its topic and its owner."""
    keys = [("app", subscription.app_instance_id)] if subscription.app_instance_id else []
    if subscription.topic is Topic.SERVICE_AVAILABILITY:
        keys += _wanted(subscription.filter)
    if subscription.topic in RADIO_TOPICS:
        keys += [("topic", subscription.topic.value), ("client", subscription.owner)]
    return keys


def keys_of_interest(service: ServiceInfo) -> list[Key]:
    """Under what the subscriptions are found that a change of this service may be for."""
    keys = [ANY, ("id", service.service_id), ("name", service.name)]
    return [*keys, ("category", service.category.id)] if service.category else keys


def _wanted(criteria: AvailabilityFilter) -> list[Key]:
    for kind, values in (
        ("id", criteria.service_ids),
        ("name", criteria.names),
        ("category", criteria.category_ids),
    ):
        if values is not None:
            return [(kind, value) for value in values]
    return [ANY]


class IndexDraft:
    """An index being changed: what is touched several times is copied once. The index that it began with stays as it is."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._touched: dict[Key, MapMutation[str, None]] = {}

    def add(self, keys: Iterable[Key], record_id: str) -> None:
        """Puts a record under these keys."""
        for key in keys:
            self._ids(key)[record_id] = None

    def remove(self, keys: Iterable[Key], record_id: str) -> None:
        """Takes a record from under these keys."""
        for key in keys:
            del self._ids(key)[record_id]

    def get(self, key: Key) -> Map[str, None]:
        """Ids of the records that are under a key now."""
        touched = self._touched.pop(key, None)
        if touched is not None:
            self._index = _with_ids(self._index, {key: touched})
        return self._index.get(key, _NONE)

    def finish(self) -> Index:
        """The changed index; a key without records is no longer in it."""
        return _with_ids(self._index, self._touched) if self._touched else self._index

    def _ids(self, key: Key) -> MapMutation[str, None]:
        ids = self._touched.get(key)
        if ids is None:
            ids = self._touched[key] = self._index.get(key, _NONE).mutate()
        return ids


def _with_ids(index: Index, touched: Mapping[Key, MapMutation[str, None]]) -> Index:
    changed = index.mutate()
    for key, mutation in touched.items():
        if ids := mutation.finish():
            changed[key] = ids
        elif key in changed:
            del changed[key]
    return changed.finish()
