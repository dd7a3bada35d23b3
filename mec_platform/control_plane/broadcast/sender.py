"""Reconfiguration Broadcast, the sending half: carries out what `protocol` instructs and tells it how that went."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

import grpc
import grpc.aio

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.broadcast import protocol
from mec_platform.domain.failures import Failure
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.liveness import Pulses
from mec_platform.rpc.v1 import edge_node_pb2, edge_node_pb2_grpc, inference_pb2, inference_pb2_grpc

CALL_TIMEOUT_S = 60.0
"""Above every phase's deadline: the protocol decides when to stop waiting, this only bounds what is left behind."""

LOAD_TIMEOUT_S = 6 * 3600.0
"""Bounds a load whose weights keep arriving; one whose weights do not is given up by the protocol's deadline."""

WATCH_INTERVAL_S = 5.0
_WATCH_TIMEOUT_S = 5.0
ASK_EVERY_S = 0.3
"""A member that has not answered a call is asked this often whether it lives: it may have much to do."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One reconfiguration to carry out. Addresses are `host:port` by member name, gone members included.

    KV of `left` nodes of the old plan is not used any more, and nothing more is sent to them.
    """

    plan: SplitPlan
    old_plan: SplitPlan | None
    nodes: Mapping[str, str]
    gateways: Mapping[str, str]
    lost: frozenset[str]
    transfer_mode: str
    replay_ms: float
    left: frozenset[str] = frozenset()


Record = Callable[[SplitPlan], Awaitable[str | None]]
"""Commits a plan durably; returns why it could not, or None."""


