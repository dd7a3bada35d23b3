"""Whatever happens to a registry, and to the log below it, it knows what `model` knows, and so does its successor.

Random sequences of changes, of time passing, of failures of the log, of changes through another registry over the same
log, of compactions, restarts and crashes; after each step everything is compared.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mec_platform.domain.applications import AppDescription, OperationAction, PendingTermination
from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    SerializerType,
    ServiceDescription,
    ServiceInfo,
    ServiceQuery,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.domain.subscriptions import AvailabilityFilter, Delivery, Notification, Subscription, Topic
from mec_platform.registry.errors import LogUnavailable, RegistryError, RevisionConflict
from mec_platform.registry.event_codec import decode_event
from mec_platform.registry.event_log import Record
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import STREAM, Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.registry.state import RegistryState
from mec_platform.registry.state_codec import decode_state, encode_state
from mec_platform.registry.transitions import apply_events
from tests.registry.model import MOST_APPS, MOST_SERVICES, MOST_SUBSCRIPTIONS, SERVICE_TOPIC, Model, Refused

QUOTAS = Quotas(services_per_app=MOST_SERVICES, subscriptions_per_app=MOST_SUBSCRIPTIONS, apps_per_client=MOST_APPS)
TRANSPORT = TransportInfo(
    id="rest",
    name="REST",
    type=TransportType.REST_HTTP,
    protocol="HTTP",
    version="1.1",
    endpoint=EndPoint(uris=("http://192.0.2.1/",)),
)
GRACE = 1.5
"""A service that was silent for so many intervals has missed one."""

HANGS_S = 30.0
"""Nothing here takes a hundredth of that: a registry whose writer has ended fails the test instead of holding it up."""

NAMES = st.sampled_from(["greeting", "weather"])
APP_IDS = st.sampled_from(["app-a", "app-b", "app-c"])
NEW_APP_IDS = st.one_of(APP_IDS, st.sampled_from(["id-1", "id-2"]))
CLIENT_IDS = st.sampled_from(["app-a", "app-b", "operator"])
SCOPES = st.sampled_from([Scope.ADMIN, Scope.APP_SUPPORT])
SECONDS = st.sampled_from([0.0, 1.0, 6.0, 40.0])
"""Within an interval of any service, between an interval and the end of its grace, and beyond all of them."""

ACTIONS = st.sampled_from(list(OperationAction))
NOBODY = 11
PICK = st.integers(0, NOBODY)
OFFERS = st.fixed_dictionaries(
    {
        "name": NAMES,
        "category": st.sampled_from([None, "vision", "speech"]),
        "state": st.sampled_from(["ACTIVE", "INACTIVE"]),
        "interval_s": st.sampled_from([5, 5, 10, None]),
    }
)
WISHES = st.one_of(
    st.fixed_dictionaries(
        {
            "topic": st.just(SERVICE_TOPIC),
            "names": st.sampled_from([None, frozenset({"greeting"}), frozenset({"greeting", "weather"})]),
            "categories": st.none(),
            "states": st.sampled_from([None, frozenset({"ACTIVE"}), frozenset({"SUSPENDED"})]),
            "test": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "topic": st.sampled_from([each.value for each in Topic]),
            "names": st.none(),
            "categories": st.sampled_from([None, frozenset({"vision"})]),
            "states": st.none(),
            "test": st.just(False),
        }
    ),
)

WATCHES_ALL: dict[str, Any] = {
    "topic": SERVICE_TOPIC,
    "names": None,
    "categories": None,
    "states": None,
    "test": False,
}


class HandClock:
    """Implements `Clock`; nothing wakes by itself, so that deadlines are looked at when the machine says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return 1_700_000_000 * 10**9 + int(self.now_s * 10**9)

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


class FailingLog(SqliteEventLog):
    """A real log whose next append fails as `trouble` says: before it, after it (nobody knows), or for losing a race."""

    trouble = ""

    async def append(self, stream: str, records: Sequence[Record], expected_revision: int | None = None) -> int:
        trouble = self.trouble
        if trouble == "lost race":
            self.trouble = ""
            raise RevisionConflict(stream, expected_revision or 0, (expected_revision or 0) + 1)
        if trouble == "nothing written":
            raise LogUnavailable("the disk is away")
        revision = await super().append(stream, records, expected_revision)
        if trouble == "written unnoticed":
            raise LogUnavailable("the disk has not answered")
        return revision


