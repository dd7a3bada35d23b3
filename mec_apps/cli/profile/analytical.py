"""A cost profile for hardware that is not at hand: what a model has to do against what its target states. Pure.

A roofline whose two sides are added, not overlapped: a batch reads the weights once from memory, then multiplies its rows.
Hardware reaches a share of its stated peaks only; the shares below are assumptions, and every user of the result is told
that nothing of it was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.targets.row import CompileTarget, CpuTarget
from mec_apps.cli.profile.work import Work, block_work, head_work
from mec_apps.split_inference.model_package import ModelPackage
from mec_platform.domain.cost_profile import CostProfile, RowCost

MEMORY_SHARE = 0.6
"""Of the stated memory rate: what streaming kernels commonly reach, refresh and turnarounds of the bus taken off."""
COMPUTE_SHARE = 0.5
"""Of the stated operations: half of a tile's instructions load, widen and scale what the others multiply."""
ASSUMED_ERROR = 0.5


@dataclass(frozen=True, slots=True)
class AssumedLimits:
    """Of all threads together, with the shares above taken: bytes read, float32 and byte operations a second."""

    read_bytes_per_s: float
    float_ops_per_s: float
    byte_ops_per_s: float

    @classmethod
    def of(cls, row: CompileTarget, threads: int) -> AssumedLimits:
        """`threads` of a CPU compute, but a GPU computes with all it has."""
        stated, cores = row.limits, threads if row.kind == "cpu" else 1
        return cls(
            stated.memory_bytes_per_s * MEMORY_SHARE,
            stated.float32_ops_per_s * COMPUTE_SHARE * cores,
            stated.int8_ops_per_s * COMPUTE_SHARE * cores,
        )


def analytical_profile(package: ModelPackage, row: CompileTarget, threads: int) -> CostProfile:
    """The profile of a model on a target that nobody has measured."""
    limits = AssumedLimits.of(row, threads)
    tile_rows = row.tile_rows if isinstance(row, CpuTarget) else (1,)
    work = block_work(package, rows=1, context=0)
    position = work.pop("attention")
    query_rows = row.tile_queries * package.dims.kv_heads // package.dims.heads if isinstance(row, CpuTarget) else 1
    shared = Work(position.read_bytes / max(1, query_rows), position.float_ops)
    return CostProfile(
        source="analytical",
        tile_rows=tile_rows,
        block=_rows_cost(sum(work.values(), Work()), tile_rows, limits),
        own_position_s=position.least_seconds(limits)[0],
        shared_position_s=shared.least_seconds(limits)[0],
        head=_rows_cost(head_work(package, 1), tile_rows, limits),
        rms_error=ASSUMED_ERROR,
    )


def _rows_cost(work: Work, tile_rows: tuple[int, ...], limits: AssumedLimits) -> RowCost:
    """The weights once a call, the operations of every row."""
    row_s = Work(0.0, work.float_ops, work.byte_ops).least_seconds(limits)[0]
    return RowCost(Work(work.read_bytes).least_seconds(limits)[0], tuple(rows * row_s for rows in tile_rows))
