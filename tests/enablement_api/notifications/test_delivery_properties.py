"""Whatever targets answer: order per subscription, one at a time, and nothing is lost without a dead letter that says why."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.background import BackgroundTasks
from mec_platform.domain.subscriptions import Notification
from mec_platform.enablement_api.notifications.delivery import NotificationDelivery
from mec_platform.enablement_api.notifications.outcome import Away, Delivered, Failed, Outcome, Rejected
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from tests.enablement_api.notifications.scripted import ScriptedOutbox, SteppedClock

SETTINGS = DeliverySettings(attempts=3, in_flight=3, in_flight_per_host=2)
OUTCOMES = st.sampled_from([Delivered(), Failed("503"), Failed("down", unreachable=True), Rejected("400"), Away()])


class ChoosyTransmission:
    """Answers with the next of `outcomes`, then takes everything; whoever was away comes back at once."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self._outcomes = outcomes
        self.on_its_way: set[str] = set()
        self.taken: dict[str, list[int]] = defaultdict(list)
        self.come_back = lambda subscription_id: None

    def host_of(self, subscription_id: str) -> str:
        return subscription_id.partition("/")[0]

    async def send(self, notification: Notification) -> Outcome:
        subscription_id = notification.subscription_id
        assert subscription_id not in self.on_its_way, "two at once"
        self.on_its_way.add(subscription_id)
        outcome = self._outcomes.pop(0) if self._outcomes else Delivered()
        await asyncio.sleep(0)
        self.on_its_way.remove(subscription_id)
        if isinstance(outcome, Delivered):
            self.taken[subscription_id].append(notification.sequence)
        if isinstance(outcome, Away):
            self.come_back(subscription_id)
        return outcome


async def deliver(sequences: dict[str, int], outcomes: list[Outcome]) -> tuple[ChoosyTransmission, ScriptedOutbox]:
    clock, outbox, transmission = SteppedClock(), ScriptedOutbox(), ChoosyTransmission(outcomes)
    delivery = NotificationDelivery(outbox, transmission, clock=clock, die=Random(0), settings=SETTINGS)
    transmission.come_back = delivery.wake_now
    for subscription_id, number in sequences.items():
        outbox.put(subscription_id, *range(1, number + 1))

    async def let_time_pass() -> None:
        while True:
            await clock.step()

    async with BackgroundTasks() as tasks:
        tasks.start("time", let_time_pass())
        delivery.start()
        async with asyncio.timeout(10):
            await outbox.until_empty()
        await delivery.stop()
    return transmission, outbox


@settings(derandomize=True, max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["a/1", "a/2", "a/3", "b/1", "c/1"]), st.integers(1, 8), min_size=1),
    st.lists(OUTCOMES, max_size=60),
)
def test_everything_arrives_in_order_or_is_dead_with_a_reason(sequences, outcomes):
    transmission, outbox = asyncio.run(deliver(sequences, list(outcomes)))
    for subscription_id, number in sequences.items():
        taken = transmission.taken[subscription_id]
        dead = [sequence for each, sequence, reason in outbox.dead if each == subscription_id and reason]
        assert taken == sorted(taken)
        assert dead == sorted(dead)
        assert sorted(taken + dead) == list(range(1, number + 1))
