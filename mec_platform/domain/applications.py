"""MEC application instances and their life (ETSI GS MEC 011 clauses 5.2.2 to 5.2.4 and 7.1.2.6), as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mec_platform.domain.locality import Locality
from mec_platform.domain.rules import DnsRule, TrafficRule
from mec_platform.domain.services import CategoryRef, EndPoint, JsonText


class OperationAction(StrEnum):
    """MEC 011 clause 7.1.4.2: what is being done to an application instance."""

    STOPPING = "STOPPING"
    TERMINATING = "TERMINATING"


class AppState(StrEnum):
    """The operational state of an application instance.

    NOT_READY --confirm_ready--> READY; NOT_READY or READY --terminate or stop--> TERMINATING or STOPPING; those end with the
    application's confirmation or with their grace period in TERMINATED (for good) or STOPPED (--start--> NOT_READY).
    """

    NOT_READY = "NOT_READY"
    READY = "READY"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"

    @property
    def has_ended(self) -> bool:
        """Whether the instance runs no more: it offers nothing and gets no notifications."""
        return self in (AppState.STOPPED, AppState.TERMINATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTermination:
    """A graceful end under way. `deadline_unix_ns` is when the platform goes on without the application's confirmation."""

    action: OperationAction
    max_graceful_timeout_s: int
    deadline_unix_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppDescription:
    """What an application says of itself when it registers (MEC 011 clause 7.1.2.6).

    `requirements` holds the attributes that the platform keeps and returns without acting on them.
    """

    name: str
    provider: str | None = None
    descriptor_id: str | None = None
    category: CategoryRef | None = None
    endpoint: EndPoint | None = None
    instantiated_by_mec: bool = False
    requirements: JsonText = JsonText("{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppInstance(AppDescription):
    """An application instance that the platform knows.

    `owner` is the id of the client (`credentials.Client`) that may change it; empty where it was registered without
    authentication. Rules stand in the descriptor's order.
    """

    app_instance_id: str
    locality: Locality
    owner: str = ""
    state: AppState = AppState.NOT_READY
    termination: PendingTermination | None = None
    dns_rules: tuple[DnsRule, ...] = ()
    traffic_rules: tuple[TrafficRule, ...] = ()
