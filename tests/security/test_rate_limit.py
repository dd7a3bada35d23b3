"""The token buckets: a burst, then the rate, for each name by itself and in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.enablement_api.security.rate_limit import Rate, RateLimiter


def test_permits_a_burst_and_then_says_how_long_to_wait():
    limiter = RateLimiter(Rate(per_s=4, burst=2))
    assert [limiter.take("a", 10.0) for _ in range(3)] == [0, 0, pytest.approx(0.25)]
    assert limiter.take("a", 10.25) == 0


def test_each_name_has_a_bucket_of_its_own():
    limiter = RateLimiter(Rate(per_s=1, burst=1))
    assert limiter.take("a", 0.0) == 0
    assert limiter.take("a", 0.0) > 0
    assert limiter.take("b", 0.0) == 0


def test_looking_takes_nothing():
    limiter = RateLimiter(Rate(per_s=1, burst=1))
    assert [limiter.wait_s("a", 0.0) for _ in range(3)] == [0, 0, 0]
    limiter.take("a", 0.0)
    assert limiter.wait_s("a", 0.4) == pytest.approx(0.6)


def test_forgets_the_name_seen_longest_ago_where_there_are_too_many():
    limiter = RateLimiter(Rate(per_s=1, burst=1), size=2)
    for name in ("a", "b", "a", "c"):
        limiter.take(name, 0.0)
    assert len(limiter) == 2
    assert limiter.take("c", 0.0) > 0


@given(
    gaps=st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=60),
    per_s=st.floats(0.5, 20),
    burst=st.integers(1, 10),
)
@settings(derandomize=True, max_examples=100)
def test_never_permits_more_than_burst_and_rate_allow(gaps, per_s, burst):
    limiter = RateLimiter(Rate(per_s, burst))
    now, taken = 0.0, 0
    for gap in gaps:
        now += gap
        taken += limiter.take("a", now) == 0
        assert taken <= burst + now * per_s + 1e-6
