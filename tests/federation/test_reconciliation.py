"""What a peer's services change here: single decisions, and what comes of any history of three hosts that lose each other."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import RegistrationKey, ServiceInfo, ServiceState
from mec_platform.registry.effects import AnnounceService
from mec_platform.registry.events import (
    AppRegistered,
    Event,
    Occurrence,
    PeerServicesChanged,
    ServiceRegistered,
    ServiceRemoved,
    ServiceUpdated,
)
from mec_platform.registry.federation.reconciliation import (
    Digests,
    Reconciliation,
    content_hash,
    decide_changes,
    decide_listing,
    decide_suspension,
    shared_view,
    steps_of,
)
from mec_platform.registry.state import RegistryState
from mec_platform.registry.transitions import apply_events
from tests.registry.services import GREETING

NAMES = ("a", "b", "c")


def service_of(host: str, service_id: str = "s", version: str = "1", **more: object) -> ServiceInfo:
    description = {name: getattr(GREETING, name) for name in ("name", "state", "transport", "serializer")}
    return ServiceInfo(
        **description,
        version=version,
        consumed_local_only=False,
        service_id=service_id,
        app_instance_id=f"app of {host}",
        locality=Locality(mec_host=host),
        **more,
    )


def copy_of(host: str, service_id: str = "s", version: str = "1", **more: object) -> ServiceInfo:
    return service_of(host, service_id, version, origin=host, **more)


def present(*services: ServiceInfo) -> dict[str, ServiceInfo]:
    return {each.service_id: each for each in services}


def test_what_is_new_or_different_is_put_and_what_is_as_it_should_be_is_left_alone():
    known = present(copy_of("b", "same"), copy_of("b", "other"))
    changed = copy_of("b", "other", "2")
    told = [copy_of("b", "same"), changed, copy_of("b", "new")]
    assert decide_changes(known, "b", told, ["nothing"]) == Reconciliation(put=(changed, copy_of("b", "new")))
    assert not decide_changes(present(*told), "b", told, [])


def test_a_list_removes_what_is_not_in_it():
    known = present(copy_of("b", "1"), copy_of("b", "2"))
    assert decide_listing(known, known, "b", [copy_of("b", "2")]) == Reconciliation(removed=("1",))


@pytest.mark.parametrize(
    ("known", "told", "reason"),
    [
        (service_of("a"), copy_of("b"), "this host"),
        (copy_of("c"), copy_of("b"), "one of c"),
        (None, replace(copy_of("b"), locality=Locality(mec_host="a")), "said to be at 'a'"),
    ],
)
def test_a_peer_cannot_take_an_id_that_is_anothers_or_say_that_its_service_is_elsewhere(known, told, reason):
    decision = decide_changes(present(known) if known else {}, "b", [told], [])
    assert not decision
    assert [(each.service_id, each.service) for each in decision.refused] == [("s", told)]
    assert reason in decision.refused[0].reason


@pytest.mark.parametrize("known", [service_of("a"), copy_of("c")])
def test_a_peer_cannot_remove_what_is_anothers(known):
    assert decide_changes(present(known), "b", [], ["s"]) == Reconciliation()


def test_of_a_silent_peer_only_active_services_are_suspended():
    active, inactive = copy_of("b", "1"), replace(copy_of("b", "2"), state=ServiceState.INACTIVE)
    assert decide_suspension([active, inactive]) == (replace(active, state=ServiceState.SUSPENDED),)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(1, 4))
def test_steps_are_the_whole_and_only_the_last_one_has_its_cursor(puts: int, removals: int, largest: int):
    whole = Reconciliation(
        tuple(copy_of("b", str(each)) for each in range(puts)), tuple(f"gone {each}" for each in range(removals))
    )
    steps = list(steps_of(whole, PeerCursor("r", 7), largest))
    assert tuple(each for step in steps for each in step.put) == whole.put
    assert tuple(each for step in steps for each in step.removed) == whole.removed
    assert all(len(step.put) + len(step.removed) <= largest for step in steps)
    assert [step.cursor.revision for step in steps] == [None] * (len(steps) - 1) + [7]


def test_a_digest_is_of_what_other_hosts_know_and_of_nothing_else():
    own = service_of("b", liveness_interval_s=5, evict_after_intervals=3, registration=RegistrationKey("k", "d"))
    assert content_hash(own) == content_hash(copy_of("b"))
    assert Digests().digest_of([own]) == Digests().digest_of([copy_of("b")])
    assert Digests().digest_of([own]) != Digests().digest_of([])
    assert shared_view(own) == service_of("b")


@given(st.permutations(range(5)))
def test_a_digest_does_not_depend_on_order_or_on_what_was_asked_before(order: list[int]):
    services = [copy_of("b", str(each)) for each in range(5)]
    digests = Digests()
    assert digests.digest_of(services[each] for each in order) == Digests().digest_of(services)
    changed = [*services[1:], copy_of("b", "0", "2")]
    assert digests.digest_of(changed) == Digests().digest_of(changed) != Digests().digest_of(services)
    assert digests.digest_of([]) == Digests().digest_of([])


# Three hosts


@dataclass
class ModelHost:
    """The state of a host, its shared history as a peer reads it, and which of it peers can still be told."""

    name: str
    registry_id: str
    state: RegistryState = field(default_factory=RegistryState)
    history: list[tuple[int, ServiceInfo | str]] = field(default_factory=list)
    compacted: int = 0
    told: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.apply(
            AppRegistered(
                AppInstance(app_instance_id=f"app of {self.name}", name="app", locality=Locality(mec_host=self.name))
            )
        )

    def apply(self, event: Event) -> None:
        revision = self.state.revision + 1
        self.state, effects = apply_events(self.state, [Occurrence(revision, 1, event)])
        for effect in effects:
            if not isinstance(effect, AnnounceService):
                continue
            service = effect.service
            if service.origin:
                self.told.append((service.service_id, service.version))
            else:
                gone = effect.change.value == "REMOVED"
                self.history.append((revision, service.service_id if gone else shared_view(service)))

    def own(self) -> list[ServiceInfo]:
        return [each for each in self.state.services.values() if not each.origin]

    def copies(self, peer: str) -> dict[str, ServiceInfo]:
        return {each: self.state.services[each] for each in self.state.services_with(("origin", peer))}


def pull(follower: ModelHost, owner: ModelHost, most: int) -> None:
    """One connection: what `PeerLink` does with what `Sharing` tells, ended after `most` events."""
    cursor = follower.state.peers.get(owner.name)
    resumes = (
        cursor is not None
        and cursor.registry_id == owner.registry_id
        and cursor.revision is not None
        and owner.compacted <= cursor.revision <= owner.state.revision
    )
    here = PeerCursor(owner.registry_id, owner.state.revision)
    events: list[Event] = []
    if resumes:
        assert cursor is not None
        assert cursor.revision is not None
        for revision, change in owner.history:
            if revision > cursor.revision:
                put = [] if isinstance(change, str) else [replace(change, origin=owner.name)]
                removed = [change] if isinstance(change, str) else []
                decision = decide_changes(follower.state.services, owner.name, put, removed)
                at = PeerCursor(owner.registry_id, revision)
                follower_event = PeerServicesChanged(owner.name, at, decision.put, decision.removed)
                if most == 0:
                    return
                follower.apply(follower_event)
                most -= 1
    else:
        listed = [replace(shared_view(each), origin=owner.name) for each in owner.own()]
        copies = follower.copies(owner.name)
        whole = decide_listing(follower.state.services, copies, owner.name, listed)
        events = [
            PeerServicesChanged(owner.name, step.cursor, step.put, step.removed) for step in steps_of(whole, here, 2)
        ]
    for event in events[:most]:
        follower.apply(event)
    theirs = Digests().digest_of(owner.own())
    if most > len(events) and Digests().digest_of(follower.copies(owner.name).values()) != theirs:
        # As after any mismatch: the list is compared.
        lost = PeerServicesChanged(owner.name, PeerCursor(owner.registry_id, None))
        follower.apply(lost)
        pull(follower, owner, 1_000)


STEPS = st.tuples(
    st.sampled_from(
        [
            "register",
            "register",
            "update",
            "remove",
            "pull",
            "pull",
            "part",
            "heal",
            "compact",
            "lose",
            "restore",
            "suspend",
        ]
    ),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.integers(0, 5),
)


def live(steps: Iterable[tuple[str, str, str, int]]) -> dict[str, ModelHost]:
    """Hosts after these steps; what a host ever shared, and no other host's, is all that is ever seen of it."""
    hosts = {name: ModelHost(name, f"{name} 0") for name in NAMES}
    kept = dict(hosts)
    parted: set[frozenset[str]] = set()
    for number, (step, name, other, pick) in enumerate(steps):
        host, own = hosts[name], sorted(hosts[name].own(), key=lambda each: each.service_id)
        match step:
            case "register":
                host.apply(ServiceRegistered(service_of(name, f"{name} {number}", str(number))))
            case "update" if own:
                host.apply(ServiceUpdated(replace(own[pick % len(own)], version=str(number))))
            case "remove" if own:
                host.apply(ServiceRemoved(own[pick % len(own)].service_id))
            case "pull" if name != other and frozenset((name, other)) not in parted:
                pull(host, hosts[other], pick)
            case "part":
                parted.add(frozenset((name, other)))
            case "heal":
                parted.discard(frozenset((name, other)))
            case "compact":
                host.compacted = host.state.revision
                host.history = []
                kept[name] = copy(host)
            case "lose":
                hosts[name] = ModelHost(name, f"{name} {number + 1}")
            case "restore" if kept[name].registry_id == host.registry_id:
                hosts[name] = copy(kept[name])
                hosts[name].history = []
            case "suspend" if name != other:
                silent = decide_suspension(host.copies(other).values())
                if silent:
                    registry_id = host.state.peers[other].registry_id
                    host.apply(PeerServicesChanged(other, PeerCursor(registry_id, None), silent))
    return hosts


