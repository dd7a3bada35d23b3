"""What is wanted gets applied: at the start, after changes, and again after failures, without one plane waiting for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from mec_platform.data_plane.choice import make_data_planes
from mec_platform.data_plane.port import (
    DataPlaneError,
    DataPlaneRules,
    OwnedDnsRule,
    Refusal,
    RuleKind,
)
from mec_platform.data_plane.reconciler import CHECK_INTERVAL_S, PlaneStatus, Reconciler, Wanted
from mec_platform.domain.rules import DnsRule, IpAddressType


class Time:
    """Tells a test when a reconciler has applied something, and lets it wait until the test says that time has passed."""

    def __init__(self) -> None:
        self.applied = asyncio.Queue[None]()
        self.waits = asyncio.Queue[float]()
        self._passes = asyncio.Queue[None]()
        self.checks = asyncio.Queue[None]()

    def unix_ns(self) -> int:
        # Asked for when something was applied; whoever waits goes on once that is noted.
        self.applied.put_nowait(None)
        return 7 * 10**9

    async def sleep(self, seconds: float) -> None:
        if seconds == CHECK_INTERVAL_S:
            await self.checks.get()
            return
        self.waits.put_nowait(seconds)
        await self._passes.get()

    def pass_on(self) -> None:
        self._passes.put_nowait(None)


class Plane:
    """Implements `DataPlane`; `act` may fail, refuse, or take its time."""

    enforces = frozenset({RuleKind.DNS})

    def __init__(self, name: str = "plane", act: Callable[[], tuple[Refusal, ...]] = tuple) -> None:
        self.name = name
        self.given: list[DataPlaneRules] = []
        self.act = act
        self.look: Callable[[], bool] = lambda: True

    def apply(self, rules: DataPlaneRules) -> tuple[Refusal, ...]:
        self.given.append(rules)
        return self.act()

    def is_intact(self) -> bool:
        return self.look()


class Source:
    """What is wanted, as a test says."""

    def __init__(self) -> None:
        self.wanted = Wanted(0, DataPlaneRules())

    def want(self, revision: int) -> None:
        rule = DnsRule(
            rule_id=f"r{revision}", domain_name="a.example", address_type=IpAddressType.IP_V4, ip_address="192.0.2.1"
        )
        self.wanted = Wanted(revision, DataPlaneRules(dns=(OwnedDnsRule("app", rule),)))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def reconcile(time: Time, source: Source) -> AsyncIterator[Callable[..., Reconciler]]:
    started: list[Reconciler] = []

    def start(*planes: Plane) -> Reconciler:
        reconciler = Reconciler(planes, lambda: source.wanted, sleep=time.sleep, unix_ns=time.unix_ns)
        started.append(reconciler)
        reconciler.start()
        return reconciler

    yield start
    for reconciler in started:
        await reconciler.stop()


async def test_applies_everything_at_the_start_and_after_each_change(reconcile, time, source):
    plane = Plane()
    source.want(4)
    reconciler = reconcile(plane)
    await time.applied.get()
    (status,) = reconciler.statuses
    assert (status.name, status.is_current, status.applied) == ("plane", True, source.wanted)
    assert (status.count(RuleKind.DNS), status.count(RuleKind.TRAFFIC), status.applied_unix_ns) == (1, 0, 7 * 10**9)
    source.want(5)
    reconciler.request()
    assert not reconciler.statuses[0].is_current
    await time.applied.get()
    assert reconciler.statuses[0].applied == source.wanted
    assert len(plane.given) == 2


async def test_changes_that_come_while_one_is_applied_become_one(reconcile, time, source):
    begun, go_on = threading.Event(), threading.Event()

    def take_time() -> tuple[Refusal, ...]:
        begun.set()
        assert go_on.wait(10)
        return ()

    plane = Plane(act=take_time)
    reconciler = reconcile(plane)
    await asyncio.to_thread(begun.wait, 10)
    for revision in (1, 2, 3):
        source.want(revision)
        reconciler.request()
    go_on.set()
    await time.applied.get()
    assert not reconciler.statuses[0].is_current
    await time.applied.get()
    assert reconciler.statuses[0].is_current
    assert plane.given == [DataPlaneRules(), source.wanted.rules]


async def test_tries_again_after_a_failure_ever_more_seldom_and_says_why(reconcile, time, source, caplog):
    def fail() -> tuple[Refusal, ...]:
        raise DataPlaneError("no permission; run as root")

    plane = Plane(act=fail)
    reconciler = reconcile(plane)
    waited = []
    for _ in range(8):
        waited.append(await time.waits.get())
        (status,) = reconciler.statuses
        assert (status.error, status.is_current, status.applied) == ("no permission; run as root", False, None)
        time.pass_on()
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]
    await time.waits.get()
    plane.act = tuple
    source.want(3)
    time.pass_on()
    await time.applied.get()
    (status,) = reconciler.statuses
    assert (status.error, status.is_current, status.failures, status.failures_in_a_row) == (None, True, 9, 0)
    assert status.applied == source.wanted
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "data plane plane: no permission; run as root; it is tried again",
        "data plane plane works again",
    ]


async def test_a_plane_that_fails_holds_up_no_other(reconcile, time):
    def fail() -> tuple[Refusal, ...]:
        raise DataPlaneError("away")

    reconciler = reconcile(Plane("first", fail), Plane("second"))
    await time.waits.get()
    await time.applied.get()
    assert [status.is_current for status in reconciler.statuses] == [False, True]


async def test_a_rule_that_is_refused_is_shown_and_logged_once(reconcile, time, caplog):
    refusal = Refusal(RuleKind.DNS, "app", "r\n1", "too long")
    reconciler = reconcile(Plane(act=lambda: (refusal,)))
    await time.applied.get()
    reconciler.request()
    await time.applied.get()
    assert reconciler.statuses[0].refusals == (refusal,)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == r"data plane plane does not enforce DNS rule 'r\n1' of application instance 'app': too long"


@pytest.mark.parametrize("cannot_be_told", [False, True])
async def test_rules_that_somebody_removed_are_applied_again(reconcile, time, caplog, cannot_be_told):
    looked = asyncio.Queue[None]()
    loop = asyncio.get_running_loop()

    def look() -> bool:
        loop.call_soon_threadsafe(looked.put_nowait, None)
        if len(plane.given) == 1 and cannot_be_told:
            raise DataPlaneError("who knows")
        return len(plane.given) > 1

    plane = Plane()
    plane.look = look
    reconcile(plane)
    await time.applied.get()
    time.checks.put_nowait(None)
    await time.applied.get()
    time.checks.put_nowait(None)
    for _ in range(2):
        await looked.get()
    assert len(plane.given) == 2
    assert "data plane plane has lost its rules; they are applied again" in caplog.messages


@pytest.mark.parametrize(
    ("enforces", "counts"), [({RuleKind.DNS}, [1, 0]), ({RuleKind.TRAFFIC}, [0, 0]), (set(), [1, 0])]
)
def test_a_plane_has_the_rules_that_it_enforces_or_records(source, enforces, counts):
    source.want(1)
    status = PlaneStatus(name="plane", enforces=frozenset(enforces), applied=source.wanted)
    assert [status.count(kind) for kind in RuleKind] == counts


def test_without_a_choice_rules_are_recorded_only():
    (plane,) = make_data_planes([])
    assert (plane.name, plane.enforces) == ("recorded only", frozenset())
    assert plane.apply(DataPlaneRules()) == ()


def test_several_data_planes_may_be_chosen():
    planes = make_data_planes(["nftables:eth1,eth2", "dnsmasq:/var/lib/mec,/run/dnsmasq.pid"])
    assert [plane.name for plane in planes] == ["nftables", "dnsmasq"]
    assert frozenset().union(*(plane.enforces for plane in planes)) == frozenset(RuleKind)


@pytest.mark.parametrize(
    "choices",
    [
        ["iptables"],
        ["dnsmasq"],
        ["dnsmasq:,pid"],
        ["nftables"],
        ["nftables:x,"],
        ["nftables:a b"],
        ["nftables:x", "nftables:y"],
    ],
)
def test_a_choice_that_is_none_is_told(choices):
    with pytest.raises(
        DataPlaneError, match=r"choose recording, nftables:INTERFACE|may be chosen once|nftables:eth1,eth2"
    ):
        make_data_planes(choices)
