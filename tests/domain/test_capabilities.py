"""Capabilities and KPIs refuse what no service can have."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.domain.capabilities import KPI_NAMES, LONGEST_TEXT, MOST_LABELS, Capabilities, Kpis


@pytest.mark.parametrize("attribute", ["model", "quantisation", "hardware_target"])
def test_texts_are_bounded(attribute: str):
    assert getattr(Capabilities(**{attribute: "x" * LONGEST_TEXT}), attribute)
    with pytest.raises(ValueError, match="at most 256 characters"):
        Capabilities(**{attribute: "x" * (LONGEST_TEXT + 1)})


@pytest.mark.parametrize("labels", [{"x" * (LONGEST_TEXT + 1): "y"}, {"y": "x" * (LONGEST_TEXT + 1)}])
def test_keys_and_values_of_labels_are_bounded(labels: dict[str, str]):
    with pytest.raises(ValueError, match="at most 256 characters"):
        Capabilities(labels=labels)


def test_labels_are_counted():
    most = {str(number): "" for number in range(MOST_LABELS)}
    assert Capabilities(labels=most).labels == most
    with pytest.raises(ValueError, match="at most 32 labels, found 33"):
        Capabilities(labels={**most, "one more": ""})


def test_trust_begins_at_zero():
    assert Capabilities(trust_level=0) == Capabilities()
    with pytest.raises(ValueError, match="trust_level must not be negative, found -1"):
        Capabilities(trust_level=-1)


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("name", KPI_NAMES)
def test_a_kpi_is_a_finite_number(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} must be a finite number"):
        Kpis(measured_unix_ns=0, **{name: value})


@pytest.mark.parametrize("name", [*KPI_NAMES, "measured_unix_ns"])
def test_radio_quality_alone_may_be_negative(name: str):
    values = {"measured_unix_ns": 0, name: -3}
    if name == "radio_quality_db":
        assert Kpis(**values).radio_quality_db == -3
    else:
        with pytest.raises(
            ValueError, match=f"{name} must be a finite number, negative for radio_quality_db only; found -3"
        ):
            Kpis(**values)


@given(st.floats(0, 2))
def test_load_is_a_part_of_the_capacity(load: float):
    if load <= 1:
        assert Kpis(measured_unix_ns=0, load=load).load == load
    else:
        with pytest.raises(ValueError, match="from 0 to 1"):
            Kpis(measured_unix_ns=0, load=load)


def test_what_was_not_measured_is_absent():
    kpis = Kpis(measured_unix_ns=5)
    assert [getattr(kpis, name) for name in KPI_NAMES] == [None] * len(KPI_NAMES)