class ReconfigurationSender:
    """Carries out one reconfiguration at a time; `record` is the commit point.

    Nodes that load a stage are asked every `watch_interval_s` how much of its weights has arrived. With an `identity`,
    members are called over mutual TLS. A member that hangs while it is waited for is told to `on_silent`.
    """

    def __init__(
        self,
        record: Record,
        deadlines: protocol.Deadlines,
        watch_interval_s: float = WATCH_INTERVAL_S,
        identity: GrpcIdentity | None = None,
        on_silent: Callable[[str, Failure], None] = lambda name, failure: None,
    ) -> None:
        self._watch_interval_s = watch_interval_s
        self._on_silent = on_silent
        self._state: protocol.ReconfigurationState | None = None
        self._record = record
        self._deadlines = deadlines
        self._channels = Channels(identity)
        self._pulses = Pulses(self._channels)
        self._events: asyncio.Queue[protocol.Event] = asyncio.Queue()
        self._calls = BackgroundTasks()

    async def carry_out(self, assignment: Assignment) -> protocol.ReconfigurationState:
        """Runs the protocol to its end and returns its final state."""
        clock = asyncio.get_running_loop()
        self._events, self._state = asyncio.Queue(), None
        state, instructions = protocol.start(
            assignment.plan,
            assignment.old_plan,
            assignment.gateways,
            assignment.lost,
            self._deadlines,
            clock.time(),
        )
        while True:
            for instruction in instructions:
                if not isinstance(instruction, protocol.Finish):
                    # Not awaited at the end: what is still under way then (an abort to a node that may be gone) goes on.
                    call = self._execute(instruction, assignment, self._events)
                    self._calls.start(type(instruction).__name__, call)
            self._state = state
            if state.ended:
                return state
            state, instructions = protocol.advance(state, await self._next_event(state.deadline_s))

    def member_lost(self, name: str) -> None:
        """Tells the reconfiguration under way, if any, that a member is gone. Repeating it is harmless."""
        self._events.put_nowait(protocol.MemberLost(name))

    def request_abort(self, reason: str) -> str | None:
        """Gives up the reconfiguration under way; returns why it is too late for that, or None."""
        if self._state is None:
            return "nothing has begun yet"
        refusal = protocol.why_not_aborted(self._state)
        if refusal is None:
            self._events.put_nowait(protocol.AbortRequested(reason))
        return refusal

    async def close(self) -> None:
        """Ends calls under way and closes the channels to members."""
        await self._calls.stop()
        await self._channels.close()

    async def _next_event(self, deadline_s: float) -> protocol.Event:
        clock = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(self._events.get(), max(0.0, deadline_s - clock.time()))
        except TimeoutError:
            return protocol.DeadlinePassed(clock.time())

    async def _execute(
        self, instruction: protocol.Instruction, assignment: Assignment, events: asyncio.Queue[protocol.Event]
    ) -> None:
        watches = []
        address = _address(instruction, assignment)
        if address is not None:
            watches.append(self._calls.start("watch member", self._watch_member(*address, events)))
        match instruction:
            case protocol.LoadStage(node, stage_index):
                watches.append(self._calls.start("watch load", self._watch_load(node, assignment, events)))
                outcome = await self._load_stage(node, stage_index, assignment)
            case _:
                outcome = await self._outcome(instruction, assignment)
        await self._calls.cancel(*watches)
        events.put_nowait(outcome)

    async def _watch_member(self, name: str, address: str, events: asyncio.Queue[protocol.Event]) -> None:
        """Ends once a member that is waited for turns out to hang."""
        failure = None
        while failure is None:
            await asyncio.sleep(ASK_EVERY_S)
            failure = await self._pulses.find_silence(address, name)
        self._on_silent(name, failure)
        events.put_nowait(protocol.MemberLost(name))

    async def _outcome(self, instruction: protocol.Instruction, assignment: Assignment) -> protocol.Event:
        """Makes the call that an instruction stands for; a call that fails is an event like any other."""
        match instruction:
            case protocol.SwitchSessions(gateway, lost_nodes):
                return await self._switch_sessions(gateway, lost_nodes, assignment)
            case protocol.RecordPlan():
                refusal = await self._record(assignment.plan)
                return protocol.PlanRecorded() if refusal is None else protocol.RecordRefused(refusal)
            case protocol.CommitEpoch(node):
                error = await self._call_node(node, assignment, "CommitEpoch")
                return protocol.EpochCommitted(node) if error is None else protocol.CommitFailed(node, error)
            case protocol.AbortEpoch(node):
                return protocol.EpochAborted(node, await self._call_node(node, assignment, "AbortEpoch") or "")
            case protocol.RevertSessions(gateway):
                return await self._revert_sessions(gateway, assignment)
            case protocol.LoadStage() | protocol.Finish():
                raise AssertionError(f"{instruction} is not for here")
            case _:
                assert_never(instruction)

    async def _load_stage(self, node: str, stage_index: int | None, assignment: Assignment) -> protocol.Event:
        request = edge_node_pb2.LoadStageRequest(
            plan=plan_to_message(assignment.plan, assignment.nodes), stage_index=stage_index
        )
        try:
            reply = await self._node(node, assignment).LoadStage(request, timeout=LOAD_TIMEOUT_S)
        except (grpc.aio.AioRpcError, KeyError) as error:
            return protocol.StageFailed(node, _words(error))
        return protocol.StagePrepared(node, reply.load_ms)

    async def _watch_load(self, node: str, assignment: Assignment, events: asyncio.Queue[protocol.Event]) -> None:
        """Tells the protocol whenever weights have arrived on a node that loads a stage."""
        arrived: int | None = None
        while True:
            await asyncio.sleep(self._watch_interval_s)
            try:
                seen = await self._node(node, assignment).Describe(
                    edge_node_pb2.DescribeRequest(), timeout=_WATCH_TIMEOUT_S
                )
            except (grpc.aio.AioRpcError, KeyError):
                continue  # whether the node is lost is decided elsewhere
            if arrived is not None and seen.fetched_bytes > arrived:
                events.put_nowait(protocol.StageProgressed(node, asyncio.get_running_loop().time()))
            arrived = seen.fetched_bytes

    async def _switch_sessions(
        self, gateway: str, lost_nodes: tuple[str, ...], assignment: Assignment
    ) -> protocol.Event:
        request = inference_pb2.SwitchPlanRequest(
            plan=plan_to_message(assignment.plan, assignment.nodes),
            lost_nodes=sorted({*lost_nodes, *assignment.left}),
            transfer_mode=assignment.transfer_mode,
            replay_ms=assignment.replay_ms,
        )
        try:
            reply = await self._gateway(gateway, assignment).SwitchPlan(request, timeout=CALL_TIMEOUT_S)
        except (grpc.aio.AioRpcError, KeyError) as error:
            return protocol.GatewayFailed(gateway, _words(error))
        return protocol.GatewaySwitched(
            gateway,
            tuple(
                protocol.SessionSwitched(
                    session=session.session,
                    mode=session.mode,
                    pause_ms=session.pause_ms,
                    precopied_bytes=session.precopied_bytes,
                    paused_bytes=session.paused_bytes,
                    replayed_tokens=session.replayed_tokens,
                    tail_positions=session.tail_positions,
                    held_ms=session.held_ms,
                    rounds=session.rounds,
                )
                for session in reply.sessions
            ),
        )

    async def _revert_sessions(self, gateway: str, assignment: Assignment) -> protocol.Event:
        plan = assignment.plan
        before = assignment.old_plan or SplitPlan(plan.parent_epoch, plan.parent_epoch, plan.model, (), plan.chain)
        request = inference_pb2.RevertPlanRequest(plan=plan_to_message(before, assignment.nodes))
        try:
            await self._gateway(gateway, assignment).RevertPlan(request, timeout=CALL_TIMEOUT_S)
        except (grpc.aio.AioRpcError, KeyError) as error:
            return protocol.SessionsReverted(gateway, _words(error))
        return protocol.SessionsReverted(gateway)

    async def _call_node(self, node: str, assignment: Assignment, method: str) -> str | None:
        """CommitEpoch or AbortEpoch; returns why it failed, or None."""
        request = edge_node_pb2.EpochRequest(epoch=assignment.plan.epoch)
        try:
            stub = self._node(node, assignment)
            call = stub.CommitEpoch if method == "CommitEpoch" else stub.AbortEpoch
            await call(request, timeout=CALL_TIMEOUT_S)
        except (grpc.aio.AioRpcError, KeyError) as error:
            return _words(error)
        return None

    def _node(self, name: str, assignment: Assignment) -> edge_node_pb2_grpc.EdgeNodeAsyncStub:
        return edge_node_pb2_grpc.EdgeNodeStub(self._channels.to(assignment.nodes[name], name))

    def _gateway(self, name: str, assignment: Assignment) -> inference_pb2_grpc.InferenceAsyncStub:
        return inference_pb2_grpc.InferenceStub(self._channels.to(assignment.gateways[name], name))


def _address(instruction: protocol.Instruction, assignment: Assignment) -> tuple[str, str] | None:
    """Name and address of the member that an instruction is for; None where there is none."""
    match instruction:
        case protocol.LoadStage(name, _) | protocol.CommitEpoch(name) | protocol.AbortEpoch(name):
            address = assignment.nodes.get(name)
        case protocol.SwitchSessions(name, _) | protocol.RevertSessions(name):
            address = assignment.gateways.get(name)
        case _:
            return None
    return None if address is None else (name, address)


def _words(error: grpc.aio.AioRpcError | KeyError) -> str:
    if isinstance(error, KeyError):
        return f"the address of {error.args[0]} is not known"
    return error.details() or error.code().name