@settings(max_examples=400, derandomize=True)
@given(st.lists(STEPS, max_size=80))
def test_after_healing_every_host_has_exactly_what_the_owners_have(steps):
    hosts = live(steps)
    for follower in hosts.values():
        for owner in hosts.values():
            if owner is not follower:
                pull(follower, owner, 1_000)
    for follower in hosts.values():
        for owner in hosts.values():
            if owner is not follower:
                expected = {each.service_id: replace(shared_view(each), origin=owner.name) for each in owner.own()}
                assert follower.copies(owner.name) == expected
        before = follower.state
        for owner in hosts.values():
            if owner is not follower:
                pull(follower, owner, 1_000)
        # Whoever is in step hears nothing twice.
        assert before.services == follower.state.services


@settings(max_examples=200, derandomize=True)
@given(st.lists(STEPS, max_size=60))
def test_a_copy_that_was_removed_is_never_seen_again_once_its_owner_has_removed_it(steps):
    hosts = live(step for step in steps if step[0] not in ("lose", "restore"))
    for follower in hosts.values():
        for owner in hosts.values():
            if owner is follower:
                continue
            pull(follower, owner, 1_000)
            seen = len(follower.told)
            for service in owner.own():
                owner.apply(ServiceRemoved(service.service_id))
            pull(follower, owner, 1_000)
            assert follower.copies(owner.name) == {}
            pull(follower, owner, 1_000)
            assert follower.copies(owner.name) == {}
            told = [each for each, _ in follower.told[seen:]]
            assert len(told) == len(set(told)), "each removal is told once"
