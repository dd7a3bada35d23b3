"""Application instances: what may be done to one in which state (ETSI GS MEC 011 clauses 5.2.2 to 5.2.4).

A thin shell over `registry`: each method is one pure decision. Its counterparts are the application support API, the
administration API, and `terminations`, which ends what did not confirm in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TypeVar

from mec_platform.domain.applications import (
    AppDescription,
    AppInstance,
    AppState,
    OperationAction,
    PendingTermination,
)
from mec_platform.domain.credentials import Client
from mec_platform.domain.locality import Locality
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.rules import DnsRule, TrafficRule
from mec_platform.registry import events
from mec_platform.registry.credentials import refuse_last_administrator
from mec_platform.registry.errors import (
    AppInstanceExists,
    ClientExists,
    QuotaExceeded,
    StateConflict,
    UnknownAppInstance,
    UnknownRule,
)
from mec_platform.registry.registry import Registry
from mec_platform.registry.state import RegistryState

Rule = TypeVar("Rule", bound=DnsRule | TrafficRule)


class Applications:
    """The application instances of one MEC host. `locality` is the host's own place, where an instance is unless told."""

    def __init__(self, registry: Registry, locality: Locality, quotas: Quotas | None = None) -> None:
        self._registry = registry
        self._quotas = quotas or Quotas()
        self.locality = locality

    @property
    def state(self) -> RegistryState:
        """The registry's state as of now."""
        return self._registry.state

    def new_id(self) -> str:
        """An id that no instance has."""
        return self._registry.new_id()

    def get(self, app_instance_id: str) -> AppInstance:
        """Raises UnknownAppInstance."""
        return find_app(self._registry.state, app_instance_id)

    def find(self, app_instance_id: str) -> AppInstance | None:
        """The instance of that id, where there is one."""
        return self._registry.state.apps.get(app_instance_id)

    def all(self) -> list[AppInstance]:
        """All of them, oldest first."""
        state = self._registry.state
        return [state.apps[each] for each in state.in_order(state.apps)]

    async def register(
        self,
        description: AppDescription,
        *,
        app_instance_id: str | None = None,
        locality: Locality | None = None,
        owner: str = "",
        client: Client | None = None,
        dns_rules: Iterable[DnsRule] = (),
        traffic_rules: Iterable[TrafficRule] = (),
    ) -> AppInstance:
        """Registers an application instance, under an id of the platform's making unless one is given.

        `client` is made with it, and goes with it where it has its id.

        Raises:
            AppInstanceExists: the id is taken.
            ClientExists: there is a client of the id of `client`.
            QuotaExceeded: the owner has as many as a client may have.
        """
        app = AppInstance(
            app_instance_id=app_instance_id or self.new_id(),
            locality=locality or self.locality,
            owner=owner,
            dns_rules=tuple(dns_rules),
            traffic_rules=tuple(traffic_rules),
            **{each.name: getattr(description, each.name) for each in fields(AppDescription)},
        )

        def decide(state: RegistryState) -> events.Event:
            # Nor may it be that of any other record: one order is kept of all of them.
            if app.app_instance_id in state.order:
                raise AppInstanceExists(app.app_instance_id)
            if client is not None and client.client_id in state.clients:
                raise ClientExists(client.client_id)
            if len(state.apps_of(owner)) >= self._quotas.apps_per_client:
                raise QuotaExceeded(f"client {owner!r}", self._quotas.apps_per_client, "application instances")
            return events.AppRegistered(app, client)

        await self._registry.commit(decide)
        return app

    async def describe(self, app_instance_id: str, description: AppDescription) -> None:
        """Replaces what an instance says of itself. Raises UnknownAppInstance."""

        def decide(state: RegistryState) -> events.Event | None:
            app = find_app(state, app_instance_id)
            same = all(getattr(app, each.name) == getattr(description, each.name) for each in fields(AppDescription))
            return None if same else events.AppDescribed(app_instance_id, description)

        await self._registry.commit(decide)

    async def confirm_ready(self, app_instance_id: str) -> None:
        """Notes that the instance runs; confirming twice is harmless. Raises UnknownAppInstance, StateConflict."""

        def decide(state: RegistryState) -> events.Event | None:
            app = find_app(state, app_instance_id)
            if app.state is AppState.READY:
                return None
            if app.state is not AppState.NOT_READY:
                raise StateConflict(app_instance_id, app.state, "confirm that it is ready")
            return events.AppConfirmedReady(app_instance_id)

        await self._registry.commit(decide)

    async def request_end(
        self, app_instance_id: str, action: OperationAction, max_graceful_timeout_s: int
    ) -> AppInstance:
        """Asks an instance to stop or terminate within that time; with 0 it is not asked. Returns how it stands then.

        Doing again what is under way or done changes nothing; a stopped one may still be terminated, at once.

        Raises:
            UnknownAppInstance: there is none.
            StateConflict: it is terminated, or coming to an end of the other kind.
        """
        deadline_ns = self._registry.clock.unix_ns() + max_graceful_timeout_s * 10**9

        def decide(state: RegistryState) -> events.Event | None:
            app = find_app(state, app_instance_id)
            if app.state is _GOALS[action] or (app.termination and app.termination.action is action):
                return None
            if app.state is AppState.TERMINATED or app.termination is not None:
                raise StateConflict(app_instance_id, app.state, f"begin {action}")
            if app.state is AppState.STOPPED or max_graceful_timeout_s == 0:
                return events.AppEnded(app_instance_id, action, confirmed=False)
            termination = PendingTermination(
                action=action, max_graceful_timeout_s=max_graceful_timeout_s, deadline_unix_ns=deadline_ns
            )
            return events.TerminationRequested(app_instance_id, termination)

        await self._registry.commit(decide)
        return self.get(app_instance_id)

    async def confirm_end(self, app_instance_id: str, action: OperationAction) -> None:
        """The instance has done what it had to before its end; with nothing pending that is harmless (clause 7.2.11.3.4).

        Raises:
            UnknownAppInstance: there is none.
            StateConflict: the other action is pending.
        """

        def decide(state: RegistryState) -> events.Event | None:
            app = find_app(state, app_instance_id)
            if app.termination is None:
                return None
            if app.termination.action is not action:
                raise StateConflict(app_instance_id, app.state, f"confirm {action}")
            return events.AppEnded(app_instance_id, action, confirmed=True)

        await self._registry.commit(decide)

    async def end_overdue(self, app_instance_id: str) -> bool:
        """Ends an instance whose deadline has passed; whether it did. An instance that is unknown by now is not overdue."""
        now_ns = self._registry.clock.unix_ns()

        def decide(state: RegistryState) -> events.Event | None:
            app = state.apps.get(app_instance_id)
            pending = app.termination if app else None
            if pending is None or pending.deadline_unix_ns > now_ns:
                return None
            return events.AppEnded(app_instance_id, pending.action, confirmed=False)

        return await self._registry.commit(decide) is not None

    async def start_again(self, app_instance_id: str) -> None:
        """Starts a stopped instance; one that runs already is left alone. Raises UnknownAppInstance, StateConflict."""

        def decide(state: RegistryState) -> events.Event | None:
            app = find_app(state, app_instance_id)
            if app.state in (AppState.NOT_READY, AppState.READY):
                return None
            if app.state is not AppState.STOPPED:
                raise StateConflict(app_instance_id, app.state, "start")
            return events.AppStarted(app_instance_id)

        await self._registry.commit(decide)

    async def remove(self, app_instance_id: str) -> None:
        """Removes an instance with everything of it, credentials included.

        Raises:
            UnknownAppInstance: there is none.
            LastAdministrator: with its credentials nobody would be left who could make clients.
        """

        def decide(state: RegistryState) -> events.Event:
            find_app(state, app_instance_id)
            refuse_last_administrator(state, app_instance_id)
            return events.AppLeft(app_instance_id)

        await self._registry.commit(decide)

    async def change_dns_rule(
        self, app_instance_id: str, rule: DnsRule, check: Callable[[DnsRule], None] = lambda before: None
    ) -> None:
        """Replaces the DNS rule of the same id; `check` may refuse, given the one that it would replace.

        Raises:
            UnknownAppInstance, UnknownRule: there is nothing to replace.
            StateConflict: the instance has ended, and its rules with it.
            RegistryError: what `check` raises.
        """

        def decide(state: RegistryState) -> events.Event | None:
            before = find_rule(find_app(state, app_instance_id).dns_rules, rule.rule_id)
            check(before)
            _refuse_if_ended(state.apps[app_instance_id], "change its rules")
            return None if before == rule else events.DnsRuleChanged(app_instance_id, rule)

        await self._registry.commit(decide)

    async def change_traffic_rule(
        self, app_instance_id: str, rule: TrafficRule, check: Callable[[TrafficRule], None] = lambda before: None
    ) -> None:
        """Replaces the traffic rule of the same id; as `change_dns_rule`."""

        def decide(state: RegistryState) -> events.Event | None:
            before = find_rule(find_app(state, app_instance_id).traffic_rules, rule.rule_id)
            check(before)
            _refuse_if_ended(state.apps[app_instance_id], "change its rules")
            return None if before == rule else events.TrafficRuleChanged(app_instance_id, rule)

        await self._registry.commit(decide)


_GOALS = {OperationAction.STOPPING: AppState.STOPPED, OperationAction.TERMINATING: AppState.TERMINATED}


def find_app(state: RegistryState, app_instance_id: str) -> AppInstance:
    """Raises UnknownAppInstance."""
    app = state.apps.get(app_instance_id)
    if app is None:
        raise UnknownAppInstance(app_instance_id)
    return app


def _refuse_if_ended(app: AppInstance, wish: str) -> None:
    if app.state.has_ended:
        raise StateConflict(app.app_instance_id, app.state, wish)


def find_running_app(state: RegistryState, app_instance_id: str) -> AppInstance:
    """One that may offer and subscribe. Raises UnknownAppInstance, StateConflict."""
    app = find_app(state, app_instance_id)
    _refuse_if_ended(app, "offer or subscribe to anything")
    return app


def find_rule(rules: Iterable[Rule], rule_id: str) -> Rule:
    """Raises UnknownRule."""
    for rule in rules:
        if rule.rule_id == rule_id:
            return rule
    raise UnknownRule(rule_id)
