"""The composition: a scripted world, one decision a second, every decision carried out. Reads like a journal."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.orchestrator.decisions import Keep, Reconfigure, Wait
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import ControlSettings, tick
from mec_platform.domain.capacity import Snapshot

SETTINGS = ControlSettings(
    planning=PlanSettings(kv_tokens_reserved=0, trusted_first_blocks=1), policy=PolicySettings(expected_nodes=3)
)


def run(script: list[Snapshot]) -> list[str]:
    """Journal lines: time, decision, plan; decisions that repeat the one before are left out."""
    state, plan, journal = PolicyState(), None, []
    for snapshot in script:
        seen = replace(snapshot, plan=plan)
        decision, state = tick(seen, state, SETTINGS)
        if isinstance(decision, Reconfigure):
            assert check_plan(decision.plan, seen, SETTINGS.planning) == []
            plan = decision.plan
            journal.append(f"{snapshot.now_s:g} {decision.kind} {plan.describe()}: {decision.reason}")
        elif isinstance(decision, Wait):
            journal.append(f"{snapshot.now_s:g} wait: {decision.reason}")
    return journal


def test_a_day_in_short(world: SimpleNamespace) -> None:
    names = ("edge-1", "edge-2", "edge-3")
    nodes = [world.node(name, memory_bytes=7_000_000, block_time_s=0.0005) for name in names]
    everyone = [*names, "gateway"]
    slow = world.links(everyone, edge_1__edge_2=50_000.0)
    script = [world.snapshot(nodes[:2], now_s=0.0, links=world.links(everyone))]
    script += [world.snapshot(nodes, now_s=t, links=world.links(everyone)) for t in (1.0, 2.0, 3.0)]
    script += [world.snapshot(nodes, now_s=t, links=slow) for t in (4.0, 5.0)]
    script += [
        world.snapshot(nodes[:1] + nodes[2:], now_s=t, links=slow, lost_nodes=frozenset({"edge-2"})) for t in (6.0, 7.0)
    ]
    assert run(script) == [
        "0 wait: 2 of 3 expected edge nodes are here (edge-1, edge-2)",
        "1 initial edge-1 [0, 4) -> edge-2 [4, 9) -> edge-3 [9, 12): first plan, on 3 nodes: 8.2 ms per token",
        "4 re_split edge-1 [0, 5) -> edge-3 [5, 10) -> edge-2 [10, 12): link edge-1 -> edge-2 fell from 12.5 MB/s to "
        "0.05 MB/s; re-split saves 45.9 ms per token (54.1 -> 8.2 ms; cost 75.9 -> 8.3 ms)",
        "6 re_split edge-1 [0, 6) -> edge-3 [6, 12): node edge-2 is lost (plan 2: edge-1 [0, 5) -> edge-3 [5, 10) -> "
        "edge-2 [10, 12)); re-split gives 7.8 ms per token",
    ]


def test_a_lost_node_is_replaced_with_the_next_tick(world: SimpleNamespace) -> None:
    nodes = [world.node(name, memory_bytes=7_000_000, block_time_s=0.0005) for name in ("a", "b", "c")]
    script = [
        world.snapshot(nodes, now_s=0.0),
        world.snapshot(nodes[:1] + nodes[2:], now_s=1.0, lost_nodes=frozenset({"b"})),
        world.snapshot(nodes[:1], now_s=2.0, lost_nodes=frozenset({"c"})),
    ]
    journal = run(script)
    assert journal[1].startswith("1 re_split a [0, 6) -> c [6, 12): node b is lost")
    assert journal[2].startswith("2 wait: node c is lost")
    assert "no plan: 1 node offers 7.0 MB, the model needs 13.5 MB" in journal[2]


@given(rates=st.lists(st.sampled_from([5e4, 12.5e6]), min_size=10, max_size=50))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_a_flapping_link_does_not_make_plans_oscillate(world: SimpleNamespace, rates: list[float]) -> None:
    nodes = [world.node(name, memory_bytes=7_000_000) for name in ("a", "b", "c")]
    links = [world.links(["a", "b", "c", "gateway"], a__b=rate) for rate in rates]
    changes = run([world.snapshot(nodes, now_s=float(t), links=link) for t, link in enumerate(links)])
    assert len(changes) <= 2  # the first plan, and once away from the link that flaps


def test_keep_carries_the_cost_of_the_plan(world: SimpleNamespace) -> None:
    snapshot = world.snapshot([world.node("a")], plan=world.plan(1, ("a", 0, 12)))
    decision, _ = tick(snapshot, PolicyState(), SETTINGS)
    assert isinstance(decision, Keep)
    assert decision.cost_ms > 12.0
