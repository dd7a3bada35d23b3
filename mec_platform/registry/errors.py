"""What the registry and its log refuse. Nothing here knows HTTP or gRPC; the APIs map these to their own answers.

RegistryError
+-- UnknownAppInstance     no such application instance is registered
+-- UnknownService         no such service, or it belongs to another application instance
+-- UnknownTransport       the platform provides no transport of that id
+-- UnknownSubscription    no such subscription, or it belongs to another application instance
+-- UnknownRule            the application instance has no rule of that id
+-- AppInstanceExists      the id that was asked for is taken
+-- RegistrationKeyUsed    the idempotency key stands for the registration of another description
+-- StateConflict          the application instance is in a state in which that cannot be done
+-- UnknownClient          no such client of the APIs
+-- ClientExists           the id that was asked for is taken
+-- UnknownJoinPermit      no such permission to join, or it was used, withdrawn or has expired
+-- LastAdministrator      nobody would be left who may administer the platform
+-- QuotaExceeded          the client or application instance has as much as it may have
+-- LivenessNotMonitored   the service sends no heartbeats, so it has no liveness resource
+-- ChangesCompacted       changes that a watcher has not seen are kept no more
+-- RevisionAhead          a watcher wants to begin after a revision that is yet to come

EventLogError
+-- RevisionConflict       somebody else appended to the stream first
+-- Compacted              entries that were asked for exist as a snapshot only
+-- BackupError            a backup was not made or not restored; nothing was changed
+-- LogUnavailable         the storage below the log refused to read or to write
"""

from __future__ import annotations

from mec_platform.domain.errors import MendableError


class RegistryError(Exception):
    """A request that the registry refuses; the message is meant for the requester."""


class UnknownAppInstance(RegistryError):
    """Unknown, or already gone: ids are opaque, so the two are not told apart."""

    def __init__(self, app_instance_id: str) -> None:
        super().__init__(f"no application instance {app_instance_id!r} is registered")
        self.app_instance_id = app_instance_id


class UnknownService(RegistryError):
    """Unknown, already gone, or not a service of the application instance that was named."""

    def __init__(self, service_id: str) -> None:
        super().__init__(f"no service {service_id!r} is registered here")
        self.service_id = service_id


class UnknownTransport(RegistryError):
    """The transport id is not among those that the platform provides."""

    def __init__(self, transport_id: str) -> None:
        super().__init__(f"the platform provides no transport {transport_id!r}; GET /transports lists those it does")
        self.transport_id = transport_id


class UnknownSubscription(RegistryError):
    """Unknown, already ended, or not one of the application instance that was named."""

    def __init__(self, subscription_id: str) -> None:
        super().__init__(f"there is no subscription {subscription_id!r} here")
        self.subscription_id = subscription_id


class UnknownRule(RegistryError):
    """Rules come with the application instance; they can be changed, not added."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"the application instance has no rule {rule_id!r}")
        self.rule_id = rule_id


class AppInstanceExists(RegistryError):
    """Ids of application instances are unique while their instances exist, also among those of services and subscriptions."""

    def __init__(self, app_instance_id: str) -> None:
        super().__init__(f"the id {app_instance_id!r} is taken already")
        self.app_instance_id = app_instance_id


class RegistrationKeyUsed(RegistryError):
    """A registration may be repeated as it was; another one needs a key of its own."""

    def __init__(self, key: str, service_id: str) -> None:
        super().__init__(
            f"the idempotency key {key!r} was used to register service {service_id!r} with another description; "
            "use a new key for a new service, and update the service to change it"
        )
        self.key = key
        self.service_id = service_id


class StateConflict(RegistryError):
    """See `domain.applications.AppState` for what may follow what."""

    def __init__(self, app_instance_id: str, state: str, wish: str) -> None:
        super().__init__(f"application instance {app_instance_id!r} is {state} and cannot {wish}")
        self.app_instance_id = app_instance_id


class LivenessNotMonitored(RegistryError):
    """The service was registered without a liveness interval."""

    def __init__(self, service_id: str) -> None:
        super().__init__(f"service {service_id!r} was registered without livenessInterval: no heartbeats are expected")
        self.service_id = service_id


class UnknownClient(RegistryError):
    """Unknown, or already removed."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"there is no client {client_id!r}")
        self.client_id = client_id


class ClientExists(RegistryError):
    """Ids of clients are unique while their clients exist."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"there is a client {client_id!r} already")
        self.client_id = client_id


class UnknownJoinPermit(RegistryError):
    """Used, withdrawn, expired or never made: who tries tokens is not told which."""

    def __init__(self, permit_id: str = "") -> None:
        super().__init__(
            f"there is no permission to join {permit_id!r}"
            if permit_id
            else "the join token is not good (any more): it lets one member join, once, for a while; ask for another one"
        )


class LastAdministrator(RegistryError):
    """Make another client with the scope admin first."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"client {client_id!r} is the last one with the scope admin; make another one first")
        self.client_id = client_id


class QuotaExceeded(RegistryError):
    """See `domain.quotas`; something has to go before more can come."""

    def __init__(self, whose: str, limit: int, what: str) -> None:
        super().__init__(f"{whose} has {limit} {what} already, and may have no more")
        self.limit = limit


class ChangesCompacted(RegistryError):
    """The watcher was away, or too slow, for longer than changes are kept; `current` is the revision to list at, or later."""

    def __init__(self, after: int, current: int) -> None:
        super().__init__(
            f"changes after revision {after} are kept no more; list the services again, as of revision {current} or later, "
            "and watch from there"
        )
        self.current = current


class RevisionAhead(RegistryError):
    """The revision comes from another registry, or this one was restored from a backup."""

    def __init__(self, after: int, current: int) -> None:
        super().__init__(f"the registry is at revision {current} and has not come to {after}; list the services again")
        self.current = current


class EventLogError(Exception):
    """The event log could not do what was asked."""


class RevisionConflict(EventLogError):
    """The stream has moved on; read what was appended, decide again, append again."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"stream {stream!r} is at revision {actual}, not at {expected}")
        self.actual = actual


class Compacted(EventLogError):
    """Entries up to and including `revision` were put together into a snapshot."""

    def __init__(self, stream: str, revision: int) -> None:
        super().__init__(f"stream {stream!r} was compacted up to revision {revision}; begin with its snapshot")
        self.revision = revision


class LogUnavailable(EventLogError, MendableError):
    """The storage failed; nothing was appended unless a later read shows it."""


class BackupError(EventLogError, MendableError):
    """A backup was not made or not restored; nothing was changed."""
