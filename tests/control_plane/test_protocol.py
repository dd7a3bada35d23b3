"""Reconfiguration Broadcast: scenarios event by event, and what holds for any order of events."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.broadcast.protocol import (
    AbortEpoch,
    AbortRequested,
    CommitEpoch,
    CommitFailed,
    DeadlinePassed,
    Deadlines,
    EpochAborted,
    EpochCommitted,
    Event,
    Finish,
    GatewayFailed,
    GatewaySwitched,
    Instruction,
    LoadStage,
    MemberLost,
    Phase,
    PlanRecorded,
    ReconfigurationState,
    RecordPlan,
    RecordRefused,
    RevertSessions,
    SessionsReverted,
    SessionSwitched,
    StageFailed,
    StagePrepared,
    StageProgressed,
    SwitchSessions,
    advance,
    start,
    why_not_aborted,
)

DEADLINES = Deadlines(prepare_s=10, switch_s=10, commit_s=5, abort_s=5)
MOVED = SessionSwitched(
    session=1, mode="pre_copy", pause_ms=8.5, precopied_bytes=900, paused_bytes=100, replayed_tokens=0
)


class Run:
    """One reconfiguration of plan 1 (a, b) into plan 2 (b, c) with gateway g; collects what it instructs."""

    def __init__(self, world: SimpleNamespace, gateways: Sequence[str] = ("g",), lost: Sequence[str] = ()) -> None:
        self.old = world.plan(1, ("a", 0, 6), ("b", 6, 12))
        self.new = world.plan(2, ("b", 0, 4), ("c", 4, 12))
        self.state, first = start(self.new, self.old, gateways, lost, DEADLINES, now_s=100.0)
        self.log: list[Instruction | Event] = list(first)

    def feed(self, *events: Event) -> list[Instruction]:
        given_now: list[Instruction] = []
        for event in events:
            self.state, instructions = advance(self.state, event)
            self.log += [event, *instructions]
            given_now += instructions
        return given_now

    def count(self, kind: type) -> int:
        return sum(isinstance(entry, kind) for entry in self.log)


def test_a_reconfiguration_that_goes_well(world: SimpleNamespace) -> None:
    run = Run(world)
    assert run.log == [LoadStage("b", 0), LoadStage("c", 1)]
    assert run.feed(StagePrepared("c", 40.0)) == []
    assert run.feed(StagePrepared("b", 55.0)) == [SwitchSessions("g", ())]
    assert run.feed(GatewaySwitched("g", (MOVED,))) == [RecordPlan()]
    assert run.feed(PlanRecorded()) == [CommitEpoch("b"), CommitEpoch("c"), CommitEpoch("a")]
    assert run.feed(EpochCommitted("a"), EpochCommitted("b")) == []
    assert run.feed(EpochCommitted("c")) == [Finish("committed", "epoch 2 is committed")]
    assert run.state.load_ms == (("c", 40.0), ("b", 55.0))
    assert (run.state.pause_ms_max, run.state.moved_bytes, run.state.replayed_tokens) == (8.5, 1000, 0)


def test_the_first_plan_without_gateways_goes_straight_to_the_record(world: SimpleNamespace) -> None:
    state, _ = start(world.plan(1, ("a", 0, 12)), None, [], [], DEADLINES, 0.0)
    state, instructions = advance(state, StagePrepared("a", 1.0))
    assert instructions == (RecordPlan(),)
    state, instructions = advance(state, PlanRecorded())
    assert instructions == (CommitEpoch("a"),)


def test_the_end_of_a_chain_moves_its_sessions_is_recorded_and_then_frees_its_nodes(world: SimpleNamespace) -> None:
    old = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    state, first = start(world.plan(2), old, ["g"], ["b"], DEADLINES, 0.0)
    assert first == (SwitchSessions("g", ("b",)),)
    state, instructions = advance(state, GatewaySwitched("g", (MOVED,)))
    assert instructions == (RecordPlan(),)
    state, instructions = advance(state, PlanRecorded())
    assert instructions == (CommitEpoch("a"),)
    state, instructions = advance(state, EpochCommitted("a"))
    assert instructions == (Finish("committed", "epoch 2 is committed"),)


def test_the_end_of_a_chain_that_a_gateway_cannot_follow_is_taken_back(world: SimpleNamespace) -> None:
    old = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    state, _ = start(world.plan(2), old, ["g", "h"], [], DEADLINES, 0.0)
    state, instructions = advance(state, GatewayFailed("h", "no answer"))
    assert instructions == (RevertSessions("g"), RevertSessions("h"))
    state, _ = advance(state, SessionsReverted("g"))
    state, instructions = advance(state, SessionsReverted("h"))
    assert instructions == (Finish("aborted", "gateway h could not switch its sessions: no answer"),)


def test_a_stage_that_does_not_load_releases_the_others(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0))
    assert run.feed(StageFailed("c", "out of memory")) == [AbortEpoch("b"), AbortEpoch("c")]
    assert run.feed(EpochAborted("b"), EpochAborted("c")) == [
        Finish("aborted", "node c could not load its stage: out of memory")
    ]


def test_a_gateway_that_fails_takes_all_sessions_back_before_stages_are_released(world: SimpleNamespace) -> None:
    run = Run(world, gateways=("g", "h"))
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewaySwitched("g"))
    assert run.feed(GatewayFailed("h", "no answer")) == [RevertSessions("g"), RevertSessions("h")]
    assert run.feed(SessionsReverted("g")) == []
    assert run.feed(SessionsReverted("h", "unreachable")) == [AbortEpoch("b"), AbortEpoch("c")]


def test_a_dead_node_of_the_old_plan_blocks_nothing(world: SimpleNamespace) -> None:
    run = Run(world, lost=("a",))
    assert run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0)) == [SwitchSessions("g", ("a",))]
    assert run.feed(GatewaySwitched("g"), PlanRecorded()) == [RecordPlan(), CommitEpoch("b"), CommitEpoch("c")]
    assert run.feed(EpochCommitted("b"), EpochCommitted("c"))[-1] == Finish("committed", "epoch 2 is committed")


def test_a_node_of_the_new_plan_that_dies_before_the_record_aborts(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0))
    assert run.feed(MemberLost("c")) == [RevertSessions("g")]
    assert run.feed(SessionsReverted("g")) == [AbortEpoch("b"), AbortEpoch("c")]
    assert run.feed(EpochAborted("b")) == [Finish("aborted", "node c was lost while sessions were switching")]


def test_a_gateway_that_dies_is_not_waited_for(world: SimpleNamespace) -> None:
    run = Run(world, gateways=("g", "h"))
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewaySwitched("g"))
    assert run.feed(MemberLost("h")) == [RecordPlan()]


def test_a_refused_record_aborts(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewaySwitched("g"))
    assert run.feed(RecordRefused("epoch 2 is taken")) == [RevertSessions("g")]


def test_nothing_but_its_outcome_ends_a_record(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewaySwitched("g"))
    assert run.feed(StageFailed("b", "late"), MemberLost("c"), GatewayFailed("g", "late")) == []
    assert run.feed(DeadlinePassed(1000.0)) == [RecordPlan()]
    assert run.state.phase is Phase.RECORDING
    assert run.feed(PlanRecorded()) == [CommitEpoch("b"), CommitEpoch("a")]


def test_nodes_that_miss_the_commit_are_noted_and_it_stays_committed(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewaySwitched("g"), PlanRecorded())
    run.feed(CommitFailed("a", "unavailable"), MemberLost("b"))
    assert run.feed(DeadlinePassed(1000.0)) == [
        Finish("committed", "epoch 2 is committed; not confirmed by a (unavailable), b (lost), c (no answer)")
    ]


def test_a_requested_abort_takes_sessions_back_and_releases_stages(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0))
    assert why_not_aborted(run.state) is None
    assert run.feed(AbortRequested("not now")) == [RevertSessions("g")]
    assert why_not_aborted(run.state) == "epoch 2 is given up already: not now"
    assert run.feed(AbortRequested("again")) == []
    assert run.feed(SessionsReverted("g")) == [AbortEpoch("b"), AbortEpoch("c")]
    assert run.feed(EpochAborted("b"), EpochAborted("c")) == [Finish("aborted", "not now")]


def test_an_abort_that_is_requested_after_the_record_was_begun_changes_nothing(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewaySwitched("g"))
    assert why_not_aborted(run.state) == "epoch 2 is being recorded, which decides"
    assert run.feed(AbortRequested("too late")) == []
    run.feed(PlanRecorded())
    assert why_not_aborted(run.state) == "epoch 2 is committed; apply another plan instead"
    assert run.feed(AbortRequested("too late")) == []
    run.feed(*(EpochCommitted(node) for node in "abc"))
    assert run.state.phase is Phase.DONE


def test_a_timer_of_an_earlier_phase_is_ignored(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0))
    assert run.feed(DeadlinePassed(110.0)) == []
    assert run.feed(DeadlinePassed(120.0)) == [RevertSessions("g")]


def test_a_stage_whose_weights_keep_arriving_gets_its_whole_time_again(world: SimpleNamespace) -> None:
    run = Run(world)
    assert run.feed(StagePrepared("b", 1.0), StageProgressed("c", 108.0)) == []
    assert run.state.deadline_s == 118.0
    assert run.feed(DeadlinePassed(110.0)) == []
    assert run.feed(DeadlinePassed(118.0)) == [AbortEpoch("b"), AbortEpoch("c")]


def test_progress_of_a_stage_that_is_not_waited_for_changes_nothing(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StagePrepared("b", 1.0))
    before = run.state
    for progress in (StageProgressed("b", 109.0), StageProgressed("a", 109.0), StageProgressed("c", 95.0)):
        assert run.feed(progress) == []
        assert run.state == before


def test_a_stage_that_is_ready_after_the_abort_is_aborted_again(world: SimpleNamespace) -> None:
    run = Run(world)
    run.feed(StageFailed("b", "no room"), EpochAborted("c"))
    assert run.feed(StagePrepared("c", 900.0)) == [AbortEpoch("c")]
    assert run.feed(GatewaySwitched("g")) == [RevertSessions("g")]


def test_a_switch_that_ends_after_its_revert_is_reverted_again(world: SimpleNamespace) -> None:
    run = Run(world, gateways=("g", "h"))
    run.feed(StagePrepared("b", 1.0), StagePrepared("c", 1.0), GatewayFailed("h", "?"), SessionsReverted("g"))
    assert run.feed(GatewaySwitched("g")) == [RevertSessions("g")]
    assert run.feed(SessionsReverted("h")) == []
    assert run.feed(SessionsReverted("g")) == [AbortEpoch("b"), AbortEpoch("c")]


def test_a_plan_with_a_lost_node_ends_at_once(world: SimpleNamespace) -> None:
    assert Run(world, lost=("c",)).log == [Finish("aborted", "node c was lost before its stage could be loaded")]


def test_epochs_never_go_backwards(world: SimpleNamespace) -> None:
    plan = world.plan(3, ("a", 0, 12))
    with pytest.raises(ValueError, match="epoch 3 is not newer than the committed epoch 3"):
        start(plan, plan, [], [], DEADLINES, 0.0)


NAMES = st.sampled_from(["a", "b", "c", "g", "h", "stranger"])
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(StagePrepared, NAMES, st.just(1.0)),
    st.builds(GatewaySwitched, NAMES),
    st.just(PlanRecorded()),
    st.builds(EpochCommitted, NAMES),
    st.builds(SessionsReverted, NAMES),
    st.builds(EpochAborted, NAMES),
    st.builds(StageFailed, NAMES, st.just("x")),
    st.builds(GatewayFailed, NAMES, st.just("x")),
    st.builds(CommitFailed, NAMES, st.just("x")),
    st.builds(MemberLost, NAMES),
    st.just(RecordRefused("x")),
    st.just(AbortRequested("x")),
    st.builds(DeadlinePassed, st.sampled_from([90.0, 112.0, 131.0, 500.0])),
)
# Runs that get far are rare among random events: most start with a prefix of one that goes well.
GOOD: list[Event] = [
    StagePrepared("b", 1.0),
    StagePrepared("c", 1.0),
    GatewaySwitched("g"),
    GatewaySwitched("h"),
    PlanRecorded(),
    EpochCommitted("b"),
]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    good = GOOD[: draw(st.integers(0, len(GOOD)))]
    noise = draw(st.lists(EVENTS, max_size=15))
    repeated = draw(st.lists(st.sampled_from(GOOD), max_size=3))
    return [*good[: len(good) // 2], *repeated, *good[len(good) // 2 :], *noise]


def check_log(run: Run) -> None:
    kinds = [type(entry) for entry in run.log]
    finishes = [entry for entry in run.log if isinstance(entry, Finish)]
    assert len(finishes) == run.state.ended
    recorded = RecordPlan in kinds and PlanRecorded in kinds[kinds.index(RecordPlan) :]
    if CommitEpoch in kinds:
        assert recorded
        assert kinds.index(RecordPlan) < kinds.index(CommitEpoch)
        assert AbortEpoch not in kinds
        assert RevertSessions not in kinds
    for finish in finishes:
        assert (finish.outcome == "committed") == (run.state.phase is Phase.DONE)
        assert (finish.outcome == "committed") == (CommitEpoch in kinds)
        if finish.outcome == "aborted":
            assert {AbortEpoch("b"), AbortEpoch("c")} <= {entry for entry in run.log if isinstance(entry, AbortEpoch)}
    if SwitchSessions in kinds and AbortEpoch in kinds:
        asked = {entry.gateway for entry in run.log if isinstance(entry, SwitchSessions)}
        taken_back = {entry.gateway for entry in run.log if isinstance(entry, RevertSessions)}
        assert asked - taken_back <= run.state.lost


@given(events=histories())
@settings(derandomize=True, max_examples=600)
def test_whatever_happens_it_is_committed_or_aborted_never_both(world: SimpleNamespace, events: list[Event]) -> None:
    run = Run(world, gateways=("g", "h"))
    for event in events:
        run.feed(event)
        check_log(run)


@given(events=histories(), recorded=st.booleans())
@settings(derandomize=True, max_examples=300)
def test_it_always_ends_once_deadlines_pass(world: SimpleNamespace, events: list[Event], recorded: bool) -> None:
    run = Run(world, gateways=("g", "h"))
    run.feed(*events)
    for _ in range(4):  # one deadline per phase that is left, at most
        run.feed(DeadlinePassed(run.state.deadline_s))
        if run.state.phase is Phase.RECORDING:
            run.feed(PlanRecorded() if recorded else RecordRefused("x"))
    assert run.state.ended
    check_log(run)


@given(events=histories(), event=EVENTS)
@settings(derandomize=True, max_examples=300)
def test_after_the_end_nothing_changes(world: SimpleNamespace, events: list[Event], event: Event) -> None:
    run = Run(world, gateways=("g", "h"))
    run.feed(*events)
    ended: ReconfigurationState = run.state
    if ended.ended:
        assert advance(ended, event) == (ended, ())


@given(order=st.permutations(GOOD[:2]), repeats=st.lists(st.sampled_from(GOOD), max_size=6))
@settings(derandomize=True)
def test_repeated_and_reordered_answers_change_nothing(
    world: SimpleNamespace, order: list[Event], repeats: list[Event]
) -> None:
    run = Run(world, gateways=("g", "h"))
    run.feed(*order, *[event for event in repeats if isinstance(event, StagePrepared)], *GOOD[2:4], *repeats)
    run.feed(PlanRecorded(), *repeats, EpochCommitted("b"), EpochCommitted("c"), EpochCommitted("a"))
    assert run.state.phase is Phase.DONE
    assert [run.count(kind) for kind in (SwitchSessions, RecordPlan, CommitEpoch, Finish)] == [2, 1, 3, 1]
