"""Trust at every instant: whom a plan exposes, where KV goes when plans change, and changes that are overtaken by distrust."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import assume, given
from hypothesis import strategies as st

from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.trust import exposed_nodes
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import kv_moves

BLOCKS = 12
NODES = ("a", "b", "c", "d")


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    nodes = draw(st.permutations(NODES))[: draw(st.integers(1, len(NODES)))]
    cuts = sorted(draw(st.sets(st.integers(1, BLOCKS - 1), min_size=len(nodes) - 1, max_size=len(nodes) - 1)))
    return list(zip(nodes, [0, *cuts], [*cuts, BLOCKS], strict=True))


SETTINGS = st.builds(PlanSettings, trusted_first_blocks=st.integers(0, 4), trusted_last_blocks=st.integers(1, 4))
TRUST = st.sets(st.sampled_from(NODES))


@given(stages=chains(), trusted=TRUST, settings=SETTINGS)
def test_the_guard_and_the_checker_agree_on_whom_a_plan_exposes(
    world: SimpleNamespace, stages: list[tuple[str, int, int]], trusted: set[str], settings: PlanSettings
) -> None:
    seen = world.snapshot([world.node(name, trusted=name in trusted) for name in NODES])
    plan = world.plan(1, *stages)
    accused = {error.split()[1] for error in check_stages(plan, seen, settings) if "is not trusted" in error}
    assert exposed_nodes(plan, seen, settings) == accused


@given(before=chains(), after=chains(), trusted=TRUST, settings=SETTINGS)
def test_kv_of_blocks_that_need_trust_moves_to_trusted_nodes_only(
    world: SimpleNamespace,
    before: list[tuple[str, int, int]],
    after: list[tuple[str, int, int]],
    trusted: set[str],
    settings: PlanSettings,
) -> None:
    """Whatever the old plan was, also one that is left because a node of it is not trusted any more."""
    seen = world.snapshot([world.node(name, trusted=name in trusted) for name in NODES])
    old, new = world.plan(1, *before), world.plan(2, *after)
    assume(not check_stages(new, seen, settings))
    first = LayerRange(0, max(1, settings.trusted_first_blocks))
    last = LayerRange(BLOCKS - settings.trusted_last_blocks, BLOCKS)
    for move in kv_moves(old, new):
        if move.target not in trusted:
            assert move.layers.intersection(first) is None
            assert move.layers.intersection(last) is None
        assert move.source in old.nodes  # straight from one to the other: KV passes through nobody else
        assert move.target in new.nodes
