"""Order, slots, retries and settlement, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest

from mec_platform.enablement_api.notifications.delivery import FIRST_WINDOW, NotificationDelivery
from mec_platform.enablement_api.notifications.outcome import Away, Delivered, Failed, Rejected
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from tests.enablement_api.notifications.scripted import ScriptedOutbox, ScriptedTransmission, SteppedClock

SETTINGS = DeliverySettings(attempts=3, longest_s=1000, in_flight=8, in_flight_per_host=4)
DOWN = Failed("nobody answers", unreachable=True)
BUSY = Failed("the target answers with status 503")


class HighestDie(Random):
    """Shows its largest number, so that waits are the whole bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def outbox() -> ScriptedOutbox:
    return ScriptedOutbox()


@pytest.fixture
def transmission() -> ScriptedTransmission:
    return ScriptedTransmission()


@pytest.fixture
async def delivery(clock, outbox, transmission) -> AsyncIterator[NotificationDelivery]:
    delivery = NotificationDelivery(outbox, transmission, clock=clock, die=HighestDie(), settings=SETTINGS)
    yield delivery
    await delivery.stop()


async def test_what_an_earlier_life_left_is_delivered_in_order(delivery, outbox, transmission):
    outbox.put("a/1", 3, 4, 9)
    delivery.start()
    assert await transmission.take(3, Delivered()) == [("a/1", 3), ("a/1", 4), ("a/1", 9)]


async def test_a_subscription_has_one_notification_on_its_way(delivery, outbox, transmission):
    delivery.start()
    outbox.put("a/1", 1, 2)
    delivery.wake("a/1")
    delivery.wake("a/1")
    first = await transmission.next()
    outbox.put("a/1", 3)
    delivery.wake("a/1")
    assert [each.name for each in transmission.in_flight] == [("a/1", 1)]
    first.ends(Delivered())
    assert await transmission.take(2, Delivered()) == [("a/1", 2), ("a/1", 3)]


async def test_many_deliveries_are_settled_in_one_write(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1, 2)
    outbox.put("b/1", 1)
    delivery.start()
    await transmission.take(3, Delivered())
    assert await clock.step() == pytest.approx(SETTINGS.settle_every_s)
    await outbox.until_empty()
    assert outbox.settlements == [{"a/1": (1, 2), "b/1": (1,)}]


async def test_what_is_delivered_but_not_settled_is_not_sent_again(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1)
    delivery.start()
    await transmission.take(1, Delivered())
    outbox.put("a/1", 2)
    delivery.wake("a/1")
    assert await transmission.take(1, Delivered()) == [("a/1", 2)]


async def test_a_log_that_refuses_settlement_is_asked_again(delivery, outbox, transmission, clock, caplog):
    outbox.put("a/1", 1)
    outbox.is_broken = True
    delivery.start()
    await transmission.take(1, Delivered())
    await clock.step()
    assert await clock.step() == pytest.approx(1)
    outbox.is_broken = False
    await clock.step()
    await outbox.until_empty()
    assert "not settled for now: the disk is full" in caplog.text


async def test_stopping_settles_what_was_delivered(clock, outbox, transmission):
    delivery = NotificationDelivery(outbox, transmission, clock=clock, die=Random(1), settings=SETTINGS)
    outbox.put("a/1", 1, 2)
    delivery.start()
    await transmission.take(1, Delivered())
    await transmission.next()
    await delivery.stop()
    assert outbox.settlements == [{"a/1": (1,)}]
    assert [each.sequence for each in outbox.waiting("a/1")] == [2]


async def test_a_failed_notification_is_tried_again_before_those_behind_it(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1, 2)
    delivery.start()
    assert await transmission.take(1, BUSY) == [("a/1", 1)]
    assert await clock.step() == pytest.approx(0.5)
    assert await transmission.take(1, BUSY) == [("a/1", 1)]
    assert await clock.step() == pytest.approx(1)
    assert await transmission.take(2, Delivered()) == [("a/1", 1), ("a/1", 2)]


async def test_waits_as_long_as_the_target_asks_for(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1)
    delivery.start()
    await transmission.take(1, Failed("busy", asked_s=42))
    assert await clock.step() == pytest.approx(42)
    assert await transmission.take(1, Delivered()) == [("a/1", 1)]


async def test_a_notification_is_dead_after_the_last_attempt_and_the_next_one_goes(
    delivery, outbox, transmission, clock
):
    outbox.put("a/1", 1, 2)
    delivery.start()
    for _ in range(2):
        await transmission.take(1, BUSY)
        await clock.step()
    assert await transmission.take(1, BUSY) == [("a/1", 1)]
    assert await transmission.take(1, Delivered()) == [("a/1", 2)]
    assert outbox.dead == [("a/1", 1, "given up after 3 attempts: the target answers with status 503")]


async def test_a_notification_is_dead_when_its_time_is_over(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1)
    delivery.start()
    first = await transmission.next()
    clock.now_s += SETTINGS.longest_s
    first.ends(BUSY)
    outbox.put("a/1", 2)
    assert await transmission.take(1, Delivered()) == [("a/1", 2)]
    assert outbox.dead[0][:2] == ("a/1", 1)


