"""Times one model on this machine at many loads: what a cost profile is fitted to, and what it is judged by.

Every round visits all points once, in an order of its own, so that a slow minute of the machine falls on all of them. A
visit counts with its fastest call, a point with the median of its visits. A reference point opens each round and says how
steady the machine was.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.sampling import sample_token
from mec_platform.domain.cost_profile import Batch, prompt_batch
from mec_platform.domain.kernel_contract import PAGE_TOKENS

Progress = Callable[[int, int], None]

LONGEST_CONTEXT = 2048
"""Positions of a session at most: what a node offers unless told otherwise."""
BATCHES, HELD_OUT_BATCHES = (1, 2, 4, 5, 7, 8, 16), (3, 6, 12)
"""5 and 7 rows are cut into several tiles by most targets: without them the fit would not see what a tile costs."""
CHUNKS, HELD_OUT_CHUNKS = (16, 64, 128, 256), (96, 192)
ROUNDS, QUICK_ROUNDS = 9, 3
_POSITIONS = 16_384  # KV positions over all sessions, as a node offers them unless told otherwise
_KV_BYTES = 1 << 30
_CALLS, _PROMPT_CALLS = 5, 2  # of a visit: short ones are disturbed more often
_SEED = 4


@dataclass(frozen=True, slots=True)
class Point:
    """`rows` decode steps of as many sessions after `context` tokens each, a chunk of one, or the head for `rows` rows."""

    work: Literal["decode", "prompt", "head"]
    rows: int
    context: int = 0
    held_out: bool = False

    @property
    def batch(self) -> Batch:
        """The load on a block."""
        if self.work == "prompt":
            return prompt_batch(self.rows, self.context)
        return Batch(self.rows, own_positions=self.rows * (self.context + 1))


REFERENCE = Point("decode", 1)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Seconds by point: of one block, or of the head. `reference_s` is one entry per round and one at the end."""

    seconds: dict[Point, float]
    reference_s: tuple[float, ...]

    @property
    def spread(self) -> float:
        """How much longer the slowest visit of the reference point took than the fastest, relative."""
        return max(self.reference_s) / min(self.reference_s) - 1

    @property
    def drift(self) -> float:
        """How much slower the machine was in the second half than in the first, relative."""
        half = len(self.reference_s) // 2
        return statistics.median(self.reference_s[-half:]) / statistics.median(self.reference_s[:half]) - 1


def sweep_points(context: int, positions: int, *, quick: bool) -> tuple[Point, ...]:
    """What is measured with so many KV positions in a session and in all; points to be predicted are marked held out."""
    ends = (0, context // 2, context - 1) if quick else (0, context // 8, context // 4, context // 2, context - 1)
    between = (context // 3,) if quick else (context // 32, context // 6, context * 3 // 8)
    points = [Point("decode", rows, end) for rows in BATCHES for end in ends]
    points += [Point("decode", rows, end, held_out=True) for rows in HELD_OUT_BATCHES for end in between]
    for rows in CHUNKS:
        starts = (0, context - rows) if quick else (0, context // 8, context // 2, context - rows)
        points += [Point("prompt", rows, start) for start in starts if 0 <= start <= context - rows]
    for rows in HELD_OUT_CHUNKS:
        points += [Point("prompt", rows, start, held_out=True) for start in between if start + rows <= context]
    points += [Point("head", rows) for rows in BATCHES]
    points += [Point("head", rows, held_out=True) for rows in HELD_OUT_BATCHES]
    fitting = (p for p in points if p.work != "decode" or p.rows * (p.context + 1) <= positions)
    return tuple(dict.fromkeys(fitting))


class Sweeper:
    """A compiled model whose KV pages have been written: pages never written would all be one page of memory."""

    def __init__(self, package_dir: Path, artefact_dir: Path, threads: int) -> None:
        self.package = ModelPackage.open(package_dir)
        kv_bytes = self.package.shape.kv_bytes_per_token_per_block * self.package.spec.blocks
        self.context = min(self.package.spec.context, LONGEST_CONTEXT)
        self.positions = max(self.context, min(_POSITIONS, _KV_BYTES // kv_bytes))
        self.runtime = CompiledModel(
            self.package,
            artefact_dir,
            threads=threads,
            kv_pages=-(-self.positions // PAGE_TOKENS),
            max_sessions=max(BATCHES),
            max_rows=max(CHUNKS),
            context=self.context,
        )
        noise = np.random.default_rng(_SEED)
        for memory in (self.runtime.keys, self.runtime.values):
            memory[:] = noise.normal(size=memory.shape[2:]).astype(np.float16)
        self._pages = noise.permutation(self.runtime.keys.shape[1])
        self._hidden = noise.normal(size=(max(CHUNKS), self.package.dims.hidden)).astype(np.float32)

    def measure(self, points: Sequence[Point], rounds: int, on_progress: Progress) -> Sweep:
        """Visits all points `rounds` times."""
        visits: defaultdict[Point, list[float]] = defaultdict(list)
        reference = []
        for turn in range(rounds):
            reference.append(self.visit(REFERENCE))
            shuffled = random.Random(_SEED + turn).sample(points, len(points))
            for done, point in enumerate(shuffled):
                on_progress(turn * len(points) + done, rounds * len(points))
                visits[point].append(self.visit(point))
        reference.append(self.visit(REFERENCE))
        on_progress(1, 1)
        return Sweep({point: statistics.median(visits[point]) for point in points}, tuple(reference))

    def visit(self, point: Point) -> float:
        """Seconds of a block, or of the head: the fastest of a few calls, after one that finds the weights of few rows."""
        run = self._head_call(point) if point.work == "head" else self._blocks_call(point)
        if point.work != "prompt":
            run()
        seconds = min(_timed(run) for _ in range(_PROMPT_CALLS if point.work == "prompt" else _CALLS))
        return seconds if point.work == "head" else seconds / self.package.spec.blocks

    def _blocks_call(self, point: Point) -> Callable[[], object]:
        slots = np.arange(point.rows) if point.work == "decode" else np.zeros(point.rows, np.int64)
        positions = np.full(point.rows, point.context)
        if point.work == "prompt":
            positions += np.arange(point.rows)
        pages = int(positions[-1]) // PAGE_TOKENS + 1
        for slot in range(int(slots[-1]) + 1):
            self.runtime.page_table[slot, :pages] = np.take(
                self._pages, range(slot * pages, (slot + 1) * pages), mode="wrap"
            )
        hidden, layers = self._hidden[: point.rows], self.package.layers
        return lambda: self.runtime.run_blocks(layers, hidden, positions, slots)

    def _head_call(self, point: Point) -> Callable[[], object]:
        hidden = self._hidden[: point.rows]
        return lambda: [sample_token(row, 0.0, 1.0, 0, 0) for row in self.runtime.head(hidden)]


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
