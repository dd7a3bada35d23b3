"""Reports in, news out: what is news, what is not, and that nothing grows without end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.radio.happenings import (
    BearerChanged,
    CarriersReconfigured,
    CellChanged,
    Happening,
    Measured,
    S1BearerChanged,
    TimingAdvanceChanged,
)
from mec_platform.radio.radio_state import RadioState, ReportRefused
from mec_platform.radio.reports import (
    MOST_CARRIERS,
    BearerReported,
    CarriersReported,
    CellLoadReported,
    HandoverReported,
    Report,
    S1BearerReported,
    TimingAdvanceReported,
    UeDetached,
    UeLoadReported,
    UeReport,
)
from mec_platform.radio.values import (
    CELL_COUNTERS,
    LAST_ERAB_ID,
    UE_COUNTERS,
    Bearer,
    BearerChange,
    Cell,
    HandoverStatus,
    Technology,
)
from tests.radio.reporting import LTE, NETWORK, RATES, TUNNEL, UE, A, B, measured, ue


def take(*reports: Report, state: RadioState | None = None) -> list[Happening]:
    """What is news of the reports, one a nanosecond."""
    state = RadioState() if state is None else state
    return [news for at_ns, report in enumerate(reports, 1) for news in state.apply(report, at_ns, "a test")]


def handover(status: HandoverStatus, *targets: Cell) -> HandoverReported:
    return HandoverReported(UE, A, status=status, targets=targets)


def bearer(change: BearerChange, erab_id: int = 5, qci: int | None = 9, cell: Cell | None = A) -> BearerReported:
    return BearerReported(UE, cell, change=change, bearer=Bearer(erab_id, qci, RATES))


def test_a_ue_that_comes_is_no_news_and_one_that_is_elsewhere_was_handed_over():
    assert take(UeReport(UE, A), UeReport(UE, A), UeReport(UE, B)) == [
        CellChanged(at_unix_ns=3, ue=UE, cell=A, targets=(B,), status=HandoverStatus.COMPLETED)
    ]


def test_a_measurement_in_another_cell_tells_of_the_handover_first():
    first, change, second = take(measured(), measured(cell=B))
    assert isinstance(change, CellChanged)
    assert [first.cell, second.cell] == [A, B]


def test_a_handover_is_told_step_by_step_and_each_step_once():
    news = take(
        handover(HandoverStatus.IN_PREPARATION, A, B),
        handover(HandoverStatus.IN_PREPARATION, A, B),
        handover(HandoverStatus.IN_EXECUTION, B),
        handover(HandoverStatus.COMPLETED, B),
        UeReport(UE, B),
    )
    assert [(each.status, each.cell, each.targets) for each in news] == [
        (HandoverStatus.IN_PREPARATION, A, (A, B)),
        (HandoverStatus.IN_EXECUTION, A, (B,)),
        (HandoverStatus.COMPLETED, A, (B,)),
    ]


def test_a_handover_that_was_cancelled_leaves_the_ue_where_it_is():
    state = RadioState()
    take(handover(HandoverStatus.IN_PREPARATION, B), handover(HandoverStatus.CANCELLED, B), state=state)
    assert state.ues[UE.name].cell == A


def test_a_bearer_is_news_when_it_comes_changes_and_goes():
    news = take(
        bearer(BearerChange.ESTABLISHED),
        bearer(BearerChange.ESTABLISHED),
        bearer(BearerChange.MODIFIED, qci=7),
        bearer(BearerChange.MODIFIED, qci=7),
        bearer(BearerChange.RELEASED, qci=None),
        bearer(BearerChange.RELEASED),
    )
    assert [(each.change, each.bearer.qci) for each in news] == [
        (BearerChange.ESTABLISHED, 9),
        (BearerChange.MODIFIED, 7),
        (BearerChange.RELEASED, 7),
    ]


def test_a_ue_that_leaves_takes_its_bearers_with_it():
    state = RadioState()
    s1_bearer = S1BearerReported(UE, A, change=BearerChange.ESTABLISHED, bearer=TUNNEL)
    news = take(bearer(BearerChange.ESTABLISHED), s1_bearer, UeDetached(UE), UeDetached(UE), state=state)
    assert [type(each) for each in news] == [BearerChanged, S1BearerChanged] * 2
    assert {each.change for each in news[2:]} == {BearerChange.RELEASED}
    assert not state.ues


def test_the_timing_advance_and_secondary_cells_are_news_when_they_change():
    news = take(
        TimingAdvanceReported(UE, A, timing_advance=3),
        TimingAdvanceReported(UE, A, timing_advance=3),
        CarriersReported(UE, added=(B, LTE)),
        CarriersReported(UE, added=(B,)),
        CarriersReported(UE, removed=(LTE,)),
    )
    assert [type(each) for each in news] == [TimingAdvanceChanged, CarriersReconfigured, CarriersReconfigured]
    assert (news[1].added, news[2].removed) == ((B, LTE), (LTE,))


def test_what_was_measured_in_one_cell_is_not_said_of_another():
    state = RadioState()
    take(measured(), UeReport(UE, B), state=state)
    assert state.ues[UE.name].measurement is None


def test_a_ue_of_which_nobody_said_where_it_is_is_refused():
    state = RadioState()
    with pytest.raises(ReportRefused, match=r"198\.51\.100\.7.*cell"):
        state.apply(measured(cell=None), 1)
    assert not state.ues


def test_more_secondary_cells_than_a_ue_can_have_are_refused_and_change_nothing():
    state = RadioState()
    cells = tuple(replace(B, cell_id=f"{number:09X}") for number in range(MOST_CARRIERS + 1))
    take(CarriersReported(UE, A, added=cells[:-1]), state=state)
    with pytest.raises(ReportRefused, match="secondary"):
        state.apply(CarriersReported(UE, added=cells[-1:]), 2)
    assert state.ues[UE.name].carriers == cells[:-1]


def test_of_too_many_ues_those_that_were_silent_for_longest_are_forgotten():
    state = RadioState(most_ues=2)
    take(*(UeReport(ue(name), A) for name in ("a", "b", "a", "c")), state=state)
    assert list(state.ues) == ["a", "c"]


UES = [ue(f"ue-{number}") for number in range(6)]
CELLS = [Cell(NETWORK, f"{number:09X}", Technology.NR) for number in range(5)]


@st.composite
def reports(draw: st.DrawFn) -> Report:
    of, cell = draw(st.sampled_from(UES)), draw(st.sampled_from([None, *CELLS]))
    change, erab_id = draw(st.sampled_from(BearerChange)), draw(st.integers(0, LAST_ERAB_ID))
    small = draw(st.integers(0, 2))
    made: list[Report] = [
        UeReport(of, cell),
        UeDetached(of, cell),
        HandoverReported(of, cell, status=draw(st.sampled_from(HandoverStatus)), targets=(CELLS[small],)),
        BearerReported(of, cell, change=change, bearer=Bearer(erab_id, small)),
        S1BearerReported(of, cell, change=change, bearer=replace(TUNNEL, erab_id=erab_id)),
        measured(-90 - small, of=of, cell=cell),
        TimingAdvanceReported(of, cell, timing_advance=small),
        CarriersReported(of, cell, added=(CELLS[small],), removed=(CELLS[-1 - small],)),
        UeLoadReported(of, cell, counters={draw(st.sampled_from(UE_COUNTERS)): small}),
        CellLoadReported(CELLS[small], {draw(st.sampled_from(CELL_COUNTERS)): small}),
    ]
    return draw(st.sampled_from(made))


@given(st.lists(reports(), max_size=30))
@settings(derandomize=True, max_examples=60)
def test_news_are_changes_and_what_is_kept_is_bounded(history: list[Report]):
    state = RadioState(most_ues=4, most_cells=2)
    for at_ns, report in enumerate(history, 1):
        before = dict(state.ues)
        try:
            news = state.apply(report, at_ns)
        except ReportRefused:
            assert state.ues == before
            continue
        assert len(state.ues) <= 4
        assert len(state.loads) <= 2
        for each in news:
            was, after = before.get(each.ue.name), state.ues.get(each.ue.name)
            assert _is_change(each, was, after), (each, was, after)
        assert state.apply(report, at_ns) == (), "what is said again is no news"


def _is_change(news, was, after) -> bool:
    match news:
        case CellChanged(status=HandoverStatus.COMPLETED, cell=source, targets=(target,)):
            return source != target
        case CellChanged():
            return was is None or was.handover != (news.status, news.targets)
        case BearerChanged(change=BearerChange.RELEASED, bearer=gone):
            return was.bearers[gone.erab_id] == gone and (after is None or gone.erab_id not in after.bearers)
        case BearerChanged(bearer=one):
            return after.bearers[one.erab_id] == one and (was is None or was.bearers.get(one.erab_id) != one)
        case S1BearerChanged(change=BearerChange.RELEASED, bearer=gone):
            return was.s1_bearers[gone.erab_id] == gone and (after is None or gone.erab_id not in after.s1_bearers)
        case S1BearerChanged(bearer=one):
            return after.s1_bearers[one.erab_id] == one and (was is None or was.s1_bearers.get(one.erab_id) != one)
        case Measured(measurement=measurement):
            return after.measurement == measurement and after.measured_unix_ns == news.at_unix_ns
        case TimingAdvanceChanged(timing_advance=advance):
            return after.timing_advance == advance
        case CarriersReconfigured(added=added, removed=removed):
            return (
                bool(added or removed) and set(added) <= set(after.carriers) and not set(removed) & set(after.carriers)
            )
    return False
