"""Deployments on the same nodes: what one takes the others see, and lower ones give way where not all fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane import options, sharing
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import Decision, DropChain, Keep, Reconfigure, Trigger, Wait
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.control_plane.sharing import tick_all, tick_shared, view_for
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot

World = SimpleNamespace
PLANNING = PlanSettings(beta=0.0, kv_tokens_reserved=0, kv_growth_tokens=0, trusted_first_blocks=1)
MODEL_BYTES = 13_000_000
"""What a model of `world.model` needs without KV; sessions of `world.gateway` add 200 positions of 100 bytes to each block."""
ROOM = MODEL_BYTES + 12 * 200 * 100


def control(priority: int = 0) -> ControlSettings:
    return ControlSettings(PLANNING, priority=priority)


@pytest.fixture(scope="session")
def site(world: World) -> Callable[..., dict[str, Snapshot]]:
    """What deployments of these names see: the same nodes, offering so many models' memory each."""

    def build(names: str, room: dict[str, float], machines: dict[str, str] | None = None) -> dict[str, Snapshot]:
        nodes = [
            world.node(name, memory_bytes=int(models * ROOM), machine=(machines or {}).get(name, ""))
            for name, models in room.items()
        ]
        return {name: world.snapshot(nodes, model=world.model(name=name)) for name in names}

    return build


def carry_out(snapshots: dict[str, Snapshot], decisions: dict[str, Decision]) -> dict[str, Snapshot]:
    """The world a second later, all decisions carried out."""
    after = {}
    for name, seen in snapshots.items():
        decision, plan = decisions[name], seen.plan
        if isinstance(decision, Reconfigure):
            plan = decision.plan
        elif isinstance(decision, DropChain):
            plan = None
        after[name] = replace(seen, plan=plan, now_s=seen.now_s + 1)
    return after


def settle(
    snapshots: dict[str, Snapshot], controls: dict[str, ControlSettings], rounds: int = 4
) -> tuple[dict[str, Snapshot], dict[str, PolicyState], list[dict[str, Decision]]]:
    states: dict[str, PolicyState] = {}
    history = []
    for _ in range(rounds):
        made = tick_all(snapshots, states, controls)
        decisions = {name: decision for name, (decision, _) in made.items()}
        states = {name: state for name, (_, state) in made.items()}
        snapshots = carry_out(snapshots, decisions)
        history.append(decisions)
    return snapshots, states, history


def used_bytes(snapshots: dict[str, Snapshot], node: str) -> int:
    return sum(
        len(stage.layers) * 1_020_000 + 500_000 * (stage.layers.start == 0) + 500_000 * (stage.layers.stop == 12)
        for seen in snapshots.values()
        if seen.plan is not None
        for stage in seen.plan.stages
        if stage.node == node
    )


def test_what_one_takes_of_a_node_the_other_does_not_see(site: Any, world: World) -> None:
    snapshots = site("xy", {"a": 2, "b": 2})
    snapshots["x"] = replace(snapshots["x"], plan=world.plan(1, ("a", 0, 12), model="x"))
    view = view_for("y", snapshots, {"x": control(), "y": control()})
    a, b = view.nodes
    assert a.memory_bytes == 2 * ROOM - ROOM
    assert a.block_time_s > 0.001  # 30 tokens a second through 13 ms: 39 % of its time is taken
    assert a.busy_share == pytest.approx(0.39)
    assert (b.memory_bytes, b.block_time_s) == (2 * ROOM, 0.001)
    assert view_for("x", snapshots, {"x": control(), "y": control()}) == snapshots["x"]


def test_nodes_on_one_machine_share_what_it_has(site: Any, world: World) -> None:
    snapshots = site("xy", {"a": 2, "b": 2, "c": 2}, machines={"a": "rack-1", "b": "rack-1"})
    snapshots["x"] = replace(snapshots["x"], plan=world.plan(1, ("a", 0, 12), model="x"))
    view = view_for("y", snapshots, {"x": control(), "y": control()})
    assert [node.memory_bytes for node in view.nodes] == [ROOM, ROOM, 2 * ROOM]


def test_in_one_round_the_later_sees_the_plan_of_the_earlier(site: Any) -> None:
    snapshots, _, _ = settle(site("xy", {"a": 1, "b": 1}), {"x": control(), "y": control()}, rounds=1)
    assert {snapshots["x"].plan.nodes, snapshots["y"].plan.nodes} == {("a",), ("b",)}


def test_where_nothing_fits_the_lower_one_waits_with_a_reason(site: Any) -> None:
    snapshots, _, history = settle(site("xy", {"a": 1.5}), {"x": control(), "y": control(5)})
    assert snapshots["y"].plan is not None
    assert snapshots["x"].plan is None
    assert isinstance(history[-1]["x"], Wait)
    assert history[-1]["x"].reason.startswith("no plan: ")