class RegistryMachine(RuleBasedStateMachine):
    """`known` is what the registry must show; `written` what the log holds beyond it, where the registry cannot know yet."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = HandClock()
        self.known = Model()
        self.written: Model | None = None
        self.deadlines: dict[str, tuple[int, float]] = {}
        self.numbers = 0
        self.open_file(self.folder / "state-0.db")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, HANGS_S))

    def new_id(self) -> str:
        self.numbers += 1
        return f"id-{self.numbers}"

    async def opened(self, path: Path) -> tuple[FailingLog, HostRegistry]:
        log = await FailingLog.open(path)
        registry = Registry(log, clock=self.clock, new_id=self.new_id)
        host = HostRegistry(registry, locality=Locality(mec_host="host-1"), quotas=QUOTAS)
        await host.start()
        return log, host

    def open_file(self, path: Path) -> None:
        self.path = path
        self.log, self.host = self.run(self.opened(path))
        self.known, self.written = self.written or self.known, None
        self.deadlines = {}
        self.expect_heartbeats()

    def teardown(self) -> None:
        self.run(self.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    async def close(self) -> None:
        await self.host.stop()
        await self.log.close()

    # One change, with whatever trouble the log is in

    def change(self, work: Coroutine[Any, Any, Any], expected: Callable[[Model], bool]) -> bool:
        """Makes a change and holds its outcome against what `expected` does to the model; whether it was granted."""
        outcome = self.expected_outcome(expected)
        try:
            self.run(work)
            found = ""
        except (RegistryError, LogUnavailable) as error:
            found = type(error).__name__
        assert found == outcome
        self.log.trouble = ""
        self.expect_heartbeats()
        return not found

    def expected_outcome(self, expected: Callable[[Model], bool]) -> str:
        """Brings the model to what the registry must show; the name of the error that it must raise, or nothing."""
        after = deepcopy(self.known)
        try:
            if not expected(after):
                return ""
            if self.log.trouble == "nothing written":
                return "LogUnavailable"
            if self.written is not None:
                # The compare-and-set fails; what was not known is read, and the change decided anew.
                self.known, self.written = self.written, None
                after = deepcopy(self.known)
                if not expected(after):
                    return ""
        except Refused as refusal:
            return str(refusal)
        if self.log.trouble == "written unnoticed":
            self.written = after
            return "LogUnavailable"
        self.known = after
        return ""

    def expect_heartbeats(self) -> None:
        """A lease begins when its service or its interval is new to the registry."""
        intervals = {each: service["interval_s"] for each, service in self.known.services.items()}
        self.deadlines = {
            each: self.deadlines[each]
            if self.deadlines.get(each, (0,))[0] == interval_s
            else (interval_s, self.clock.now_s + GRACE * interval_s)
            for each, interval_s in intervals.items()
            if interval_s is not None
        }

    def heard_of(self, service_id: str) -> None:
        if service_id in self.deadlines:
            interval_s, _ = self.deadlines[service_id]
            self.deadlines[service_id] = (interval_s, self.clock.now_s + GRACE * interval_s)

    def truth(self) -> Model:
        """What the log holds."""
        return self.written or self.known

    def pick(self, ids: dict[str, Any], number: int) -> str:
        """One of these ids, now and then one that nobody has."""
        return [*ids][number % len(ids)] if ids and number != NOBODY else "nobody"

    def pick_service(self, number: int) -> tuple[str, str]:
        service_id = self.pick(self.known.services, number)
        return self.known.services.get(service_id, {"app": "app-a"})["app"], service_id

    @initialize(offers=st.lists(OFFERS, min_size=2, max_size=3), wish=WISHES, scope=SCOPES)
    def begin_with_something(self, offers: list[dict[str, Any]], wish: dict[str, Any], scope: Scope) -> None:
        """Two applications that watch each other: most changes concern somebody from the beginning."""
        for app_id in ("app-a", "app-b"):
            self.register(app_id, "greeting", "")
            self.subscribe(app_id, WATCHES_ALL)
        self.subscribe("app-b", wish)
        for app_id, offer in zip(("app-a", "app-b", "app-a"), offers, strict=False):
            self.register_service(app_id, offer)
        self.add_client("app-a", scope)

    # Application instances

    @rule(app_id=NEW_APP_IDS, name=NAMES, owner=st.sampled_from(["", "operator"]))
    def register(self, app_id: str, name: str, owner: str) -> None:
        work = self.host.applications.register(AppDescription(name=name), app_instance_id=app_id, owner=owner)
        self.change(work, lambda model: model.register(app_id, name, owner))

    @rule(app_id=APP_IDS, name=NAMES)
    def describe(self, app_id: str, name: str) -> None:
        work = self.host.applications.describe(app_id, AppDescription(name=name))
        self.change(work, lambda model: model.describe(app_id, name))

    @rule(app_id=APP_IDS)
    def confirm_ready(self, app_id: str) -> None:
        self.change(self.host.applications.confirm_ready(app_id), lambda model: model.confirm_ready(app_id))

    @rule(app_id=APP_IDS, action=ACTIONS, timeout_s=st.sampled_from([0, 30]))
    def request_end(self, app_id: str, action: OperationAction, timeout_s: int) -> None:
        now_ns = self.clock.unix_ns()
        work = self.host.applications.request_end(app_id, action, timeout_s)
        self.change(work, lambda model: model.request_end(app_id, action, timeout_s, now_ns))

    @rule(app_id=APP_IDS, action=ACTIONS)
    def confirm_end(self, app_id: str, action: OperationAction) -> None:
        work = self.host.applications.confirm_end(app_id, action)
        self.change(work, lambda model: model.confirm_end(app_id, action))

    @rule(app_id=APP_IDS, seconds=SECONDS)
    def look_at_deadline(self, app_id: str, seconds: float) -> None:
        self.clock.now_s += seconds
        now_ns = self.clock.unix_ns()
        self.change(self.host.applications.end_overdue(app_id), lambda model: model.end_overdue(app_id, now_ns))

    @rule(app_id=APP_IDS)
    def start_again(self, app_id: str) -> None:
        self.change(self.host.applications.start_again(app_id), lambda model: model.start_again(app_id))

    @rule(app_id=APP_IDS)
    def remove(self, app_id: str) -> None:
        self.change(self.host.applications.remove(app_id), lambda model: model.remove(app_id))

    # Services

    @rule(app_id=APP_IDS, offer=OFFERS)
    def register_service(self, app_id: str, offer: dict[str, Any]) -> None:
        service_id = f"id-{self.numbers + 1}"
        work = self.host.services.register_service(app_id, _description(offer))
        self.change(work, lambda model: model.register_service(app_id, service_id, offer))

    @rule(number=PICK, offer=OFFERS)
    def update_service(self, number: int, offer: dict[str, Any]) -> None:
        app_id, service_id = self.pick_service(number)
        work = self.host.services.update_service(app_id, service_id, _description(offer))
        if self.change(work, lambda model: model.update_service(app_id, service_id, offer)):
            self.heard_of(service_id)

    @rule(number=PICK)
    def remove_service(self, number: int) -> None:
        app_id, service_id = self.pick_service(number)
        work = self.host.services.remove_service(app_id, service_id)
        self.change(work, lambda model: model.remove_service(app_id, service_id))

    # Subscriptions

    @rule(app_id=APP_IDS, wish=WISHES)
    def subscribe(self, app_id: str, wish: dict[str, Any]) -> None:
        subscription_id = f"id-{self.numbers + 1}"
        work = self.host.subscriptions.subscribe(_subscription(app_id, wish))
        self.change(work, lambda model: model.subscribe(app_id, subscription_id, wish))

    @rule(number=PICK, topic=st.sampled_from(list(Topic)))
    def unsubscribe(self, number: int, topic: Topic) -> None:
        subscription_id = self.pick(self.known.subscriptions, number)
        app_id = self.known.subscriptions.get(subscription_id, {"app": "app-a"})["app"]
        work = self.host.subscriptions.unsubscribe(app_id, topic, subscription_id)
        self.change(work, lambda model: model.unsubscribe(app_id, topic, subscription_id))

    @rule(number=PICK, count=st.integers(1, 3))
    def settle(self, number: int, count: int) -> None:
        subscription_id, sequences = self.pick_waiting(number)
        work = self.host.subscriptions.settle({subscription_id: sequences[:count]})
        self.change(work, lambda model: model.settle(subscription_id, sequences[:count]))

    @rule(number=PICK)
    def bury(self, number: int) -> None:
        subscription_id, sequences = self.pick_waiting(number)
        sequence = sequences[0] if sequences else 1
        work = self.host.subscriptions.bury(subscription_id, sequence, "nobody listens")
        self.change(work, lambda model: model.bury(subscription_id, sequence, "nobody listens"))

    @rule(number=PICK)
    def revive(self, number: int) -> None:
        subscription_id = self.pick_with_dead_letters(number)
        self.change(self.host.subscriptions.revive(subscription_id), lambda model: model.revive(subscription_id))

    @rule(number=PICK)
    def drop_dead_letters(self, number: int) -> None:
        subscription_id = self.pick_with_dead_letters(number)
        work = self.host.subscriptions.drop_dead_letters(subscription_id)
        self.change(work, lambda model: model.drop_dead_letters(subscription_id))

    def pick_with_dead_letters(self, number: int) -> str:
        boxes = self.known.outboxes
        return self.pick({each: box for each, box in boxes.items() if box["dead"]} or boxes, number)

    def pick_waiting(self, number: int) -> tuple[str, list[int]]:
        full = {each: box for each, box in self.known.outboxes.items() if box["waiting"]}
        subscription_id = self.pick(full, number)
        box = self.known.outboxes.get(subscription_id, {"waiting": []})
        return subscription_id, [sequence for sequence, _ in box["waiting"]]

    # Credentials

    @rule(client_id=CLIENT_IDS, scope=SCOPES)
    def add_client(self, client_id: str, scope: Scope) -> None:
        work = self.host.credentials.adopt(client_id, "secret", [scope])
        self.change(work, lambda model: model.add_client(client_id, frozenset({scope.value})))

    @rule(client_id=CLIENT_IDS)
    def renew_secret(self, client_id: str) -> None:
        self.change(self.host.credentials.renew_secret(client_id), lambda model: model.renew_secret(client_id))

    @rule(client_id=CLIENT_IDS)
    def remove_client(self, client_id: str) -> None:
        self.change(self.host.credentials.remove(client_id), lambda model: model.remove_client(client_id))

    # Heartbeats

    @rule(number=PICK)
    def heartbeat(self, number: int) -> None:
        app_id, service_id = self.pick_service(number)
        work = self.host.services.heartbeat(app_id, service_id)
        if self.change(work, lambda model: model.heartbeat(app_id, service_id)):
            self.heard_of(service_id)

    @rule(seconds=SECONDS)
    def look_at_heartbeats(self, seconds: float) -> None:
        self.clock.now_s += seconds
        silent = self.silent_services()
        if silent and self.log.trouble == "nothing written":
            with pytest.raises(LogUnavailable):
                self.run(self.host.services.suspend_overdue())
            self.log.trouble = ""
            return
        if silent and self.written is not None:
            self.known, self.written = self.written, None
            self.expect_heartbeats()
        # Which of several comes first is not said; each is a change of its own.
        after, silent = deepcopy(self.known), sorted(set(silent) & set(self.silent_services()))
        if silent and self.log.trouble == "written unnoticed":
            self.log.trouble = ""
        suspended = self.run(self.host.services.suspend_overdue())
        assert sorted(suspended) == silent
        for service_id in suspended:
            after.suspend(service_id)
        self.known = after
        self.log.trouble = ""

    def silent_services(self) -> list[str]:
        return [
            each
            for each, (_, deadline_s) in self.deadlines.items()
            if deadline_s <= self.clock.now_s and self.known.services[each]["state"] == "ACTIVE"
        ]

    # The log

    @rule(trouble=st.sampled_from(["nothing written", "written unnoticed", "lost race"]))
    def bring_trouble(self, trouble: str) -> None:
        """The next append fails. Where it loses a race that nobody won, the change is decided again and made."""
        self.log.trouble = trouble

    @rule()
    def compact(self) -> None:
        self.run(self.host.registry.compact())

    @rule(app_id=APP_IDS, name=NAMES, compacts=st.booleans())
    def another_registry_registers(self, app_id: str, name: str, compacts: bool) -> None:
        self.rival(
            lambda host: host.applications.register(AppDescription(name=name), app_instance_id=app_id),
            lambda model: model.register(app_id, name, ""),
            compacts,
        )

    @rule(app_id=APP_IDS, compacts=st.booleans())
    def another_registry_removes(self, app_id: str, compacts: bool) -> None:
        self.rival(lambda host: host.applications.remove(app_id), lambda model: model.remove(app_id), compacts)

    def rival(
        self,
        work: Callable[[HostRegistry], Coroutine[Any, Any, Any]],
        expected: Callable[[Model], bool],
        compacts: bool,
    ) -> None:
        """A change through another registry over the same log, which this one does not hear of by itself."""
        truth, refused = deepcopy(self.truth()), False
        try:
            expected(truth)
        except Refused:
            refused = True

        async def make_it() -> None:
            log, host = await self.opened(self.path)
            try:
                if refused:
                    with pytest.raises(RegistryError):
                        await work(host)
                else:
                    await work(host)
                if compacts:
                    await host.registry.compact()
            finally:
                await host.stop()
                await log.close()

        self.run(make_it())
        if truth.revision > self.known.revision:
            self.written = truth

    @rule()
    def restart(self) -> None:
        self.run(self.close())
        self.open_file(self.path)

    @rule()
    def crash(self) -> None:
        """The process is gone without a word; its successor has the files as they are."""
        successor = self.copy_files()
        self.run(self.close())
        self.open_file(successor)

    @precondition(lambda self: self.known.apps)
    @rule(number=PICK, settled=st.integers(0, 2), more=st.integers(1, 4), steps=st.integers(0, 40))
    def crash_while_writing(self, number: int, settled: int, more: int, steps: int) -> None:
        """What was acknowledged is there; of what was not, the first changes may be there."""
        self.log.trouble = ""
        app_id = [*self.known.apps][number % len(self.known.apps)]
        first = self.new_id()
        # What another has written meanwhile is known from here on.
        self.change(
            self.host.applications.describe(app_id, AppDescription(name=first)),
            lambda model: model.describe(app_id, first),
        )
        if app_id not in self.known.apps:
            return
        names = [self.new_id() for _ in range(settled + more)]

        async def write_and_copy() -> tuple[int, Path]:
            for name in names[:settled]:
                await self.host.applications.describe(app_id, AppDescription(name=name))
            tasks = [
                asyncio.ensure_future(self.host.applications.describe(app_id, AppDescription(name=name)))
                for name in names[settled:]
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            acknowledged = settled + sum(task.done() for task in tasks)
            successor = self.copy_files()
            await asyncio.gather(*tasks)
            return acknowledged, successor

        acknowledged, successor = self.run(write_and_copy())
        self.run(self.close())
        possible = [deepcopy(self.known)]
        for name in names:
            possible.append(deepcopy(possible[-1]))
            possible[-1].describe(app_id, name)
        self.open_file(successor)
        (self.known,) = (each for each in possible if each.revision == self.host.registry.state.revision)
        assert self.known.revision >= possible[acknowledged].revision

    def copy_files(self) -> Path:
        successor = self.folder / f"state-{self.numbers}-{len(list(self.folder.iterdir()))}.db"
        for suffix in ("", "-wal"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                shutil.copy(file, successor.with_name(successor.name + suffix))
        return successor

    # What holds after every step

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.knows_what_the_model_knows()
        self.lists_the_oldest_first_and_finds_by_attributes()
        self.expects_heartbeats_of_what_sends_them()
        self.is_written_and_read_as_it_is()
        self.follows_from_the_log()

    def knows_what_the_model_knows(self) -> None:
        assert _facts(self.host.registry.state) == _model_facts(self.known)

    def lists_the_oldest_first_and_finds_by_attributes(self) -> None:
        assert [each.app_instance_id for each in self.host.applications.all()] == list(self.known.apps)
        for name in ("greeting", "weather"):
            found = self.host.services.services(ServiceQuery(names=frozenset({name})))
            assert [each.service_id for each in found] == [
                each for each, service in self.known.services.items() if service["name"] == name
            ]
        for app_id in self.known.apps:
            listed = [each.subscription_id for each in self.host.registry.state.subscriptions_of(app_id)]
            assert listed == [each for each, wish in self.known.subscriptions.items() if wish["app"] == app_id]

    def expects_heartbeats_of_what_sends_them(self) -> None:
        services = self.host.services
        for service_id, service in self.known.services.items():
            if service["interval_s"] is not None:
                assert services.liveness(service["app"], service_id).interval_s == service["interval_s"]

    def is_written_and_read_as_it_is(self) -> None:
        state = self.host.registry.state
        _assert_same(decode_state(b"".join(encode_state(state))), state)

    def follows_from_the_log(self) -> None:
        state = self.host.registry.state
        snapshot = self.run(self.log.read_snapshot(STREAM))
        if snapshot is not None and snapshot.revision > state.revision:
            return
        start = RegistryState() if snapshot is None else decode_state(snapshot.payload)
        entries = self.run(self.log.read(STREAM, start.revision))
        replayed, _ = apply_events(
            start, [decode_event(entry) for entry in entries if entry.revision <= state.revision]
        )
        _assert_same(replayed, state)
        everything, _ = apply_events(start, map(decode_event, entries))
        assert _facts(everything) == _model_facts(self.truth())


def _assert_same(one: RegistryState, other: RegistryState) -> None:
    assert one == other
    for index in ("services_by", "subscriptions_by", "apps_by"):
        assert getattr(one, index) == getattr(other, index)


def _description(offer: dict[str, Any]) -> ServiceDescription:
    category = offer["category"]
    return ServiceDescription(
        name=offer["name"],
        version="1",
        state=ServiceState(offer["state"]),
        transport=TRANSPORT,
        serializer=SerializerType.JSON,
        category=category and CategoryRef("urn:c", category, category, "1"),
        liveness_interval_s=offer["interval_s"],
    )


def _subscription(app_id: str, wish: dict[str, Any]) -> Subscription:
    return Subscription(
        subscription_id="",
        app_instance_id=app_id,
        topic=Topic(wish["topic"]),
        delivery=Delivery(callback_uri="http://192.0.2.1/", requests_test=wish["test"]),
        filter=AvailabilityFilter(
            names=wish["names"],
            category_ids=wish["categories"],
            states=wish["states"] and frozenset(map(ServiceState, wish["states"])),
        ),
    )


def _facts(state: RegistryState) -> dict[str, Any]:
    """A state in the words of the model."""
    return {
        "revision": state.revision,
        "apps": {
            each: (app.name, app.owner, app.state.value, app.termination and _pending(app.termination))
            for each, app in state.apps.items()
        },
        "services": {each: _service_facts(service) for each, service in state.services.items()},
        "subscriptions": {each: (wish.app_instance_id, wish.topic.value) for each, wish in state.subscriptions.items()},
        "waiting": {each: [_content(one) for one in box.waiting] for each, box in state.outboxes.items()},
        "dead": {
            each: [(_content(one.notification), one.reason) for one in box.dead] for each, box in state.outboxes.items()
        },
        "clients": {each: frozenset(map(str, client.scopes)) for each, client in state.clients.items()},
    }


def _service_facts(service: ServiceInfo) -> tuple[Any, ...]:
    category_id = service.category.id if service.category else None
    return service.app_instance_id, service.name, category_id, service.state.value, service.liveness_interval_s


def _pending(termination: PendingTermination) -> tuple[str, int, int]:
    return termination.action.value, termination.max_graceful_timeout_s, termination.deadline_unix_ns


def _content(notification: Notification) -> tuple[int, list[Any]]:
    told: list[Any] = [(each.change.value, each.service_id, each.state.value) for each in notification.services]
    if notification.termination is not None:
        told.append((notification.termination.action.value, notification.termination.max_graceful_timeout_s))
    return notification.sequence, told


def _model_facts(model: Model) -> dict[str, Any]:
    services = ("app", "name", "category", "state", "interval_s")
    return {
        "revision": model.revision,
        "apps": {each: (app["name"], app["owner"], app["state"], app["pending"]) for each, app in model.apps.items()},
        "services": {each: tuple(service[key] for key in services) for each, service in model.services.items()},
        "subscriptions": {each: (wish["app"], wish["topic"]) for each, wish in model.subscriptions.items()},
        "waiting": {each: box["waiting"] for each, box in model.outboxes.items()},
        "dead": {each: box["dead"] for each, box in model.outboxes.items()},
        "clients": model.clients,
    }


def check_sequences(sequences: int, steps: int) -> None:
    how = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(RegistryMachine, settings=how)


def test_a_registry_knows_what_follows_from_what_happened():
    check_sequences(60, 40)


@pytest.mark.thorough
def test_a_registry_knows_what_follows_from_what_happened_in_many_long_sequences():
    check_sequences(500, 60)