async def test_what_is_not_worth_another_attempt_is_dead_at_once(delivery, outbox, transmission, caplog):
    outbox.put("a/1", 1, 2)
    delivery.start()
    await transmission.take(1, Rejected("the target says that it is gone for good (status 410)"))
    assert await transmission.take(1, Delivered()) == [("a/1", 2)]
    assert outbox.dead == [("a/1", 1, "the target says that it is gone for good (status 410)")]
    assert "gone for good" in caplog.text


async def test_a_log_that_refuses_a_burial_loses_nothing(delivery, outbox, transmission, clock, caplog):
    outbox.put("a/1", 1)
    outbox.is_broken = True
    delivery.start()
    await transmission.take(1, Rejected("gone"))
    assert await clock.step() == pytest.approx(SETTINGS.longest_delay_s)
    outbox.is_broken = False
    assert await transmission.take(1, Rejected("gone")) == [("a/1", 1)]
    assert "kept for now: the disk is full" in caplog.text


async def test_a_hanging_target_delays_no_other_one(delivery, outbox, transmission):
    for number in range(20):
        outbox.put(f"dead/{number}", 1)
    outbox.put("fast/1", *range(1, 30))
    delivery.start()
    hanging = [await transmission.next() for _ in range(FIRST_WINDOW)]
    assert {each.subscription_id for each in hanging} == {"dead/0", "dead/1"}
    assert len(await transmission.take(29, Delivered())) == 29
    assert len([each for each in transmission.in_flight if each.subscription_id.startswith("dead/")]) == FIRST_WINDOW


async def test_a_host_that_answers_gets_more_slots_and_a_dead_one_keeps_a_single_prober(
    delivery, outbox, transmission, clock
):
    for number in range(10):
        outbox.put(f"a/{number}", 1)
    delivery.start()
    for open_slots in (2, 3, 4, 4):
        assert len(transmission.in_flight) <= open_slots
        (await transmission.next()).ends(Delivered())
    for _ in range(4):
        (await transmission.next()).ends(DOWN)
    last = [await transmission.next()]
    assert [each.name for each in transmission.in_flight] == [each.name for each in last]


async def test_the_whole_has_a_bound_and_every_host_its_turn(delivery, outbox, transmission):
    for host in range(10):
        outbox.put(f"host-{host}/1", 1)
    delivery.start()
    begun = [await transmission.next() for _ in range(8)]
    assert len(transmission.in_flight) == 8
    begun[0].ends(Delivered())
    begun[1].ends(Delivered())
    assert {(await transmission.next()).name, (await transmission.next()).name} == {("host-8/1", 1), ("host-9/1", 1)}


async def test_subscriptions_at_one_host_take_turns(delivery, outbox, transmission):
    for name in ("a/1", "a/2", "a/3"):
        outbox.put(name, *range(1, 41))
    delivery.start()
    sent = [name for name, _ in await transmission.take(120, Delivered())]
    assert max(sent.index("a/3"), 0) < 60


async def test_nobody_there_means_waiting_until_somebody_comes(delivery, outbox, transmission):
    outbox.put("ws/1", 1)
    delivery.start()
    await transmission.take(1, Away())
    outbox.put("b/1", 1)
    delivery.wake("b/1")
    assert await transmission.take(1, Delivered()) == [("b/1", 1)]
    delivery.wake_now("ws/1")
    assert await transmission.take(1, Delivered()) == [("ws/1", 1)]


async def test_somebody_who_comes_during_an_attempt_is_not_overlooked(delivery, outbox, transmission):
    outbox.put("ws/1", 1)
    delivery.start()
    attempt = await transmission.next()
    delivery.wake_now("ws/1")
    attempt.ends(Away())
    assert await transmission.take(1, Delivered()) == [("ws/1", 1)]


async def test_a_target_that_shows_itself_is_not_left_waiting(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1)
    delivery.start()
    await transmission.take(1, BUSY)
    outbox.put("b/1", 1)
    delivery.wake("b/1")
    await transmission.take(1, Delivered())
    delivery.wake_now("a/1")
    assert await transmission.take(1, Delivered()) == [("a/1", 1)]


async def test_a_subscription_that_ends_is_sent_nothing_more(delivery, outbox, transmission, clock):
    outbox.put("a/1", 1, 2)
    outbox.put("a/2", 1)
    delivery.start()
    first = await transmission.next()
    del outbox.outboxes["a/1"]
    delivery.forget("a/1")
    first.ends(BUSY)
    assert await transmission.take(1, Delivered()) == [("a/2", 1)]
    assert outbox.dead == []


async def test_the_oldest_wait_is_that_of_the_oldest_head(delivery, outbox, transmission, clock):
    assert delivery.oldest_wait_s == 0
    outbox.put("a/1", 1)
    delivery.start()
    attempt = await transmission.next()
    clock.now_s += 7
    outbox.put("b/1", 1)
    delivery.wake("b/1")
    assert delivery.oldest_wait_s == pytest.approx(7)
    attempt.ends(Delivered())
    await transmission.take(1, Delivered())
    await clock.step()
    await outbox.until_empty()
    assert delivery.oldest_wait_s == 0
