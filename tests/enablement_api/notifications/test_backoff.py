"""How long a target that failed is left alone."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.enablement_api.notifications.backoff import choose_delay_s, read_retry_after_s
from mec_platform.enablement_api.notifications.settings import DeliverySettings

SETTINGS = DeliverySettings(first_delay_s=0.5, longest_delay_s=300)


class Highest(Random):
    """A die that always shows its largest number."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_the_bound_doubles_up_to_the_cap():
    delays = [choose_delay_s(failures, None, SETTINGS, Highest()) for failures in (1, 2, 3, 10, 11, 10_000)]
    assert delays == [0.5, 1, 2, 256, 300, 300]


@settings(derandomize=True)
@given(st.integers(1, 100), st.none() | st.floats(0, 1e9), st.integers())
def test_waits_stay_between_what_was_asked_for_and_the_cap(failures, asked_s, seed):
    delay_s = choose_delay_s(failures, asked_s, SETTINGS, Random(seed))
    assert min(asked_s or 0, 300) <= delay_s <= 300


def test_jitter_spreads_targets_that_failed_together():
    die = Random(1)
    delays = [choose_delay_s(8, None, SETTINGS, die) for _ in range(1000)]
    assert min(delays) < 2
    assert max(delays) > 62
    assert 30 < sum(delays) / len(delays) < 34


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 5000, 999_999_999),
    ],
)
def test_retry_after_is_a_number_or_a_date_or_nothing(text, seconds):
    assert read_retry_after_s(text, 1_700_000_000) == seconds
