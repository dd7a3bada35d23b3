"""What a registry must know after which change, from the rules of MEC 011 and of the product, in plain dictionaries.

An oracle for `test_state_machine`: it shares no code with the registry but the enumerations. Every method is one change; it
raises Refused with the name of the error that the registry must answer, or returns whether anything has happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ENDED = ("STOPPED", "TERMINATED")
GOAL = {"STOPPING": "STOPPED", "TERMINATING": "TERMINATED"}
SERVICE_TOPIC, END_TOPIC = "SerAvailabilityNotificationSubscription", "AppTerminationNotificationSubscription"

MOST_SERVICES = MOST_SUBSCRIPTIONS = MOST_APPS = 3


class Refused(Exception):
    """The name of the error that is expected."""


@dataclass
class Model:
    """Dictionaries keep the order in which records came."""

    revision: int = 0
    apps: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    outboxes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    clients: dict[str, frozenset[str]] = field(default_factory=dict)
    _told: dict[str, list[Any]] = field(default_factory=dict)

    # Application instances

    def register(self, app_id: str, name: str, owner: str) -> bool:
        if app_id in (*self.apps, *self.services, *self.subscriptions):
            raise Refused("AppInstanceExists")
        # What nobody owns, because it was registered without authentication, is counted for nobody.
        if owner and sum(each["owner"] == owner for each in self.apps.values()) >= MOST_APPS:
            raise Refused("QuotaExceeded")
        self.apps[app_id] = {"name": name, "owner": owner, "state": "NOT_READY", "pending": None}
        return self._happened()

    def describe(self, app_id: str, name: str) -> bool:
        app = self._app(app_id)
        if app["name"] == name:
            return False
        app["name"] = name
        return self._happened()

    def confirm_ready(self, app_id: str) -> bool:
        app = self._app(app_id)
        if app["state"] == "READY":
            return False
        if app["state"] != "NOT_READY":
            raise Refused("StateConflict")
        app["state"] = "READY"
        return self._happened()

    def request_end(self, app_id: str, action: str, timeout_s: int, now_ns: int) -> bool:
        app = self._app(app_id)
        if app["state"] in (action, GOAL[action]):
            return False
        if app["state"] in ("STOPPING", "TERMINATING", "TERMINATED"):
            raise Refused("StateConflict")
        if timeout_s == 0 or app["state"] == "STOPPED":
            return self._end(app_id, action)
        app.update(state=action, pending=(action, timeout_s, now_ns + timeout_s * 10**9))
        for subscription_id, subscription in self.subscriptions.items():
            if subscription["app"] == app_id and subscription["topic"] == END_TOPIC:
                self._told[subscription_id] = [(action, timeout_s)]
        return self._happened()

    def confirm_end(self, app_id: str, action: str) -> bool:
        pending = self._app(app_id)["pending"]
        if pending is None:
            return False
        if pending[0] != action:
            raise Refused("StateConflict")
        return self._end(app_id, action)

    def end_overdue(self, app_id: str, now_ns: int) -> bool:
        pending = self.apps.get(app_id, {}).get("pending")
        return pending is not None and pending[2] <= now_ns and self._end(app_id, pending[0])

    def start_again(self, app_id: str) -> bool:
        app = self._app(app_id)
        if app["state"] in ("NOT_READY", "READY"):
            return False
        if app["state"] != "STOPPED":
            raise Refused("StateConflict")
        app["state"] = "NOT_READY"
        return self._happened()

    def remove(self, app_id: str) -> bool:
        self._app(app_id)
        if app_id in self.clients:
            self._refuse_last_administrator(app_id)
        self._drop_subscriptions_of(app_id)
        self._drop_services_of(app_id)
        del self.apps[app_id]
        self.clients.pop(app_id, None)
        return self._happened()

    def _end(self, app_id: str, action: str) -> bool:
        self.apps[app_id].update(state=GOAL[action], pending=None)
        if action == "TERMINATING":
            self._drop_subscriptions_of(app_id)
        self._drop_services_of(app_id)
        return self._happened()

    # Services

    def register_service(self, app_id: str, service_id: str, offer: dict[str, Any]) -> bool:
        self._running_app(app_id)
        if sum(each["app"] == app_id for each in self.services.values()) >= MOST_SERVICES:
            raise Refused("QuotaExceeded")
        self.services[service_id] = {"app": app_id, **offer}
        self._announce("ADDED", service_id)
        return self._happened()

    def update_service(self, app_id: str, service_id: str, offer: dict[str, Any]) -> bool:
        before = self.service(app_id, service_id)
        interval_s = offer["interval_s"] if offer["interval_s"] is not None else before["interval_s"]
        after = {"app": app_id, **offer, "interval_s": interval_s}
        if after == before:
            return False
        self.services[service_id] = after
        same_but_for_state = before | {"state": after["state"]} == after
        self._announce("STATE_CHANGED" if same_but_for_state else "ATTRIBUTES_CHANGED", service_id)
        return self._happened()

    def remove_service(self, app_id: str, service_id: str) -> bool:
        self.service(app_id, service_id)
        self._drop_service(service_id)
        return self._happened()

    def heartbeat(self, app_id: str, service_id: str) -> bool:
        service = self.service(app_id, service_id)
        if service["interval_s"] is None:
            raise Refused("LivenessNotMonitored")
        return service["state"] == "SUSPENDED" and self._set_state(service_id, "ACTIVE")

    def suspend(self, service_id: str) -> bool:
        return self._set_state(service_id, "SUSPENDED")

    def _set_state(self, service_id: str, state: str) -> bool:
        self.services[service_id]["state"] = state
        self._announce("STATE_CHANGED", service_id)
        return self._happened()

    # Subscriptions and outboxes

    def subscribe(self, app_id: str, subscription_id: str, wish: dict[str, Any]) -> bool:
        self._running_app(app_id)
        if sum(each["app"] == app_id for each in self.subscriptions.values()) >= MOST_SUBSCRIPTIONS:
            raise Refused("QuotaExceeded")
        self.subscriptions[subscription_id] = {"app": app_id, **wish}
        self.outboxes[subscription_id] = {"waiting": [], "dead": []}
        if wish["test"]:
            self._told[subscription_id] = []
        return self._happened()

    def unsubscribe(self, app_id: str, topic: str, subscription_id: str) -> bool:
        self._app(app_id)
        subscription = self.subscriptions.get(subscription_id)
        if subscription is None or (subscription["app"], subscription["topic"]) != (app_id, topic):
            raise Refused("UnknownSubscription")
        self._drop_subscription(subscription_id)
        return self._happened()

    def settle(self, subscription_id: str, sequences: list[int]) -> bool:
        if subscription_id not in self.outboxes:
            return False
        box = self.outboxes[subscription_id]
        box["waiting"] = [each for each in box["waiting"] if each[0] not in sequences]
        return self._happened()

    def bury(self, subscription_id: str, sequence: int, reason: str) -> bool:
        box = self.outboxes.get(subscription_id, {"waiting": [], "dead": []})
        for each in [each for each in box["waiting"] if each[0] == sequence]:
            box["waiting"].remove(each)
            box["dead"].append((each, reason))
            return self._happened()
        return False

    def revive(self, subscription_id: str) -> bool:
        box = self._outbox(subscription_id)
        if not box["dead"]:
            return False
        box["waiting"] = sorted([*box["waiting"], *(each for each, _ in box["dead"])], key=lambda each: each[0])
        box["dead"] = []
        return self._happened()

    def drop_dead_letters(self, subscription_id: str) -> bool:
        box = self._outbox(subscription_id)
        if not box["dead"]:
            return False
        box["dead"] = []
        return self._happened()

    # Credentials

    def add_client(self, client_id: str, scopes: frozenset[str]) -> bool:
        if client_id in self.clients:
            raise Refused("ClientExists")
        self.clients[client_id] = scopes
        return self._happened()

    def renew_secret(self, client_id: str) -> bool:
        self._client(client_id)
        return self._happened()

    def remove_client(self, client_id: str) -> bool:
        self._client(client_id)
        self._refuse_last_administrator(client_id)
        del self.clients[client_id]
        return self._happened()

    def _refuse_last_administrator(self, client_id: str) -> None:
        if [each for each, scopes in self.clients.items() if "admin" in scopes] == [client_id]:
            raise Refused("LastAdministrator")

    # What all changes share

    def service(self, app_id: str, service_id: str) -> dict[str, Any]:
        self._app(app_id)
        service = self.services.get(service_id)
        if service is None or service["app"] != app_id:
            raise Refused("UnknownService")
        return service

    def _app(self, app_id: str) -> dict[str, Any]:
        if app_id not in self.apps:
            raise Refused("UnknownAppInstance")
        return self.apps[app_id]

    def _running_app(self, app_id: str) -> None:
        if self._app(app_id)["state"] in ENDED:
            raise Refused("StateConflict")

    def _client(self, client_id: str) -> None:
        if client_id not in self.clients:
            raise Refused("UnknownClient")

    def _outbox(self, subscription_id: str) -> dict[str, list[Any]]:
        if subscription_id not in self.outboxes:
            raise Refused("UnknownSubscription")
        return self.outboxes[subscription_id]

    def _drop_subscriptions_of(self, app_id: str) -> None:
        for each in [each for each, subscription in self.subscriptions.items() if subscription["app"] == app_id]:
            self._drop_subscription(each)

    def _drop_subscription(self, subscription_id: str) -> None:
        del self.subscriptions[subscription_id], self.outboxes[subscription_id]

    def _drop_services_of(self, app_id: str) -> None:
        for each in [each for each, service in self.services.items() if service["app"] == app_id]:
            self._drop_service(each)

    def _drop_service(self, service_id: str) -> None:
        self._announce("REMOVED", service_id)
        del self.services[service_id]

    def _announce(self, change: str, service_id: str) -> None:
        service = self.services[service_id]
        for subscription_id, wanted in self.subscriptions.items():
            if (
                wanted["topic"] == SERVICE_TOPIC
                and self.apps[wanted["app"]]["state"] not in ENDED
                and (wanted["names"] is None or service["name"] in wanted["names"])
                and (wanted["categories"] is None or service["category"] in wanted["categories"])
                and (wanted["states"] is None or service["state"] in wanted["states"])
            ):
                self._told.setdefault(subscription_id, []).append((change, service_id, service["state"]))

    def _happened(self) -> bool:
        """One change is one revision, and at most one notification for each subscription."""
        self.revision += 1
        for subscription_id, content in self._told.items():
            self.outboxes[subscription_id]["waiting"].append((self.revision, content))
        self._told = {}
        return True
