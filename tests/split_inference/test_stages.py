"""Stages by epoch: fencing, and which layers a node no longer needs."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_apps.split_inference.node.stages import LoadedStage, StageError, StageTable, StaleEpoch, stage_of
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage

BLOCKS = 12


def loaded(epoch: int, start: int = 0, stop: int = BLOCKS) -> LoadedStage:
    return LoadedStage(epoch, LayerRange(start, stop), start == 0, None if stop == BLOCKS else "next")


def plan(*stages: tuple[str, int, int], epoch: int = 1, model: str = "model") -> SplitPlan:
    placed = tuple(Stage(node, LayerRange(start, stop)) for node, start, stop in stages)
    return SplitPlan(epoch, epoch - 1, model, placed)


steps = st.lists(st.tuples(st.sampled_from(["prepare", "abort", "commit"]), st.integers(0, 9)), max_size=40)


@given(steps)
def test_whatever_is_asked_epochs_never_go_backwards(asked: list[tuple[str, int]]) -> None:
    table = StageTable()
    aborted: set[int] = set()
    for step, epoch in asked:
        before, held = table.committed_epoch, table.stages
        try:
            match step:
                case "prepare":
                    table.prepare(loaded(epoch))
                case "abort":
                    table.abort(epoch)
                case "commit":
                    table.commit(epoch)
        except StaleEpoch:
            assert epoch <= before or (step == "prepare" and epoch in aborted)
            assert table.stages == held  # a refusal changes nothing
        aborted |= {epoch} if step == "abort" and epoch > before else set()
        assert table.committed_epoch >= before
        assert all(stage.epoch >= table.committed_epoch for stage in table.stages)
        assert [stage.epoch for stage in table.stages] == sorted({stage.epoch for stage in table.stages})


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_epoch_that_is_not_newer_than_the_committed_one_is_not_prepared(epoch: int) -> None:
    table = StageTable()
    table.commit(3)
    with pytest.raises(StaleEpoch, match="not newer than the committed epoch 3"):
        table.prepare(loaded(epoch))
    assert table.stages == ()


def test_a_prepared_stage_serves_beside_the_committed_one_until_commit() -> None:
    table = StageTable()
    table.prepare(loaded(1))
    table.commit(1)
    table.prepare(loaded(2, 0, 6))
    assert table.get(1) == loaded(1)
    assert table.get(2) == loaded(2, 0, 6)
    table.commit(2)
    assert table.get(1) is None
    assert table.stages == (loaded(2, 0, 6),)


def test_an_abort_forgets_the_prepared_stage_and_nothing_else() -> None:
    table = StageTable()
    table.prepare(loaded(1))
    table.commit(1)
    table.prepare(loaded(2, 0, 6))
    table.abort(2)
    table.abort(2)  # repeating it is harmless
    assert table.stages == (loaded(1),)
    assert table.committed_epoch == 1


def test_a_load_that_its_abort_overtook_is_refused() -> None:
    table = StageTable()
    table.abort(1)
    with pytest.raises(StaleEpoch, match="aborted"):
        table.prepare(loaded(1))
    table.prepare(loaded(2))
    assert table.stages == (loaded(2),)


def test_a_committed_epoch_cannot_be_aborted() -> None:
    table = StageTable()
    table.prepare(loaded(1))
    table.commit(1)
    with pytest.raises(StaleEpoch, match="has been committed"):
        table.abort(1)
    assert table.stages == (loaded(1),)


def test_committing_again_changes_nothing_and_an_older_epoch_is_refused() -> None:
    table = StageTable()
    table.prepare(loaded(2))
    table.commit(2)
    table.commit(2)
    assert table.stages == (loaded(2),)
    with pytest.raises(StaleEpoch, match="older than the committed epoch 2"):
        table.commit(1)
    assert table.committed_epoch == 2


def test_a_node_without_a_stage_learns_by_a_commit_that_it_is_out() -> None:
    table = StageTable()
    table.prepare(loaded(1))
    table.commit(1)
    table.commit(2)
    assert table.stages == ()
    assert table.unused_layers(BLOCKS) == (LayerRange(0, BLOCKS),)


@given(
    st.lists(st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS)).filter(lambda r: r[0] < r[1]), max_size=4)
)
def test_unused_layers_and_used_layers_are_the_whole_model(ranges: list[tuple[int, int]]) -> None:
    table = StageTable()
    for epoch, (start, stop) in enumerate(ranges, 1):
        table.prepare(loaded(epoch, start, stop))
    used = {layer for start, stop in ranges for layer in range(start, stop)}
    unused = table.unused_layers(BLOCKS)
    assert sorted(used | {layer for run in unused for layer in run}) == list(range(BLOCKS))
    assert not used & {layer for run in unused for layer in run}
    assert all(left.stop < right.start for left, right in itertools.pairwise(unused))  # runs are whole


def test_the_first_stage_takes_tokens_and_the_last_one_samples() -> None:
    chain = plan(("a", 0, 4), ("b", 4, 8), ("c", 8, 12), epoch=7)
    first, middle, last = (stage_of(chain, i, node, "model", BLOCKS) for i, node in enumerate("abc"))
    assert first == LoadedStage(7, LayerRange(0, 4), True, "b")
    assert middle == LoadedStage(7, LayerRange(4, 8), False, "c")
    assert last == LoadedStage(7, LayerRange(8, 12), False, None)
    assert [stage.is_last for stage in (first, middle, last)] == [False, False, True]


@pytest.mark.parametrize(
    ("index", "node", "model", "blocks", "reason"),
    [
        (0, "a", "other", BLOCKS, "this node has other"),
        (2, "a", "model", BLOCKS, "a plan with 2 stages"),
        (-1, "b", "model", BLOCKS, "a plan with 2 stages"),
        (0, "b", "model", BLOCKS, "belongs to a"),
        (1, "b", "model", 8, "the model has 8 blocks"),
    ],
)
def test_a_stage_that_does_not_fit_node_or_model_is_refused(
    index: int, node: str, model: str, blocks: int, reason: str
) -> None:
    with pytest.raises(StageError, match=reason):
        stage_of(plan(("a", 0, 6), ("b", 6, 12)), index, node, model, blocks)


def test_a_refused_stage_leaves_the_table_usable() -> None:
    table = StageTable()
    table.commit(5)
    with contextlib.suppress(StaleEpoch):
        table.prepare(loaded(5))
    table.prepare(loaded(6))
    assert table.stages == (loaded(6),)
