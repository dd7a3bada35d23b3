"""CPU schedules for the TIR that Relax lowers partitions to: TVM's own leave it as plain serial loops.

Three kinds of block are told apart: matrix products, whose tiles of accumulators stay in vector registers with whatever
follows element by element computed on the finished tile; other reductions, whose independent rows go to threads; and
everything else, which is run over in vectors. The order of every sum is fixed by the shape alone, so that neither the
number of threads nor the cut changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import tvm
from tvm import s_tir, tirx

# Operations below which waking other threads costs more than they save (a launch is about a microsecond).
_WORTH_A_LAUNCH = 1 << 14
_REDUCTION = 2  # tirx.IterVar.iter_type
_NAME = "main"

_Block: TypeAlias = s_tir.schedule.SBlockRV


@dataclass(frozen=True, slots=True)
class VectorUnit:
    """float32 `lanes` of a register, and how many `registers` hold accumulators, weights and inputs."""

    lanes: int
    registers: int

    @property
    def tile_rows(self) -> int:
        """Most rows of a tile that is two registers wide; two more hold weights, and two are left for inputs."""
        return (self.registers - 4) // 2


def schedule_module(module: tvm.IRModule, unit: VectorUnit) -> tvm.IRModule:
    """Every PrimFunc of `module` scheduled; Relax functions stay as they are."""
    functions = {
        variable: _schedule(function, unit) if isinstance(function, tirx.PrimFunc) else function
        for variable, function in module.functions_items()
    }
    return tvm.IRModule(functions, attrs=module.attrs)


def _schedule(function: tirx.PrimFunc, unit: VectorUnit) -> tirx.PrimFunc:
    schedule = s_tir.Schedule(tvm.IRModule({_NAME: function}))
    _inline(schedule)
    done: set[str] = set()
    while True:
        left = [name for name in map(_name_of(schedule), _blocks(schedule)) if name not in done]
        if not left:
            break
        block = schedule.get_sblock(left[0])
        if _is_product(schedule, block):
            done |= _tile_product(schedule, block, unit)
        elif _is_reduction(schedule, block):
            _spread(schedule, block)
        else:
            _run_in_vectors(schedule, block, unit)
        done.add(left[0])
    return schedule.mod[_NAME].with_attrs(function.attrs)


def _blocks(schedule: s_tir.Schedule) -> list[_Block]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _name_of(schedule: s_tir.Schedule) -> Callable[[_Block], str]:
    return lambda block: str(schedule.get(block).name_hint)


def _extents(schedule: s_tir.Schedule, block: _Block) -> list[int]:
    return [int(schedule.get(loop).extent) for loop in schedule.get_loops(block)]


def _is_reduction(schedule: s_tir.Schedule, block: _Block) -> bool:
    return any(int(each.iter_type) == _REDUCTION for each in schedule.get(block).iter_vars)


def _inline(schedule: s_tir.Schedule) -> None:
    """Element-wise steps go into the element-wise step that uses them, unless several would repeat costly work."""
    for block in _blocks(schedule):
        users = schedule.get_consumers(block)
        if _is_reduction(schedule, block) or not users or any(_is_reduction(schedule, user) for user in users):
            continue
        if len(users) > 1 and not _only_moves(schedule.get(block)):
            continue
        schedule.compute_inline(block)


def _only_moves(block: tirx.SBlock) -> bool:
    """Whether the block copies elements from one place to another."""
    return isinstance(block.body, tirx.BufferStore) and isinstance(block.body.value, tvm.ir.TensorLoad)


def _is_product(schedule: s_tir.Schedule, block: _Block) -> bool:
    """Whether the block is C[.., i, j] += A[.., i, k..] * B[.., k.., j], with j contiguous in B and C.

    A convolution over channels that lie together is one as well, with the window and the channels as k.
    """
    realised = schedule.get(block)
    spatial, reduced = _split_iters(realised)
    body = realised.body
    if len(spatial) < 2 or not reduced or not isinstance(body, tirx.BufferStore):
        return False
    if not isinstance(body.value, tirx.Add) or not isinstance(body.value.b, tirx.Mul):
        return False
    factors = (body.value.b.a, body.value.b.b)
    if not all(isinstance(factor, tvm.ir.TensorLoad) for factor in factors):
        return False
    row, column = (each.var for each in spatial[-2:])
    return (
        body.indices[-1].same_as(column)
        and factors[1].indices[-1].same_as(column)
        and not _uses(factors[0], column)
        and not _uses(factors[1], row)
    )


def _split_iters(block: tirx.SBlock) -> tuple[list[tirx.IterVar], list[tirx.IterVar]]:
    """The iterators of a block that come before its first reduction, and the reductions; none where they are mixed."""
    kinds = [int(each.iter_type) for each in block.iter_vars]
    first = kinds.index(_REDUCTION) if _REDUCTION in kinds else len(kinds)
    mixed = any(kind != _REDUCTION for kind in kinds[first:])
    return ([], []) if mixed else (list(block.iter_vars[:first]), list(block.iter_vars[first:]))


def _uses(load: tvm.ir.TensorLoad, variable: tirx.Var) -> bool:
    return any(used.same_as(variable) for index in load.indices for used in tirx.analysis.undefined_vars(index))


def _tile_product(schedule: s_tir.Schedule, block: _Block, unit: VectorUnit) -> set[str]:
    """Schedules a product and the element-wise block behind it; returns the names of the blocks that it took care of."""
    reductions = len(_split_iters(schedule.get(block))[1])
    *leading, rows, columns = _extents(schedule, block)[:-reductions]
    is_plain = reductions == 1 and _is_einsum(schedule.get(block))
    tile_rows = _tile_rows(rows, unit.tile_rows, may_pad=is_plain)
    tile_columns = 2 * unit.lanes if columns > unit.lanes else unit.lanes
    if not is_plain:
        tile_columns = math.gcd(columns, tile_columns)
    name = schedule.get(block).name_hint
    if rows % tile_rows or columns % tile_columns:
        schedule.pad_einsum(block, [*(1 for _ in leading), tile_rows, tile_columns, 1])
        (copied,) = schedule.get_consumers(block)
        if schedule.get_consumers(copied):
            schedule.compute_inline(copied)
    elif not schedule.get_consumers(block):
        schedule.cache_write(block, 0, "local")
    schedule.set_scope(block, 0, "local")
    (finish,) = schedule.get_consumers(block)
    loops = schedule.get_loops(block)
    *leading, row, column = loops[:-reductions]
    inner = loops[-reductions:]
    lanes = math.gcd(tile_columns, unit.lanes)
    row_tile, row = schedule.split(row, [None, tile_rows])
    column_tile, registers, lane = schedule.split(column, [None, tile_columns // lanes, lanes])
    schedule.reorder(*leading, column_tile, row_tile, *inner, row, registers, lane)
    tile = schedule.fuse(*leading, column_tile, row_tile)
    if math.prod(_extents(schedule, block)) >= _WORTH_A_LAUNCH:
        schedule.parallel(tile)
    schedule.reverse_compute_at(finish, tile)
    for each in (row, registers):
        schedule.unroll(each)
    schedule.vectorize(lane)
    *_, finish_row, finish_column = schedule.get_loops(finish)
    registers, lane = schedule.split(finish_column, [None, lanes])
    for each in (finish_row, registers):
        schedule.unroll(each)
    schedule.vectorize(lane)
    start = schedule.decompose_reduction(block, inner[0])
    return {str(schedule.get(each).name_hint) for each in (start, block, finish)} | {name}


def _tile_rows(rows: int, most: int, *, may_pad: bool) -> int:
    """Height of a tile: as few rows beyond the matrix as possible, and a tile's own cost counted as one row."""
    heights = [height for height in range(min(rows, most), 0, -1) if may_pad or rows % height == 0]
    return min(heights, key=lambda height: -(-rows // height) * (height + 1))


def _is_einsum(block: tirx.SBlock) -> bool:
    """Whether every factor is indexed by plain iterators, so that it can be padded."""
    loads = (block.body.value.b.a, block.body.value.b.b)
    return all(any(index.same_as(each.var) for each in block.iter_vars) for load in loads for index in load.indices)


def _spread(schedule: s_tir.Schedule, block: _Block) -> None:
    """Independent rows of a reduction go to threads; each is summed in order by one of them."""
    loops = schedule.get_loops(block)
    kinds = [int(each.iter_type) for each in schedule.get(block).iter_vars]
    outer = loops[: kinds.index(_REDUCTION)]
    if not outer:
        return
    work = math.prod(_extents(schedule, block))
    rows = schedule.fuse(*outer)
    if work >= _WORTH_A_LAUNCH:
        schedule.parallel(rows)


def _run_in_vectors(schedule: s_tir.Schedule, block: _Block, unit: VectorUnit) -> None:
    """Element by element: all loops as one, in chunks that fill a register."""
    loops = schedule.get_loops(block)
    if not loops:
        return
    outer = loops[:-1]
    work = math.prod(_extents(schedule, block))
    if outer and work >= _WORTH_A_LAUNCH:
        schedule.parallel(schedule.fuse(*outer))
    _vectorise_last(schedule, block, unit)


def _vectorise_last(schedule: s_tir.Schedule, block: _Block, unit: VectorUnit) -> None:
    last = schedule.get_loops(block)[-1]
    extent = int(schedule.get(last).extent)
    lanes = math.gcd(extent, unit.lanes)
    if lanes > 1:
        _, lane = schedule.split(last, [None, lanes])
        schedule.vectorize(lane)
