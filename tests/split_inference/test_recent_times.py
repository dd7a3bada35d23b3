"""Percentiles of the last seconds' tokens, as gateways report them."""

from __future__ import annotations

from mec_apps.split_inference.gateway.recent_times import WINDOW_S, RecentTimes


def test_first_tokens_and_others_are_told_apart_and_forgotten_after_the_window() -> None:
    now_s = 0.0
    times = RecentTimes(lambda: now_s)
    assert (times.token_s, times.first_token_s) == (0.0, 0.0)
    for number in range(100):
        now_s = 1.0 + number / 100
        times.note(now_s - (0.5 if number < 4 else 0.02), first=False)  # four stalls in a hundred
    times.note(now_s - 2.0, first=True)
    assert round(times.token_s, 6) == 0.02
    assert times.first_token_s == 2.0
    for _ in range(3):
        times.note(now_s - 0.5, first=False)
    assert round(times.token_s, 6) == 0.5
    now_s += WINDOW_S + 1
    assert (times.token_s, times.first_token_s) == (0.0, 0.0)
