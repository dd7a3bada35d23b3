"""Reconfiguration Broadcast as a pure protocol: one reconfiguration, from its first LoadStage to its outcome.

Counterpart: a sender carries instructions out and feeds their outcome back as events. This module sends nothing and
reads no clock; absolute deadlines come from `start`, and the sender reports `DeadlinePassed` when `deadline_s` is over.

    preparing ──> switching ──> recording ──> committing ──> done
        │             │             │ (refused)
        │             ├─────────────┘
        │             v
        │         reverting
        v             v
      aborting <──────┘ ──> aborted

What it promises, whatever order events come in, repeated or not at all:

* the plan is recorded durably (`RecordPlan`, the commit point) before any node is told to commit it;
* before that point an abort leaves the old plan as it was: sessions go back first, then stages are released; whoever asks
  for one later is too late;
* once recorded it is never aborted; a node that misses `CommitEpoch` is noted and learns the epoch later;
* while a record is under way nothing else can end the reconfiguration: its outcome decides. The sender answers every
  `RecordPlan`; recording the same plan twice must be harmless;
* it ends: each phase has a deadline; that of preparing moves on as long as weights arrive.

A plan without stages takes its chain away by the same steps: there is nothing to prepare, sessions switch to other chains,
the end is recorded, and the nodes of the old plan let go of its stages with its epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from mec_platform.domain.split_plan import SplitPlan


class Phase(StrEnum):
    """Where a reconfiguration stands; DONE and ABORTED are final."""

    PREPARING = "preparing"
    SWITCHING = "switching"
    RECORDING = "recording"
    COMMITTING = "committing"
    DONE = "done"
    REVERTING = "reverting"
    ABORTING = "aborting"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Longest time for each phase, in seconds. Time that a phase leaves over is left to the next."""

    prepare_s: float = 30.0  # maps weights that are local within 1 s; counted anew while weights arrive
    switch_s: float = 30.0  # a full context's KV over a slow link, or its replay
    commit_s: float = 5.0  # one small call per node
    abort_s: float = 10.0  # the same, and sessions that go back may replay a few tokens


@dataclass(frozen=True, slots=True)
class SessionSwitched:
    """How one session came over to the new plan, as its gateway reports it."""

    session: int
    mode: str  # pre_copy, stop_and_copy, standby, replay, none
    pause_ms: float
    precopied_bytes: int
    paused_bytes: int
    replayed_tokens: int
    tail_positions: int = 0
    held_ms: float = 0.0
    rounds: int = 0


# Events: what happened.


@dataclass(frozen=True, slots=True)
class StagePrepared:
    node: str
    load_ms: float


@dataclass(frozen=True, slots=True)
class StageProgressed:
    """A stage that is being loaded has received more of its weights; loading gets its whole time again from `now_s`."""

    node: str
    now_s: float


