"""Watching changes: resumed over restarts without gap or repetition, bounded, and filtered."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import CategoryRef, ServiceState
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.change_feed import ChangeFeed, WatchFilter
from mec_platform.registry.errors import ChangesCompacted, RevisionAhead
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.registry.histories import Recorder, Seen, complaints
from tests.registry.services import GREETING, HOST, make_app, running_host

PICK = st.integers(0, 99)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["register", "update", "suspend", "remove", "leave"]), PICK),
    st.tuples(st.sampled_from(["app", "together", "restart", "compact", "watch", "resume", "resume late"]), PICK),
)


def drain(watcher) -> list[Seen]:
    seen = []
    while (changes := watcher.take()) is not None:
        for change in changes.changes:
            seen.append(Seen(changes.revision, change.kind, change.service.service_id, change.service.version))
    return seen


class Story:
    """A registry that lives through steps, and one watcher that comes and goes."""

    def __init__(self, log: SqliteEventLog) -> None:
        self.log = log
        self.recorder = Recorder()
        self.apps: list[str] = []
        self.version = 0
        self.began_after, self.came_to, self.seen = 0, 0, list[Seen]()
        self.compacted = False

    async def begin(self) -> None:
        self.host = HostRegistry(Registry(self.log), locality=HOST)
        self.host.registry.add_listener(self.recorder.note)
        await self.host.start()

    async def take(self, step: str, pick: int) -> None:
        host = self.host
        services = sorted(host.registry.state.services)
        service = host.registry.state.services[services[pick % len(services)]] if services else None
        match step:
            case "app":
                app = await host.applications.register(
                    AppDescription(name="app"), app_instance_id=f"app-{len(self.apps)}"
                )
                self.apps.append(app.app_instance_id)
            case "register" if self.apps and self.apps[pick % len(self.apps)] in host.registry.state.apps:
                await host.services.register_service(self.apps[pick % len(self.apps)], self.new_description())
            case "together" if self.apps and self.apps[pick % len(self.apps)] in host.registry.state.apps:
                app_id = self.apps[pick % len(self.apps)]
                descriptions = [self.new_description() for _ in range(3)]
                await asyncio.gather(*(host.services.register_service(app_id, each) for each in descriptions))
            case "update" if service is not None:
                await host.services.update_service(service.app_instance_id, service.service_id, self.new_description())
            case "suspend" if service is not None:
                suspended = replace(service, state=ServiceState.SUSPENDED)
                await host.services.update_service(service.app_instance_id, service.service_id, suspended)
            case "remove" if service is not None:
                await host.services.remove_service(service.app_instance_id, service.service_id)
            case "leave" if service is not None:
                await host.applications.remove(service.app_instance_id)
            case "restart":
                await host.stop()
                await self.begin()
            case "compact":
                await host.registry.compact()
            case "watch":
                self.began_after = self.came_to = host.registry.state.revision
                self.seen = []
            case "resume" | "resume late":
                self.resume(late=step == "resume late")

    def new_description(self):
        self.version += 1
        return replace(GREETING, version=str(self.version))

    def resume(self, *, late: bool) -> None:
        feed = self.host.changes
        try:
            with feed.watch(self.came_to) as watcher:
                self.seen += drain(watcher)
                self.came_to = watcher.seen
        except ChangesCompacted:
            assert self.came_to < feed.compacted_revision
            self.began_after, self.came_to, self.seen = feed.revision, feed.revision, []
        assert complaints(self.recorder.happened, self.seen, self.began_after, self.came_to) == []


@settings(max_examples=60, derandomize=True)
@given(st.lists(STEPS, min_size=10, max_size=40))
def test_a_watcher_that_resumes_over_restarts_and_compactions_misses_nothing_and_sees_nothing_twice(steps):
    async def live() -> None:
        log = await SqliteEventLog.open(":memory:")
        story = Story(log)
        await story.begin()
        await story.take("app", 0)
        for step, pick in steps:
            await story.take(step, pick)
        story.resume(late=False)
        # A watcher that never saw a compaction begins where the log does.
        with story.host.changes.watch(story.host.changes.compacted_revision) as watcher:
            seen = drain(watcher)
        after = story.host.changes.compacted_revision
        assert complaints(story.recorder.happened, seen, after, story.host.registry.state.revision) == []
        await story.host.stop()
        await log.close()

    asyncio.run(live())


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        ([2, 1], "out of order"),
        ([1, 1, 2], "repeated"),
        ([1], "missing"),
        ([1, 2, 3], "never happened"),
        ([1, 2], None),
    ],
)
def test_the_checker_of_histories_finds_what_is_wrong(seen, complaint):
    happened = [Seen(each, ChangeType.ADDED, f"s{each}", "1") for each in (1, 2)]
    found = complaints(happened, [Seen(each, ChangeType.ADDED, f"s{each}", "1") for each in seen], 0, 2)
    assert (complaint is None and not found) or any(each.startswith(complaint) for each in found)


async def test_changes_of_before_a_restart_are_there_behind_the_snapshot_and_not_before_it(clock, tmp_path):
    async with running_host(clock, tmp_path / "log") as host:
        app_id = await make_app(host)
        first = await host.services.register_service(app_id, GREETING)
        await host.registry.compact()
        snapshot = host.registry.state.revision
        second = await host.services.register_service(app_id, GREETING)
    async with running_host(clock, tmp_path / "log") as host:
        with host.changes.watch(snapshot) as watcher:
            (seen,) = drain(watcher)
            assert (seen.service_id, seen.kind) == (second.service_id, ChangeType.ADDED)
        with pytest.raises(ChangesCompacted) as refusal, host.changes.watch(snapshot - 1):
            pass
        assert refusal.value.current == host.registry.state.revision
        # What was known at the snapshot is known: its removal is seen as what it was before.
        await host.services.remove_service(app_id, first.service_id)
        with host.changes.watch(host.registry.state.revision - 1) as watcher:
            assert watcher.take().changes[0].before == first


async def test_a_revision_that_is_yet_to_come_is_refused(clock):
    async with running_host(clock) as host:
        with pytest.raises(RevisionAhead, match="at revision 0"), host.changes.watch(1):
            pass


async def test_what_leaves_with_its_application_comes_as_one(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        for _ in range(3):
            await host.services.register_service(app_id, GREETING)
        with host.changes.watch() as watcher:
            await host.applications.remove(app_id)
            changes = watcher.take()
            assert [each.kind for each in changes.changes] == [ChangeType.REMOVED] * 3
            assert (watcher.take(), watcher.seen) == (None, host.registry.state.revision)


async def test_a_slow_watcher_falls_out_of_the_ring_and_holds_nobody_up():
    log = await SqliteEventLog.open(":memory:")
    registry = Registry(log)
    feed = ChangeFeed(registry, capacity=5)
    host = HostRegistry(registry, locality=HOST)
    await host.start()
    app_id = await make_app(host)
    with feed.watch() as slow, feed.watch() as quick:
        for number in range(5):
            await host.services.register_service(app_id, GREETING)
            assert len(drain(quick)) == 1
            assert (slow.lag, quick.lag) == (number + 1, 0)
        await host.services.register_service(app_id, GREETING)
        with pytest.raises(ChangesCompacted):
            slow.take()
        assert len(drain(quick)) == 1
        assert (feed.size, feed.watchers, feed.largest_lag) == (5, 2, 6)
    assert feed.watchers == 0
    await host.stop()
    await log.close()


async def test_a_change_that_is_larger_than_the_ring_is_still_one(clock):
    log = await SqliteEventLog.open(":memory:")
    registry = Registry(log)
    feed = ChangeFeed(registry, capacity=2)
    host = HostRegistry(registry, locality=HOST)
    await host.start()
    app_id = await make_app(host)
    for _ in range(5):
        await host.services.register_service(app_id, GREETING)
    with feed.watch() as watcher:
        await host.applications.remove(app_id)
        assert len(watcher.take().changes) == 5
    await host.stop()
    await log.close()


async def test_a_waiting_watcher_wakes_at_a_change(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        with host.changes.watch() as watcher:
            waiting = host.changes.wait(watcher)
            assert not waiting.done()
            await host.services.register_service(app_id, GREETING)
            await waiting
            assert watcher.take() is not None


async def test_a_state_that_is_taken_over_from_another_registrys_snapshot_sends_watchers_back_to_listing():
    log = await SqliteEventLog.open(":memory:")
    one, other = (HostRegistry(Registry(log), locality=HOST) for _ in range(2))
    await one.start()
    await other.start()
    with one.changes.watch() as watcher:
        app_id = await make_app(other)
        await other.services.register_service(app_id, GREETING)
        await other.registry.compact()
        await make_app(one)
        with pytest.raises(ChangesCompacted):
            watcher.take()
    with one.changes.watch() as watcher:
        assert watcher.take() is None
    # What only the heartbeats' side knew of is forgotten with a service that went unseen.
    (service_id,) = one.registry.state.services
    assert service_id in one.services._leases
    assert one.services.kpis.update(service_id, Kpis(measured_unix_ns=1), 1)
    await other.services.remove_service(app_id, service_id)
    await other.registry.compact()
    await make_app(one)
    assert service_id not in one.services._leases
    assert one.services.kpis.get(service_id) is None
    await one.stop()
    await other.stop()
    await log.close()


CATEGORY = CategoryRef("urn:c", "c", "c", "1")
WANTED = replace(GREETING, category=CATEGORY, capabilities=Capabilities(model="smollm2"))


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (WatchFilter(), True),
        (WatchFilter(names=frozenset({"greeting", "x"})), True),
        (WatchFilter(names=frozenset({"x"})), False),
        (WatchFilter(category_ids=frozenset({"c"})), True),
        (WatchFilter(category_ids=frozenset({"x"})), False),
        (WatchFilter(app_instance_ids=frozenset({"x"})), False),
        (WatchFilter(states=frozenset({"ACTIVE"})), True),
        (WatchFilter(states=frozenset({"INACTIVE"})), False),
        (WatchFilter(models=frozenset({"smollm2"})), True),
        (WatchFilter(models=frozenset({"llama"})), False),
        (WatchFilter(names=frozenset({"greeting"}), models=frozenset({"llama"})), False),
        (WatchFilter(place=HOST), True),
        (WatchFilter(place=Locality(mec_host="elsewhere")), False),
    ],
)
async def test_filters_combine_attributes_with_and_and_values_with_or(clock, wanted, matches):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        with host.changes.watch() as watcher:
            await host.services.register_service(app_id, WANTED)
            assert bool(wanted.select(watcher.take())) is matches


async def test_for_a_filter_a_service_is_added_when_it_begins_to_match_and_removed_when_it_ends_to(clock):
    active = WatchFilter(states=frozenset({"ACTIVE"}))
    async with running_host(clock) as host:
        app_id = await make_app(host)
        with host.changes.watch() as watcher:
            service = await host.services.register_service(app_id, GREETING)
            for state in (ServiceState.INACTIVE, ServiceState.INACTIVE, ServiceState.ACTIVE):
                described = replace(GREETING, state=state, version=f"of {state}")
                await host.services.update_service(app_id, service.service_id, described)
            await host.services.remove_service(app_id, service.service_id)
            kinds = []
            while (changes := watcher.take()) is not None:
                kinds.append([kind for _, kind in active.select(changes)])
        assert kinds == [[ChangeType.ADDED], [ChangeType.REMOVED], [ChangeType.ADDED], [ChangeType.REMOVED]]
