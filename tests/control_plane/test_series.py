"""One measured quantity: deaf to an outlier, quick to follow a change, and honest about how far it can be trusted."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.monitoring.series import Series, add_sample, age_step_s, confidence
from mec_platform.control_plane.monitoring.settings import SeriesSettings

SETTINGS = SeriesSettings()
values = st.floats(0, exclude_min=True, allow_infinity=False)
lists = st.lists(values, min_size=1, max_size=20)


def series_of(samples: list[float], period_s: float = 1.0) -> Series:
    series = None
    for index, sample in enumerate(samples):
        series = add_sample(series, sample, index * period_s, SETTINGS)
    assert series is not None
    return series


@given(lists)
@settings(derandomize=True, deadline=None)
def test_an_estimate_is_one_of_the_samples_in_the_window(samples: list[float]) -> None:
    assert series_of(samples).level in samples[-SETTINGS.window :]


@given(st.lists(st.floats(0.95, 1.05), min_size=1, max_size=20), values)
@settings(derandomize=True, deadline=None)
def test_one_outlier_never_moves_an_estimate_beyond_what_the_others_say(samples: list[float], outlier: float) -> None:
    """Samples that agree, then anything at all: the estimate stays among them, and is back with them after that."""
    moved = add_sample(series_of(samples), outlier, len(samples), SETTINGS)
    assert moved is not None
    assert min(samples) <= moved.level <= max(samples)
    after = add_sample(moved, samples[-1], len(samples) + 1, SETTINGS)
    assert after is not None
    assert min(samples) <= after.level <= max(samples)


@given(st.lists(st.floats(0.97, 1.03), min_size=1, max_size=20), st.sampled_from([0.01, 0.3, 0.5, 2.0, 3.0, 100.0]))
@settings(derandomize=True, deadline=None)
def test_a_step_is_followed_with_its_second_sample(samples: list[float], factor: float) -> None:
    series: Series | None = series_of(samples)
    for number in range(2):
        series = add_sample(series, factor, len(samples) + number, SETTINGS)
    assert series is not None
    if len(samples) > 1:
        assert series.level == factor
    else:  # one sample before is no more than an opinion: the third decides
        third = add_sample(series, factor, 3.0, SETTINGS)
        assert third is not None
        assert third.level == factor


def test_a_step_is_followed_out_of_any_noise() -> None:
    noisy = [230e6, 90e6, 1e9, 180e6, 700e6, 120e6, 400e6]
    stepped = series_of([*noisy, 0.2e6, 0.21e6])
    assert stepped.level == 0.21e6
    assert confidence(stepped, 0.0, SETTINGS) > 0.6 > confidence(series_of(noisy), 0.0, SETTINGS)


def test_of_two_samples_beyond_the_band_the_more_cautious_one_counts() -> None:
    assert series_of([10.0] * 7 + [5.0, 1.0]).level == 5.0
    assert series_of([10.0] * 7 + [1.0, 5.0]).level == 5.0


@given(st.lists(values | st.sampled_from([0.0, -1.0, float("nan"), float("inf")]), min_size=1, max_size=20))
@settings(derandomize=True, deadline=None)
def test_what_was_not_measured_changes_nothing(samples: list[float]) -> None:
    series, clean = None, None
    for index, sample in enumerate(samples):
        series = add_sample(series, sample, index, SETTINGS)
        if 0 < sample < float("inf"):
            clean = add_sample(clean, sample, index, SETTINGS)
    assert series == clean


@given(lists, st.floats(0, 1e5), st.floats(0, 1e5))
@settings(derandomize=True, deadline=None)
def test_confidence_is_a_share_and_falls_with_age(samples: list[float], age_s: float, older_s: float) -> None:
    series = series_of(samples)
    now, later = (confidence(series, age, SETTINGS) for age in sorted((age_s, age_s + older_s)))
    assert 0.0 <= later <= now <= 1.0


def test_confidence_grows_with_samples_that_agree_and_shrinks_with_their_spread() -> None:
    grown = [confidence(series_of([5.0] * count), 0.0, SETTINGS) for count in range(1, SETTINGS.window + 1)]
    assert grown == sorted(set(grown))
    assert confidence(series_of([4.0, 5.0, 6.0] * 3), 0.0, SETTINGS) < grown[-1]


def test_noise_is_smoothed_better_than_by_a_median_of_three() -> None:
    noise = random.Random(1)
    samples = [100.0 + noise.gauss(0, 3) for _ in range(400)]
    levels = [series_of(samples[max(0, i - 40) : i + 1]).level for i in range(40, 400)]
    of_three = [sorted(samples[i - 2 : i + 1])[1] for i in range(40, 400)]
    error, error_of_three = (sum((level - 100) ** 2 for level in each) for each in (levels, of_three))
    assert error < 0.7 * error_of_three


def test_old_samples_are_let_go_but_never_all_of_them() -> None:
    assert series_of([10.0] * 7, period_s=30.0).times == (120.0, 150.0, 180.0)


@given(st.floats(0, 1e6))
@settings(derandomize=True, deadline=None)
def test_an_age_is_told_in_steps_and_never_overstated(age_s: float) -> None:
    step = age_step_s(age_s)
    assert step <= age_s
    assert step == 0.0 if age_s < 2 else age_s < 2 * step