@dataclass(frozen=True, slots=True)
class StageFailed:
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class GatewaySwitched:
    gateway: str
    sessions: tuple[SessionSwitched, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayFailed:
    gateway: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanRecorded:
    """The plan is durable: it is the committed plan from now on."""


@dataclass(frozen=True, slots=True)
class RecordRefused:
    """The log took another plan first, or could not take this one for certain."""

    reason: str


@dataclass(frozen=True, slots=True)
class EpochCommitted:
    node: str


@dataclass(frozen=True, slots=True)
class CommitFailed:
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class SessionsReverted:
    """The gateway's sessions are back on the old plan, or cannot be brought back (`reason`)."""

    gateway: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EpochAborted:
    """The node has forgotten the prepared epoch, or could not be asked (`reason`)."""

    node: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MemberLost:
    name: str


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """Somebody wants the old plan to stay; too late once the plan is about to be recorded, see `why_not_aborted`."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Ignored where `now_s` is before the deadline of the phase (a timer of an earlier phase)."""

    now_s: float


Event = (
    StagePrepared
    | StageProgressed
    | StageFailed
    | GatewaySwitched
    | GatewayFailed
    | PlanRecorded
    | RecordRefused
    | EpochCommitted
    | CommitFailed
    | SessionsReverted
    | EpochAborted
    | MemberLost
    | AbortRequested
    | DeadlinePassed
)


# Instructions: what to do now.


@dataclass(frozen=True, slots=True)
class LoadStage:
    """Prepare a stage, and what the node stands by for; `stage_index` is None where that is all it does."""

    node: str
    stage_index: int | None


@dataclass(frozen=True, slots=True)
class SwitchSessions:
    gateway: str
    lost_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """Append the plan to the log, durably; answered by PlanRecorded or RecordRefused. May be repeated."""


@dataclass(frozen=True, slots=True)
class CommitEpoch:
    node: str


@dataclass(frozen=True, slots=True)
class AbortEpoch:
    node: str


@dataclass(frozen=True, slots=True)
class RevertSessions:
    gateway: str


@dataclass(frozen=True, slots=True)
class Finish:
    outcome: Literal["committed", "aborted"]
    reason: str


Instruction = LoadStage | SwitchSessions | RecordPlan | CommitEpoch | AbortEpoch | RevertSessions | Finish


@dataclass(frozen=True, slots=True)
class ReconfigurationState:
    """One reconfiguration. `waiting` names the members whose answer the phase needs; `lost` those that are gone."""

    plan: SplitPlan
    old_plan: SplitPlan | None
    gateways: tuple[str, ...]
    deadlines: Deadlines
    phase: Phase
    deadline_s: float
    waiting: frozenset[str]
    lost: frozenset[str]
    reason: str = ""
    missed: tuple[str, ...] = ()
    load_ms: tuple[tuple[str, float], ...] = ()
    switched: tuple[SessionSwitched, ...] = field(default=())

    @property
    def ended(self) -> bool:
        """Whether the outcome is final."""
        return self.phase in (Phase.DONE, Phase.ABORTED)

    @property
    def pause_ms_max(self) -> float:
        """The longest pause that a session saw."""
        return max((session.pause_ms for session in self.switched), default=0.0)

    @property
    def moved_bytes(self) -> int:
        """KV that was copied, ahead and in the pause."""
        return sum(session.precopied_bytes + session.paused_bytes for session in self.switched)

    @property
    def replayed_tokens(self) -> int:
        """Tokens that sessions had to compute again."""
        return sum(session.replayed_tokens for session in self.switched)


Step = tuple[ReconfigurationState, tuple[Instruction, ...]]


def start(
    plan: SplitPlan,
    old_plan: SplitPlan | None,
    gateways: Iterable[str],
    lost_nodes: Iterable[str],
    deadlines: Deadlines,
    now_s: float,
) -> Step:
    """Begins to replace `old_plan` by `plan`; ends at once where a node of `plan` is lost already.

    Raises:
        ValueError: the plan's epoch is not newer than the old plan's. Epochs never go backwards.
    """
    if old_plan is not None and plan.epoch <= old_plan.epoch:
        raise ValueError(f"epoch {plan.epoch} is not newer than the committed epoch {old_plan.epoch}")
    state = ReconfigurationState(
        plan=plan,
        old_plan=old_plan,
        gateways=tuple(dict.fromkeys(gateways)),
        deadlines=deadlines,
        phase=Phase.PREPARING,
        deadline_s=now_s + deadlines.prepare_s,
        waiting=frozenset(plan.members),
        lost=frozenset(lost_nodes),
    )
    gone = [node for node in plan.members if node in state.lost]
    if gone:
        reason = f"node {gone[0]} was lost before its stage could be loaded"
        return replace(state, phase=Phase.ABORTED, waiting=frozenset(), reason=reason), (Finish("aborted", reason),)
    if not plan.stages:
        return _switch_if_prepared(state)
    indices: dict[str, int | None] = {node: index for index, node in enumerate(plan.nodes)}
    return state, tuple(LoadStage(node, indices.get(node)) for node in plan.members)


def advance(state: ReconfigurationState, event: Event) -> Step:
    """The one door through which a reconfiguration changes. Events that a phase does not expect change nothing."""
    if state.ended:
        return state, ()
    if isinstance(event, MemberLost):
        state = replace(state, lost=state.lost | {event.name})
    if isinstance(event, DeadlinePassed) and event.now_s < state.deadline_s:
        return state, ()
    if isinstance(event, AbortRequested):
        return (state, ()) if why_not_aborted(state) else _abort(state, event.reason)
    match state.phase:
        case Phase.PREPARING:
            return _while_preparing(state, event)
        case Phase.SWITCHING:
            return _while_switching(state, event)
        case Phase.RECORDING:
            return _while_recording(state, event)
        case Phase.COMMITTING:
            return _while_committing(state, event)
        case Phase.REVERTING:
            return _while_reverting(state, event)
        case Phase.ABORTING:
            return _while_aborting(state, event)
        case _:
            raise AssertionError(f"no step from phase {state.phase}")


def why_not_aborted(state: ReconfigurationState) -> str | None:
    """Why an abort that is requested now changes nothing; None where it does."""
    epoch = state.plan.epoch
    match state.phase:
        case Phase.PREPARING | Phase.SWITCHING:
            return None
        case Phase.RECORDING:
            return f"epoch {epoch} is being recorded, which decides"
        case Phase.COMMITTING | Phase.DONE:
            return f"epoch {epoch} is committed; apply another plan instead"
        case Phase.REVERTING | Phase.ABORTING | Phase.ABORTED:
            return f"epoch {epoch} is given up already: {state.reason}"


def _while_preparing(state: ReconfigurationState, event: Event) -> Step:
    match event:
        case StagePrepared(node, load_ms) if node in state.waiting:
            state = replace(state, load_ms=(*state.load_ms, (node, load_ms)))
            return _switch_if_prepared(_answered(state, node))
        case StageProgressed(node, now_s) if node in state.waiting:
            return replace(state, deadline_s=max(state.deadline_s, now_s + state.deadlines.prepare_s)), ()
        case StageFailed(node, reason) if node in state.plan.members:
            return _abort(state, f"node {node} could not load its stage: {reason}")
        case MemberLost(name) if name in state.plan.members:
            return _abort(state, f"node {name} was lost while stages were loading")
        case DeadlinePassed():
            return _abort(state, f"no answer in time to load a stage from {_names(state.waiting)}")
    return state, ()


def _while_switching(state: ReconfigurationState, event: Event) -> Step:
    match event:
        case GatewaySwitched(gateway, sessions) if gateway in state.waiting:
            state = replace(state, switched=state.switched + sessions)
            return _record_if_switched(_answered(state, gateway))
        case GatewayFailed(gateway, reason) if gateway in state.gateways:
            return _abort(state, f"gateway {gateway} could not switch its sessions: {reason}")
        case StageFailed(node, reason) if node in state.plan.members:
            return _abort(state, f"node {node} lost its stage: {reason}")
        case MemberLost(name) if name in state.plan.members:
            return _abort(state, f"node {name} was lost while sessions were switching")
        case MemberLost(name):
            return _record_if_switched(_answered(state, name))
        case DeadlinePassed():
            return _abort(state, f"sessions were not switched in time by {_names(state.waiting)}")
    return state, ()


def _while_recording(state: ReconfigurationState, event: Event) -> Step:
    match event:
        case PlanRecorded():
            old = () if state.old_plan is None else state.old_plan.members
            nodes = _alive(state, dict.fromkeys((*state.plan.members, *old)))
            state = _enter(state, Phase.COMMITTING, nodes, state.deadlines.commit_s)
            committed, finish = _finish_if_committed(state)
            return committed, (*(CommitEpoch(node) for node in nodes), *finish)
        case RecordRefused(reason):
            return _abort(state, f"the plan was not recorded: {reason}")
        case DeadlinePassed(now_s):
            return replace(state, deadline_s=now_s + state.deadlines.commit_s), (RecordPlan(),)
    return state, ()


def _while_committing(state: ReconfigurationState, event: Event) -> Step:
    match event:
        case EpochCommitted(node):
            return _finish_if_committed(_answered(state, node))
        case CommitFailed(node, reason) if node in state.waiting:
            return _finish_if_committed(_missed(state, f"{node} ({reason})", node))
        case MemberLost(name) if name in state.waiting:
            return _finish_if_committed(_missed(state, f"{name} (lost)", name))
        case DeadlinePassed():
            for name in sorted(state.waiting):
                state = _missed(state, f"{name} (no answer)", name)
            return _finish_if_committed(state)
    return state, ()


def _while_reverting(state: ReconfigurationState, event: Event) -> Step:
    match event:
        case SessionsReverted(gateway):
            return _release_if_reverted(_answered(state, gateway))
        case GatewaySwitched(gateway) if gateway in state.gateways and gateway not in state.waiting:
            # Its switch ended after it had answered the revert; its sessions must go back once more.
            return replace(state, waiting=state.waiting | {gateway}), (RevertSessions(gateway),)
        case MemberLost(name):
            return _release_if_reverted(_answered(state, name))
        case DeadlinePassed():
            return _release_if_reverted(replace(state, waiting=frozenset()))
    return state, ()


def _while_aborting(state: ReconfigurationState, event: Event) -> Step:
    match event:
        case EpochAborted(name) | MemberLost(name):
            return _finish_if_aborted(_answered(state, name))
        case StagePrepared(node) if node in state.plan.members:
            # Its load crossed our AbortEpoch on the way; it holds the stage now and must be told again.
            return replace(state, waiting=state.waiting | {node}), (AbortEpoch(node),)
        case GatewaySwitched(gateway) if gateway in state.gateways:
            return state, (RevertSessions(gateway),)
        case DeadlinePassed():
            return _finish_if_aborted(replace(state, waiting=frozenset()))
    return state, ()


def _switch_if_prepared(state: ReconfigurationState) -> Step:
    if state.waiting:
        return state, ()
    gateways = _alive(state, state.gateways)
    state = _enter(state, Phase.SWITCHING, gateways, state.deadlines.switch_s)
    lost = tuple(sorted(state.lost))
    after, record = _record_if_switched(state)
    return after, (*(SwitchSessions(gateway, lost) for gateway in gateways), *record)


def _record_if_switched(state: ReconfigurationState) -> Step:
    if state.waiting:
        return state, ()
    return _enter(state, Phase.RECORDING, (), state.deadlines.commit_s), (RecordPlan(),)


def _finish_if_committed(state: ReconfigurationState) -> Step:
    if state.waiting:
        return state, ()
    reason = f"epoch {state.plan.epoch} is committed"
    if state.missed:
        reason += f"; not confirmed by {', '.join(state.missed)}"
    return replace(state, phase=Phase.DONE, reason=reason), (Finish("committed", reason),)


def _abort(state: ReconfigurationState, reason: str) -> Step:
    """Takes sessions back first where any were asked to switch, then releases the stages."""
    state = replace(state, reason=reason)
    asked = () if state.phase is Phase.PREPARING else state.gateways
    gateways = _alive(state, asked)
    state = _enter(state, Phase.REVERTING, gateways, state.deadlines.abort_s)
    after, release = _release_if_reverted(state)
    return after, (*(RevertSessions(gateway) for gateway in gateways), *release)


def _release_if_reverted(state: ReconfigurationState) -> Step:
    if state.waiting:
        return state, ()
    state = _enter(state, Phase.ABORTING, _alive(state, state.plan.members), state.deadlines.abort_s)
    after, finish = _finish_if_aborted(state)
    # Lost nodes are told as well, without waiting for them: a report of their failure may have been a mistake.
    return after, (*(AbortEpoch(node) for node in state.plan.members), *finish)


def _finish_if_aborted(state: ReconfigurationState) -> Step:
    if state.waiting:
        return state, ()
    return replace(state, phase=Phase.ABORTED), (Finish("aborted", state.reason),)


def _enter(state: ReconfigurationState, phase: Phase, waiting: Iterable[str], seconds: float) -> ReconfigurationState:
    return replace(state, phase=phase, waiting=frozenset(waiting), deadline_s=state.deadline_s + seconds)


def _alive(state: ReconfigurationState, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in state.lost)


def _answered(state: ReconfigurationState, name: str) -> ReconfigurationState:
    return replace(state, waiting=state.waiting - {name})


def _missed(state: ReconfigurationState, note: str, name: str) -> ReconfigurationState:
    return replace(_answered(state, name), missed=(*state.missed, note))


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
