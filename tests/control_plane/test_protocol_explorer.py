"""An explorer of Reconfiguration Broadcast: every message may be lost, late, repeated or overtaken, everybody may crash.

The protocol and the nodes' stage tables are the real ones; calls, the log, gateways and time are models. A walk makes random
steps and checks what must hold after each of them; then the faults stop, and the world must come to rest in one plan.
A walk that fails prints its seed and its steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from mec_apps.split_inference.node.stages import StageError, StageTable, stage_of, standbys_of
from mec_platform.control_plane.broadcast import protocol
from mec_platform.domain.layers import ranges_from_cuts
from mec_platform.domain.split_plan import SplitPlan, Stage

BLOCKS = 6
MODEL = "m"
NODES = ("a", "b", "c")
GATEWAYS = ("g", "h")
DEADLINES = protocol.Deadlines()
SKIPPED_EPOCHS = 100


@dataclass(slots=True)
class Node:
    alive: bool = True
    table: StageTable = field(default_factory=StageTable)
    since: int = 0
    """The highest epoch that was given out when it (last) started: it has lost what was loaded for that one and earlier."""


@dataclass(slots=True)
class Coordinator:
    """A platform that leads, or thinks that it does. `attempt` is the last epoch that it gave out."""

    attempt: int
    revision: int
    state: protocol.ReconfigurationState | None = None

    @property
    def running(self) -> bool:
        return self.state is not None and not self.state.ended


@dataclass(frozen=True, slots=True)
class Call:
    by: int
    plan: SplitPlan
    old_plan: SplitPlan | None
    instruction: protocol.Instruction


@dataclass(slots=True)
class World:
    choices: random.Random
    log: list[SplitPlan] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=lambda: {name: Node() for name in NODES})
    gateways: dict[str, SplitPlan | None] = field(default_factory=lambda: dict.fromkeys(GATEWAYS))
    coordinators: list[Coordinator] = field(default_factory=lambda: [Coordinator(0, 0)])
    """The last one leads."""
    calls: list[Call] = field(default_factory=list)
    answers: list[tuple[int, int, protocol.Event]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    revision: int = 0
    """Grows with every plan in the log and with every platform that begins to lead: it fences off the one before."""

    @property
    def committed(self) -> SplitPlan | None:
        return self.log[-1] if self.log else None

    @property
    def leader(self) -> Coordinator:
        return self.coordinators[-1]

    @property
    def living_epoch(self) -> int:
        """What the leader says in its answers to reports: epochs below are dead unless they are committed."""
        return self.leader.attempt + (0 if self.leader.running else 1)

    # Steps of the coordinator.

    def begin(self) -> None:
        """The leader decides on another plan, over nodes that it takes to be alive."""
        if self.leader.running:
            return
        alive = [name for name, node in self.nodes.items() if node.alive]
        chosen = self.choices.sample(alive, self.choices.randint(1, len(alive))) if alive else []
        if not chosen:
            return
        cuts = sorted(self.choices.sample(range(1, BLOCKS), len(chosen) - 1))
        stages = tuple(map(Stage, chosen, ranges_from_cuts(BLOCKS, cuts)))
        parent = 0 if self.committed is None else self.committed.epoch
        self.leader.attempt = max(self.leader.attempt, parent) + 1
        plan = SplitPlan(self.leader.attempt, parent, MODEL, stages, standbys=self.draw_standbys(stages, alive))
        lost = [name for name, node in self.nodes.items() if not node.alive]
        self.note(f"begin {plan.epoch}: {plan.describe()}")
        step = protocol.start(plan, self.committed, GATEWAYS, lost, DEADLINES, 0.0)
        self.take(len(self.coordinators) - 1, step)

    def draw_standbys(self, stages: tuple[Stage, ...], alive: list[str]) -> tuple[Stage, ...]:
        """For some of the stages a node that stands by, which may have a stage of its own."""
        return tuple(
            Stage(self.choices.choice(others), stage.layers)
            for stage in stages
            if (others := [name for name in alive if name != stage.node]) and self.choices.random() < 0.3
        )

    def take(self, by: int, step: protocol.Step) -> None:
        state, instructions = step
        self.coordinators[by].state = state
        for instruction in instructions:
            if not isinstance(instruction, protocol.Finish):
                self.calls.append(Call(by, state.plan, state.old_plan, instruction))

    def tell(self, by: int, epoch: int, event: protocol.Event) -> None:
        """An answer arrives; the sender has a queue for each reconfiguration, so late ones of earlier epochs are not heard."""
        state = self.coordinators[by].state
        if state is not None and state.plan.epoch == epoch:
            self.take(by, protocol.advance(state, event))

    def crash_coordinator(self) -> None:
        """Another platform leads from now on; the old one is gone, or goes on without knowing."""
        self.coordinators[-1].attempt += 0
        if self.choices.random() < 0.5:
            self.coordinators[-1].state = None
        self.revision += 1
        last = max(self.coordinators[-1].attempt, 0 if self.committed is None else self.committed.epoch)
        self.coordinators.append(Coordinator(last + SKIPPED_EPOCHS, self.revision))

    # What calls do where they arrive.

    def execute(self, call: Call) -> protocol.Event:
        match call.instruction:
            case protocol.LoadStage(node, index):
                if not self.nodes[node].alive:
                    return protocol.StageFailed(node, "gone")
                try:
                    stage = () if index is None else (stage_of(call.plan, index, node, MODEL, BLOCKS),)
                    self.nodes[node].table.prepare(*stage, *standbys_of(call.plan, node, BLOCKS))
                except StageError as error:
                    return protocol.StageFailed(node, str(error))
                return protocol.StagePrepared(node, 1.0)
            case protocol.SwitchSessions(gateway):
                current = self.gateways[gateway]
                if current is not None and call.plan.epoch < current.epoch:
                    return protocol.GatewayFailed(gateway, "an older plan")
                if not all(self.nodes[node].alive for node in call.plan.nodes):
                    return protocol.GatewayFailed(gateway, "a node does not answer")
                self.gateways[gateway] = call.plan
                return protocol.GatewaySwitched(gateway)
            case protocol.RevertSessions(gateway):
                if call.old_plan is None:
                    return protocol.SessionsReverted(gateway, "there was no plan before")
                self.gateways[gateway] = call.old_plan
                return protocol.SessionsReverted(gateway)
            case protocol.RecordPlan():
                return self.record(call)
            case protocol.CommitEpoch(node):
                return self.on_table(node, StageTable.commit, call, protocol.EpochCommitted, protocol.CommitFailed)
            case protocol.AbortEpoch(node):
                return self.on_table(node, StageTable.abort, call, protocol.EpochAborted, protocol.EpochAborted)
            case _:
                raise AssertionError(call)

    def record(self, call: Call) -> protocol.Event:
        coordinator = self.coordinators[call.by]
        if call.plan == self.committed:
            return protocol.PlanRecorded()
        if coordinator.revision != self.revision:
            return protocol.RecordRefused("another platform leads")
        self.log.append(call.plan)
        self.revision += 1
        coordinator.revision = self.revision
        return protocol.PlanRecorded()

    def on_table(
        self,
        node: str,
        change: Callable[[StageTable, int], None],
        call: Call,
        done: Callable[[str], protocol.Event],
        failed: Callable[[str, str], protocol.Event],
    ) -> protocol.Event:
        if not self.nodes[node].alive:
            return failed(node, "gone")
        try:
            change(self.nodes[node].table, call.plan.epoch)
        except StageError as error:
            return failed(node, str(error))
        return done(node)

    # Reports, by which whoever missed something learns of it.

    def report_node(self, name: str) -> None:
        node = self.nodes[name]
        if not node.alive:
            return
        if self.committed is not None and self.committed.epoch > node.table.committed_epoch:
            node.table.commit(self.committed.epoch)
        node.table.forget_before(self.living_epoch)

    def report_gateway(self, name: str) -> None:
        committed, current = self.committed, self.gateways[name]
        if committed is None or (current is not None and current.epoch == committed.epoch):
            return
        if current is None or current.epoch < committed.epoch or current.epoch < self.living_epoch:
            self.gateways[name] = committed

    def note(self, step: str) -> None:
        self.steps.append(step)


def failure(call: Call) -> protocol.Event:
    """What the coordinator hears of a call that did not come through, or whose answer did not."""
    match call.instruction:
        case protocol.LoadStage(node):
            return protocol.StageFailed(node, "no answer")
        case protocol.SwitchSessions(gateway):
            return protocol.GatewayFailed(gateway, "no answer")
        case protocol.RevertSessions(gateway):
            return protocol.SessionsReverted(gateway, "no answer")
        case protocol.RecordPlan():
            return protocol.DeadlinePassed(0.0)  # the log answers in the end; until then nothing is heard
        case protocol.CommitEpoch(node):
            return protocol.CommitFailed(node, "no answer")
        case protocol.AbortEpoch(node):
            return protocol.EpochAborted(node, "no answer")
        case _:
            raise AssertionError(call)


def random_step(world: World) -> None:
    choices = world.choices
    kinds = ["begin", "timer", "report"]
    kinds += ["call"] * (6 if world.calls else 0) + ["answer"] * (6 if world.answers else 0)
    kinds += ["crash", "restart", "suspect", "abort", "lead"] if choices.random() < 0.25 else []
    match choices.choice(kinds):
        case "begin":
            world.begin()
        case "call":
            deliver(world, choices.randrange(len(world.calls)), choices.random())
        case "answer":
            by, epoch, event = world.answers[choices.randrange(len(world.answers))]
            if choices.random() < 0.9:
                world.answers.remove((by, epoch, event))
            world.note(f"{by} hears {event}")
            world.tell(by, epoch, event)
        case "timer":
            pass_deadline(world, choices.randrange(len(world.coordinators)))
        case "report":
            report(world, choices.choice((*NODES, *GATEWAYS)))
        case "crash":
            name = choices.choice(NODES)
            world.note(f"{name} crashes")
            world.nodes[name] = Node(alive=False)
        case "restart":
            for name, node in world.nodes.items():
                if not node.alive:
                    world.note(f"{name} starts again")
                    world.nodes[name] = Node(since=max(each.attempt for each in world.coordinators))
        case "suspect":
            by, name = choices.randrange(len(world.coordinators)), choices.choice((*NODES, *GATEWAYS))
            state = world.coordinators[by].state
            if state is not None:
                world.note(f"{by} takes {name} for lost")
                world.tell(by, state.plan.epoch, protocol.MemberLost(name))
        case "abort":
            by = choices.randrange(len(world.coordinators))
            state = world.coordinators[by].state
            if state is not None and not state.ended:
                world.note(f"{by} is asked to give up {state.plan.epoch} while {state.phase}")
                refusal = protocol.why_not_aborted(state)
                world.tell(by, state.plan.epoch, protocol.AbortRequested("asked for"))
                assert (world.coordinators[by].state == state) == (refusal is not None), refusal
        case "lead":
            if len(world.coordinators) < 4:
                world.note("another platform leads")
                world.crash_coordinator()


def deliver(world: World, index: int, fate: float) -> None:
    call = world.calls[index]
    if fate < 0.1:
        world.note(f"{call.instruction} of {call.plan.epoch} is done and not forgotten")
        world.execute(call)  # a repetition: the same call is still under way
        return
    world.calls.pop(index)
    if fate < 0.2:
        world.note(f"{call.instruction} of {call.plan.epoch} is lost")
        world.answers.append((call.by, call.plan.epoch, failure(call)))
    elif fate < 0.3:
        world.note(f"{call.instruction} of {call.plan.epoch} is done, its answer is lost")
        world.execute(call)
        world.answers.append((call.by, call.plan.epoch, failure(call)))
    else:
        outcome = world.execute(call)
        world.note(f"{call.instruction} of {call.plan.epoch}: {outcome}")
        world.answers.append((call.by, call.plan.epoch, outcome))


def pass_deadline(world: World, by: int) -> None:
    state = world.coordinators[by].state
    if state is not None and not state.ended:
        world.note(f"a deadline of {by} passes while {state.phase}")
        world.tell(by, state.plan.epoch, protocol.DeadlinePassed(state.deadline_s))


def report(world: World, name: str) -> None:
    world.note(f"{name} reports")
    if name in NODES:
        world.report_node(name)
    else:
        world.report_gateway(name)


def broken(world: World) -> Iterator[str]:
    """What must hold after every step."""
    epochs = [plan.epoch for plan in world.log]
    if epochs != sorted(set(epochs)):
        yield f"epochs of committed plans do not grow: {epochs}"
    for name, node in world.nodes.items():
        if node.alive and node.table.committed_epoch not in (0, *epochs):
            yield f"{name} has committed epoch {node.table.committed_epoch}, which is not in the log"
    committed = world.committed
    if committed is not None:
        for index, name in enumerate(committed.nodes):
            node = world.nodes[name]
            if node.alive and node.since < committed.epoch and node.table.get(committed.epoch) is None:
                yield f"{name} does not hold stage {index} of the committed epoch {committed.epoch}"
        for standby in committed.standbys:
            node = world.nodes[standby.node]
            if node.alive and node.since < committed.epoch and not node.table.holds(standby.layers):
                yield f"{standby.node} does not stand by for {standby.layers} in the committed epoch {committed.epoch}"


def settle(world: World) -> None:
    """No more faults: zombies end, calls and answers come through, deadlines pass, everybody reports."""
    for coordinator in world.coordinators[:-1]:
        coordinator.state = None
    for _ in range(400):
        if world.calls:
            deliver(world, 0, 1.0)
        elif world.answers:
            by, epoch, event = world.answers.pop(0)
            world.note(f"{by} hears {event}")
            world.tell(by, epoch, event)
        elif world.leader.running:
            pass_deadline(world, len(world.coordinators) - 1)
        else:
            break
        problem = next(broken(world), None)
        assert problem is None, problem
    assert not world.leader.running, "the reconfiguration does not end"
    for name in (*NODES, *GATEWAYS):
        report(world, name)


def unsettled(world: World) -> Iterator[str]:
    """What must hold at rest."""
    committed = world.committed
    for name, plan in world.gateways.items():
        if committed is not None and plan != committed:
            yield f"{name} uses {plan and plan.epoch}, committed is {committed.epoch}"
    for name, node in world.nodes.items():
        held = [each.epoch for each in node.table.held]
        if node.alive and any(committed is None or epoch != committed.epoch for epoch in held):
            yield f"{name} still holds stages of epochs {held}, committed is {committed and committed.epoch}"


def walk(seed: int, steps: int) -> World:
    world = World(random.Random(seed))
    try:
        for _ in range(steps):
            random_step(world)
            problem = next(broken(world), None)
            assert problem is None, problem
        settle(world)
        problem = next(unsettled(world), None)
        assert problem is None, problem
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}; after:\n" + "\n".join(world.steps[-60:]))
    return world


def test_any_order_loss_repetition_and_crash_leaves_one_plan() -> None:
    committed = 0
    for seed in range(3_000):
        committed += len(walk(seed, steps=70).log)
    assert committed > 1_500  # the walks do get somewhere


@pytest.mark.thorough
def test_many_more_walks() -> None:
    for seed in range(3_000, 100_000):
        walk(seed, steps=120)


def test_the_explorer_finds_a_commit_before_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The explorer would notice: a protocol that tells nodes to commit while its record may still be refused."""
    honest = protocol.advance

    def hasty(state: protocol.ReconfigurationState, event: protocol.Event) -> protocol.Step:
        after, instructions = honest(state, event)
        if any(isinstance(each, protocol.RecordPlan) for each in instructions):
            instructions += tuple(protocol.CommitEpoch(node) for node in after.plan.nodes)
        return after, instructions

    monkeypatch.setattr(protocol, "advance", hasty)
    with pytest.raises(pytest.fail.Exception, match="which is not in the log"):
        any(walk(seed, steps=70) is None for seed in range(300))
