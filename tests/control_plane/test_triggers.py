"""What makes a change worth considering, and what holds it back although it would be better: decided over real plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import Decision, Keep, Reconfigure, Trigger, Wait
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.state import PolicyState, Spent
from mec_platform.control_plane.policy_table import read_policy
from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import tick
from mec_platform.domain.capacity import LinkForecast, Snapshot

SETTINGS = ControlSettings(PlanSettings(kv_tokens_reserved=0, kv_growth_tokens=0, trusted_first_blocks=1))
World = SimpleNamespace


@pytest.fixture(scope="session")
def edge(world: World) -> Callable[..., Snapshot]:
    """Three nodes of which the model needs two; a -> b is in use. `link` changes that link, other keywords the snapshot."""

    def build(now_s: float = 100.0, link: dict[str, Any] | None = None, **changes: Any) -> Snapshot:
        node = changes.pop("node", {})
        nodes = [world.node(name, memory_bytes=7_000_000, **node.get(name, {})) for name in ("a", "b", "c")]
        links = world.links(["a", "b", "c", "gateway"])
        hurt = tuple(
            replace(each, **(link or {})) if (each.source, each.target) == ("a", "b") else each for each in links
        )
        given: dict[str, Any] = {"links": hurt, "plan": world.plan(1, ("a", 0, 6), ("b", 6, 12))} | changes
        found: Snapshot = world.snapshot(nodes, now_s=now_s, **given)
        return found

    return build


def settled(edge: Callable[..., Snapshot], control: ControlSettings = SETTINGS, **changes: Any) -> PolicyState:
    decision, state = tick(edge(0.0, **changes), PolicyState(), control)
    assert isinstance(decision, Keep), decision
    return state


def breaking(in_s: float, confidence: float) -> LinkForecast:
    return LinkForecast(in_s, 10_000.0, 0.2, confidence, "handover to cell 7", breaks_in_s=in_s)


def test_a_link_that_is_about_to_break_is_left_before_it_does(edge: Any) -> None:
    state = settled(edge)
    decision, _ = tick(edge(link={"forecast": breaking(2.0, 0.9)}), state, SETTINGS)
    assert isinstance(decision, Reconfigure)
    assert decision.trigger is Trigger.LINK_FORECAST
    assert decision.reason.startswith("link a -> b is expected to break in 2.0 s (90% sure: handover to cell 7); ")
    assert ("a", "b") not in pairwise(decision.plan.nodes)


def test_a_break_that_a_switch_need_not_hurry_for_is_no_trigger(edge: Any) -> None:
    decision, _ = tick(edge(link={"forecast": breaking(20.0, 0.9)}), settled(edge), SETTINGS)
    assert isinstance(decision, Keep)
    assert "expected to break" not in decision.reason


def test_a_forecast_that_is_seldom_right_is_no_trigger(edge: Any) -> None:
    decision, _ = tick(edge(link={"forecast": breaking(2.0, 0.3)}), settled(edge), SETTINGS)
    assert isinstance(decision, Keep)
    assert "expected to break" not in decision.reason


def test_a_link_that_is_expected_to_fall_is_named_with_both_rates(edge: Any) -> None:
    falling = LinkForecast(1.5, 60_000.0, 0.0004, 0.8, "signal falls by 2 dB/s")
    decision, _ = tick(edge(link={"forecast": falling}), settled(edge), SETTINGS)
    assert isinstance(decision, Reconfigure)
    assert decision.reason.startswith(
        "link a -> b is expected to fall from 12.5 MB/s to 0.06 MB/s in 1.5 s (80% sure: signal falls by 2 dB/s); "
    )


def links_of_b(world: World, **changes: Any) -> Any:
    """All links, those of b changed."""
    links = world.links(["a", "b", "c", "gateway"])
    return tuple(replace(link, **changes) if "b" in (link.source, link.target) else link for link in links)


def test_links_that_recover_are_not_taken_by_their_first_good_sample(edge: Any, world: World) -> None:
    here = {"plan": world.plan(1, ("a", 0, 6), ("c", 6, 12)), "node": {"c": {"block_time_s": 0.003}}}
    state = settled(edge, links=links_of_b(world, bytes_per_s=20_000.0), **here)
    decisions: list[Decision] = []
    while not decisions or isinstance(decisions[-1], Keep):
        decision, state = tick(edge(float(len(decisions) + 1), **here), state, SETTINGS)
        decisions.append(decision)
    first, last = decisions[0], decisions[-1]
    assert first.reason.endswith("but only since 0.0 s; 3.0 s more will show whether that lasts")
    assert isinstance(last, Reconfigure)
    assert (len(decisions), last.trigger) == (4, Trigger.BETTER_PLAN)


def test_links_that_are_hardly_known_are_not_gone_to(edge: Any, world: World) -> None:
    here = {"plan": world.plan(1, ("a", 0, 6), ("c", 6, 12)), "node": {"c": {"block_time_s": 0.003}}}
    state = replace(settled(edge, links=links_of_b(world, bytes_per_s=20_000.0), **here), better_since_s=0.0)
    decision, _ = tick(edge(links=links_of_b(world, confidence=0.2), **here), state, SETTINGS)
    assert isinstance(decision, Keep)
    assert decision.reason.endswith("is known with 20% confidence only, 30% are needed")


@pytest.mark.parametrize(
    ("policy", "gateway", "text"),
    [
        ({"tpot_ms": 50}, {"token_s": 0.08}, "tokens at gateway take 80 ms, 50 ms are the target"),
        ({"tpot_ms": 8}, {}, "the plan is expected to take 13.8 ms per token, 8 ms are the target"),
        ({"ttft_ms": 500}, {"first_token_s": 1.2}, "first tokens at gateway take 1200 ms, 500 ms are the target"),
        ({"tokens_per_s": 1000}, {}, "the plan is expected to carry 143 tokens/s, 1000 are the target"),
        ({"ttft_ms": 500}, {"queued": 2}, "2 requests wait, 0 may"),
    ],
)
def test_a_target_at_risk_is_named(
    edge: Any, world: World, policy: dict[str, float], gateway: dict[str, Any], text: str
) -> None:
    control = read_policy({"qos": policy}, SETTINGS)
    decision, _ = tick(edge(gateways=(world.gateway(**gateway),)), settled(edge, control), control)
    assert decision.reason.startswith(text)


def test_a_node_without_time_left_is_named(edge: Any) -> None:
    decision, _ = tick(edge(node={"b": {"busy_share": 0.97}}), settled(edge), SETTINGS)
    assert decision.reason.startswith("node b is 97% busy; ")


def test_a_node_that_the_policy_does_not_trust_any_more_is_left_at_once(edge: Any) -> None:
    state = replace(settled(edge), changes_s=(99.5,))
    stricter = read_policy({"trust": {"untrusted_nodes": ["b"]}}, SETTINGS)
    decision, _ = tick(edge(), state, stricter)
    assert isinstance(decision, Reconfigure)
    assert decision.trigger is Trigger.TRUST_CHANGED
    assert "plan 1 breaks a limit: node b is not trusted and would hold the head" in decision.reason
    assert decision.plan.nodes[-1] != "b"


def test_sites_can_be_distrusted_too(edge: Any) -> None:
    stricter = read_policy({"trust": {"untrusted_sites": ["roadside"]}}, SETTINGS)
    decision, _ = tick(edge(node={"b": {"site": "roadside"}}), PolicyState(), stricter)
    assert isinstance(decision, Reconfigure)
    assert decision.trigger is Trigger.TRUST_CHANGED


def test_a_policy_that_changed_is_named_until_it_was_weighed(edge: Any) -> None:
    changed = read_policy({"qos": {"tpot_ms": 90}}, SETTINGS)
    cooling = replace(settled(edge), changes_s=(99.0,))
    decision, state = tick(edge(100.0), cooling, changed)
    assert decision.reason.startswith("the policy changed (qos.tpot_ms 0 -> 90); ")
    decision, state = tick(edge(110.0), state, changed)
    assert "the policy changed" in decision.reason
    decision, state = tick(edge(111.0), state, changed)
    assert "the policy changed" not in decision.reason


def test_where_silence_is_doubtful_nothing_rash_is_done(edge: Any) -> None:
    doubt = "5 of 6 members fell silent within 2 s"
    slow = edge(link={"bytes_per_s": 20_000.0}, suspicion=doubt)
    decision, state = tick(slow, settled(edge), SETTINGS)
    assert isinstance(decision, Keep)
    assert decision.reason == f"{doubt}; only failures that are reported count for now"
    reported = replace(slow, nodes=slow.nodes[:1] + slow.nodes[2:], lost_nodes=frozenset({"b"}))
    decision, _ = tick(reported, state, SETTINGS)
    assert isinstance(decision, Reconfigure)
    assert decision.trigger is Trigger.NODE_LOST
    assert isinstance(tick(replace(slow, plan=None), PolicyState(), SETTINGS)[0], Wait)


@pytest.mark.parametrize(
    ("change", "spent", "reason"),
    [
        ({"budget_changes": 2}, Spent(90.0, 0.0, 0.0), "but 2 of 2 changes in 600 s are used, the next is in 590 s"),
        ({"budget_pause_ms": 30}, Spent(90.0, 15.0, 0.0), "but sessions would pause 50 ms in 600 s, 30 ms are allowed"),
        ({"budget_bytes": 2e6}, Spent(90.0, 0.0, 1e6), "MB of KV would move in 600 s, 2.0 MB are allowed"),
    ],
)
def test_a_budget_that_is_spent_holds_changes_back_that_can_wait(
    edge: Any, change: dict[str, float], spent: Spent, reason: str
) -> None:
    control = read_policy({"change": change}, SETTINGS)
    state = replace(settled(edge, control), spent=(spent, spent))
    slow = edge(link={"bytes_per_s": 20_000.0})
    decision, _ = tick(slow, state, control)
    assert isinstance(decision, Keep)
    assert reason in decision.reason
    gone = replace(slow, nodes=slow.nodes[:1] + slow.nodes[2:], lost_nodes=frozenset({"b"}))
    assert isinstance(tick(gone, state, control)[0], Reconfigure)


def test_what_a_change_took_is_counted_once_it_is_committed(edge: Any) -> None:
    slow = edge(link={"bytes_per_s": 20_000.0})
    decision, state = tick(slow, settled(edge), SETTINGS)
    assert isinstance(decision, Reconfigure)
    _, state = tick(replace(slow, now_s=101.0, plan=decision.plan), state, SETTINGS)
    (spent,) = state.spent
    assert spent.pause_ms >= SETTINGS.policy.pause_ms_per_session


def run_square_wave(edge: Any, half_period_s: int, duty_s: int, seconds: int) -> list[tuple[float, Decision]]:
    """a -> b is bad for `duty_s` of every `half_period_s + duty_s` seconds; every decision is carried out at once."""
    state, plan, changes = PolicyState(), edge().plan, []
    for second in range(seconds):
        bad = second % (half_period_s + duty_s) >= half_period_s
        seen = edge(float(second), link={"bytes_per_s": 20_000.0} if bad else {}, plan=plan)
        decision, after = tick(seen, state, SETTINGS)
        if isinstance(decision, Reconfigure):
            assert tick(seen, replace(state, seen=None), SETTINGS)[0] == decision, (
                "the same, and without what saves work"
            )
        state = after
        if isinstance(decision, Reconfigure):
            assert check_plan(decision.plan, seen, SETTINGS.planning) == []
            plan = decision.plan
            changes.append((float(second), decision))
    return changes


@given(half_period_s=st.integers(1, 25), duty_s=st.integers(1, 25))
@settings(derandomize=True, max_examples=6)
def test_a_link_that_flaps_gives_one_change_per_cooldown_at_most(edge: Any, half_period_s: int, duty_s: int) -> None:
    changes = run_square_wave(edge, half_period_s, duty_s, seconds=60)
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(changes)]
    assert all(pause >= PolicySettings().cooldown_s for pause in pauses)
    assert len(changes) <= 4