def test_a_lower_one_gives_way_and_says_for_whom(site: Any) -> None:
    both = site("xy", {"a": 1.5})
    first, _, _ = settle({"x": both["x"]}, {"x": control()}, rounds=2)
    snapshots, _, history = settle({**both, **first}, {"x": control(), "y": control(5)})
    dropped, waiting = history[0]["x"], history[0]["y"]
    assert isinstance(dropped, DropChain)
    assert dropped.trigger is Trigger.GIVES_WAY
    assert dropped.reason.startswith("gives way to y (priority 5); no plan: ")
    assert waiting.reason.endswith("; x gives way")
    assert isinstance(history[1]["y"], Reconfigure)
    assert snapshots["x"].plan is None
    assert snapshots["y"].plan is not None


def test_a_lower_one_that_fits_elsewhere_moves_there(site: Any, world: World) -> None:
    both = site("xy", {"a": 1.2, "b": 0.7, "c": 0.7})
    both["y"] = replace(both["y"], nodes=both["y"].nodes[:1])  # only a has an artefact of its model
    both["x"] = replace(both["x"], plan=world.plan(1, ("a", 0, 12), model="x"))
    snapshots, _, history = settle(both, {"x": control(), "y": control(5)})
    moved = history[0]["x"]
    assert isinstance(moved, Reconfigure)
    assert moved.trigger is Trigger.GIVES_WAY
    assert moved.reason.startswith("gives way to y (priority 5); elsewhere it takes ")
    assert snapshots["y"].plan.nodes == ("a",)
    assert set(snapshots["x"].plan.nodes) == {"b", "c"}


def test_only_as_many_give_way_as_must(site: Any, world: World) -> None:
    snapshots = site("wxyz", {"a": 1, "b": 1, "c": 0.3})
    for name, node in (("w", "a"), ("x", "b")):
        snapshots[name] = replace(snapshots[name], plan=world.plan(1, (node, 0, 12), model=name))
    del snapshots["y"]
    made = tick_all(snapshots, {}, {"w": control(2), "x": control(1), "z": control(9)})
    assert isinstance(made["w"][0], Keep)
    assert isinstance(made["x"][0], DropChain)


def test_room_that_a_higher_one_is_about_to_take_is_left_to_it_also_one_by_one(site: Any) -> None:
    snapshots, controls = site("xy", {"a": 1.5}), {"x": control(), "y": control(5)}
    decision, _, _ = tick_shared("x", snapshots["x"], snapshots, PolicyState(), controls)
    assert isinstance(decision, Wait)
    decision, _, view = tick_shared("y", snapshots["y"], snapshots, PolicyState(), controls)
    assert isinstance(decision, Reconfigure)
    assert view == snapshots["y"]


def test_a_round_in_which_nothing_changed_searches_for_nothing(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    controls = {name: control() for name in "vwxyz"}
    snapshots, states, _ = settle(site("vwxyz", {"a": 3, "b": 3}), controls, rounds=6)
    searched: list[str] = []
    monkeypatch.setattr(options, "best_plan", lambda *_: searched.append("tick"))
    monkeypatch.setattr(sharing, "best_plan", lambda *_: searched.append("round"))
    made = tick_all({name: replace(seen, now_s=200.0) for name, seen in snapshots.items()}, states, controls)
    assert [type(decision) for decision, _ in made.values()] == [Keep] * 5
    assert searched == []


@given(
    priorities=st.tuples(*[st.integers(0, 3)] * 3),
    room=st.tuples(*[st.sampled_from([0.4, 0.8, 1.2, 2.1])] * 3),
    order=st.permutations("xyz"),
)
@settings(derandomize=True, max_examples=15)
def test_memory_is_promised_once_and_higher_ones_never_give_way_to_lower(
    site: Any, priorities: tuple[int, ...], room: tuple[float, ...], order: list[str]
) -> None:
    controls = {name: control(priority) for name, priority in zip("xyz", priorities, strict=True)}
    world = site("xyz", dict(zip("abc", room, strict=True)))
    snapshots: dict[str, Snapshot] = {}
    states: dict[str, PolicyState] = {}
    for second in range(12):
        if second % 3 == 0 and second < 9:
            snapshots[order[second // 3]] = world[order[second // 3]]
        snapshots = {name: replace(seen, now_s=100.0 + second) for name, seen in snapshots.items()}
        made = tick_all(snapshots, states, controls)
        assert made == tick_all(snapshots, states, controls)
        states = {name: state for name, (_, state) in made.items()}
        for name, (decision, _) in made.items():
            if isinstance(decision, DropChain | Reconfigure) and decision.trigger is Trigger.GIVES_WAY:
                claimants = [other for other in snapshots if f"gives way to {other} " in decision.reason]
                assert [controls[other].priority > controls[name].priority for other in claimants] == [True]
        snapshots = carry_out(snapshots, {name: decision for name, (decision, _) in made.items()})
        for node, models in zip("abc", room, strict=True):
            assert used_bytes(snapshots, node) <= int(models * ROOM)
