"""Leases as a model checks them, and the protection against mass expiry as a table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.registry.leases import LeaseTable, patience_s
from mec_platform.registry.mass_expiry import MassExpirySettings, Protection, decide_protection

IDS = st.sampled_from("abcde")
INTERVALS = st.integers(1, 5)
STEPS = st.one_of(
    st.tuples(st.just("expect"), IDS, INTERVALS, st.integers(0, 3)),
    st.tuples(st.just("renew"), IDS),
    st.tuples(st.just("forget"), IDS),
    st.tuples(st.just("stall"), st.sampled_from([1.5, 4.0])),
    st.tuples(st.just("pass"), st.sampled_from([0.25, 1.0, 3.0, 20.0])),
)


class NaiveLeases:
    """The same by looking at every lease each time. A lease: [interval, evict after, deadline, lapsed, eviction at]."""

    def __init__(self) -> None:
        self.leases: dict[str, list] = {}

    def expect(self, service_id, interval_s, now_s, evict_after):
        lease = self.leases.get(service_id)
        if lease is None or lease[:2] != [interval_s, evict_after]:
            self.leases[service_id] = [
                interval_s,
                evict_after,
                now_s + patience_s(interval_s, evict_after),
                False,
                None,
            ]

    def renew(self, service_id, now_s):
        if service_id in self.leases:
            interval_s, evict_after = self.leases.pop(service_id)[:2]
            self.expect(service_id, interval_s, now_s, evict_after)

    def stall(self, seconds):
        for lease in self.leases.values():
            lease[2] += seconds
            lease[4] = None if lease[4] is None else lease[4] + seconds

    def check(self, now_s):
        suspended, evicted = set(), set()
        for service_id, lease in list(self.leases.items()):
            if not lease[3] and lease[2] <= now_s:
                lease[3] = True
                suspended.add(service_id)
                lease[4] = now_s + lease[0] * lease[1] if lease[1] else None
            elif lease[3] and lease[4] is not None and lease[4] <= now_s:
                evicted.add(service_id)
                del self.leases[service_id]
        return suspended, evicted


@settings(max_examples=300, derandomize=True)
@given(st.lists(STEPS, max_size=40))
def test_suspends_and_evicts_exactly_when_looking_at_every_lease_would(steps):
    table, naive, now_s = LeaseTable(), NaiveLeases(), 0.0
    for step in steps:
        match step:
            case ("expect", service_id, interval_s, evict_after):
                table.expect(service_id, interval_s, now_s, 0, evict_after)
                naive.expect(service_id, interval_s, now_s, evict_after)
            case ("renew", service_id):
                table.renew(service_id, now_s, 0)
                naive.renew(service_id, now_s)
            case ("forget", service_id):
                table.forget(service_id)
                naive.leases.pop(service_id, None)
            case ("stall", seconds):
                now_s += seconds
                table.extend_all(seconds)
                naive.stall(seconds)
            case ("pass", seconds):
                now_s += seconds
        table.advance(now_s)
        suspended, evicted = set(table.to_suspend), set(table.to_evict)
        assert (suspended, evicted) == naive.check(now_s)
        for service_id in suspended:
            table.note_suspended(service_id, now_s)
        for service_id in evicted:
            table.forget(service_id)
        assert len(table) == len(naive.leases)


def test_renewals_do_not_grow_the_agenda():
    table = LeaseTable()
    table.expect("a", 10, 0.0, 0, 3)
    for second in range(1000):
        table.renew("a", float(second), 0)
        table.advance(float(second))
    assert len(table._agenda) == 1


def test_silence_of_an_evicting_lease_is_noticed_within_a_second_and_that_of_another_after_half_an_interval_more():
    assert patience_s(30, 10) + 0.25 < 31
    assert patience_s(30, 0) == 45


SETTINGS = MassExpirySettings(part=0.3, at_least=10, window_s=15.0, longest_s=300.0)


@pytest.mark.parametrize(
    ("lapsed", "living", "is_on"), [(9, 9, False), (10, 10, True), (10, 33, True), (10, 34, False), (0, 0, False)]
)
def test_protects_when_both_the_number_and_the_part_are_large(lapsed, living, is_on):
    assert decide_protection(Protection(), lapsed, living, 50.0, SETTINGS).is_on is is_on


def test_protection_ends_when_enough_came_back_and_remembers_nothing():
    on = decide_protection(Protection(), 50, 100, 50.0, SETTINGS)
    assert decide_protection(on, 31, 100, 60.0, SETTINGS) == on
    assert decide_protection(on, 30, 100, 60.0, SETTINGS) == Protection()


def test_while_it_is_on_it_counts_from_before_its_beginning_so_that_waiting_does_not_end_it():
    on = decide_protection(Protection(), 50, 100, 50.0, SETTINGS)
    assert on.counts_after_s(200.0, SETTINGS) == 35.0
    assert Protection().counts_after_s(200.0, SETTINGS) == 185.0


def test_after_its_longest_time_it_ends_and_what_it_waited_for_does_not_begin_it_again():
    on = decide_protection(Protection(), 50, 100, 50.0, SETTINGS)
    over = decide_protection(on, 50, 100, 350.0, SETTINGS)
    assert not over.is_on
    assert over.counts_after_s(351.0, SETTINGS) == 350.0
