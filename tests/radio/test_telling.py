"""Who is told of what: filters, and how often of measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mec_platform.domain.subscriptions import Topic
from mec_platform.radio.happenings import BearerChanged, CellChanged, Happening, Measured, S1BearerChanged
from mec_platform.radio.interest import RadioInterest, name_of, topic_of
from mec_platform.radio.pacing import CLOSEST_S, JUMP_DB, USUAL_S, Pacing
from mec_platform.radio.values import Bearer, BearerChange, HandoverStatus, Measurement, Quality, associate_of
from tests.radio.reporting import LTE, TUNNEL, UE, A, B, ue

HANDOVER = CellChanged(at_unix_ns=1, ue=UE, cell=A, targets=(B,), status=HandoverStatus.COMPLETED)
MEASURED = Measured(at_unix_ns=1, ue=UE, cell=A, measurement=Measurement(Quality(-90.0), trigger=1))
BEARER = BearerChanged(at_unix_ns=1, ue=UE, cell=A, change=BearerChange.MODIFIED, bearer=Bearer(5, 9))
TUNNELLED = S1BearerChanged(at_unix_ns=1, ue=UE, cell=A, change=BearerChange.RELEASED, bearer=TUNNEL)


@pytest.mark.parametrize(
    ("happening", "criteria", "told"),
    [
        (HANDOVER, {}, True),
        (HANDOVER, {"associates": frozenset({associate_of("198.51.100.7")})}, True),
        (HANDOVER, {"associates": frozenset({associate_of("198.51.100.8")})}, False),
        (HANDOVER, {"cells": frozenset({name_of(A)})}, True),
        (HANDOVER, {"cells": frozenset({name_of(B)})}, True),
        (HANDOVER, {"cells": frozenset({name_of(LTE)})}, False),
        (HANDOVER, {"codes": frozenset({HandoverStatus.COMPLETED})}, True),
        (HANDOVER, {"codes": frozenset({HandoverStatus.REJECTED})}, False),
        (MEASURED, {"codes": frozenset({1, 2})}, True),
        (MEASURED, {"codes": frozenset({0})}, False),
        (MEASURED, {"cells": frozenset({name_of(B)})}, False),
        (BEARER, {"qci": 9, "erab_ids": frozenset({5})}, True),
        (BEARER, {"qci": 7}, False),
        (BEARER, {"erab_ids": frozenset({6})}, False),
        (TUNNELLED, {"codes": frozenset({BearerChange.RELEASED}), "erab_ids": frozenset({5})}, True),
        (TUNNELLED, {"codes": frozenset({BearerChange.ESTABLISHED})}, False),
    ],
)
def test_criteria_combine_attributes_with_and_and_values_with_or(
    happening: Happening, criteria: dict[str, Any], told: bool
):
    topic = topic_of(happening)
    assert topic is not None
    assert RadioInterest(topic=topic, **criteria).matches(happening) is told
    assert not any(RadioInterest(topic=other).matches(happening) for other in Topic if other is not topic)


def test_a_measurement_of_eutra_needs_power_and_quality_to_be_told():
    def of(quality: Quality) -> Topic | None:
        return topic_of(Measured(at_unix_ns=1, ue=UE, cell=LTE, measurement=Measurement(quality)))

    assert of(Quality(rsrp_dbm=-90, sinr_db=10)) is None
    assert of(Quality(rsrp_dbm=-90, rsrq_db=-10)) is Topic.MEASUREMENT


@pytest.fixture
def admits() -> Callable[..., bool]:
    """Whether a measurement at this second is told."""
    pacing = Pacing()

    def ask(at_s: float, rsrp_dbm: float = -90.0, cell=A, who=UE, subscription: str = "one") -> bool:
        measurement = Measurement(Quality(rsrp_dbm, sinr_db=10.0))
        return pacing.admits(
            subscription, Measured(at_unix_ns=round(at_s * 1e9), ue=who, cell=cell, measurement=measurement)
        )

    return ask


def test_twenty_measurements_a_second_are_told_about_once_a_second(admits):
    told = [number for number in range(20 * 60) if admits(100 + number / 20)]
    assert told[0] == 0
    assert len(told) == pytest.approx(60 / USUAL_S, abs=5)


def test_a_jump_is_told_earlier_but_not_at_any_rate(admits):
    assert admits(0)
    assert not admits(CLOSEST_S / 2, -90 - JUMP_DB)
    assert admits(CLOSEST_S, -90 - JUMP_DB)
    assert not admits(CLOSEST_S * 2, -90 - JUMP_DB)
    told = [number for number in range(200) if admits(10 + number / 20, -60 if number % 2 else -120)]
    assert len(told) <= 10 / CLOSEST_S + 1


def test_another_cell_and_another_ue_and_another_subscription_wait_for_nobody(admits):
    assert admits(0)
    assert admits(0.01, cell=B)
    assert admits(0.01, who=ue("another"))
    assert admits(0.01, subscription="two")


def test_a_clock_that_is_set_back_silences_nobody(admits):
    assert admits(1000)
    assert admits(10)


def test_what_was_told_is_remembered_of_so_many_only():
    pacing = Pacing(most=3)
    for number in range(10):
        pacing.admits(f"subscription-{number}", MEASURED)
    assert len(pacing) == 3
