"""The compute thread of a node: the one owner of model, KV pages and stages.

Everything that touches them runs here in order of arrival, so nothing needs a lock: frames, KV export and import, the
end of a session, plan changes. Frames that wait together run as one batch (continuous batching): kernels are
batch-invariant, so who shares a batch with whom changes no bit. TVM's thread pool belongs to the thread that calls it,
which is a second reason for one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from mec_apps.split_inference.frames import (
    MAX_ROWS,
    Frame,
    FrameKind,
    Refusal,
    check_rows,
    gateway_of,
    live_sessions,
)
from mec_apps.split_inference.node.kv_pages import SCRATCH_SLOT, KvPages, KvRefusal
from mec_apps.split_inference.node.page_wiping import PageWiper
from mec_apps.split_inference.node.stage_model import Draw, Floats, Integers, StageBatch, StageModel
from mec_apps.split_inference.node.stages import LoadedStage, StageTable
from mec_apps.split_inference.node.timings import Timings
from mec_platform.domain.cost_profile import Batch, CostProfile, prompt_batch
from mec_platform.domain.layers import LayerRange

MAX_BATCH_ROWS = 2 * MAX_ROWS
"""Rows that one run takes at most; also what the model's scratch memory is sized for."""

_CALIBRATION_RUNS = 15
_HEAD_RUNS = 3
_WINDOW_LAYERS = 4
_WINDOWS = 4
"""Measurements without work go round windows of layers, so that weights come from memory as they do when decoding: one
layer run again and again sits in a cache and looks twice as fast."""

_WARM_UP_LAYERS = 8
_PROMPT_LAYERS = 2
"""Layers of a step of a warm-up, with one row and with a page of them: a live session waits one or two milliseconds for it.
Smaller steps would only make a change longer, since a frame may run between any two."""
_ALONE = frozenset({FrameKind.END, FrameKind.ROLL})
"""Frames that nothing is computed for."""

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A frame to pass on: to `next_node`, or to the gateway that owns the session where that is None."""

    next_node: str | None
    frame: Frame


@dataclass(frozen=True, slots=True)
class _Awaited:
    session: int
    layers: LayerRange
    positions: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Admitted:
    frame: Frame
    slot: int


class ComputeThread:
    """Runs frames and jobs; `deliver` is called on the event loop with what each batch produced."""

    def __init__(
        self,
        load_model: Callable[[], StageModel],
        blocks: int,
        context: int,
        hidden_bytes_per_row: int,
        vocabulary: int,
        deliver: Callable[[Sequence[Outcome]], None],
        profile: CostProfile | None = None,
        row_bytes: Callable[[int], int] | None = None,
    ) -> None:
        """`row_bytes(block)` are the bytes of a row in front of a block, where they are not the same everywhere."""
        self._load_model = load_model
        self._blocks = blocks
        self._context = context
        self._hidden_bytes_per_row = hidden_bytes_per_row
        self._row_bytes = row_bytes or (lambda block: hidden_bytes_per_row)
        self._vocabulary = vocabulary
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Frame | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self.model: StageModel
        self.kv: KvPages
        self.stages = StageTable()
        self.timings = Timings(profile)
        self.cpu_share = 1.0
        self._awaited: list[_Awaited] = []
        self.frames_run = 0
        self._frames_seen = 0
        self._window = 0
        self.rows_run = 0
        self.busy_s = 0.0

    async def start(self) -> None:
        """Loads the model and calibrates in the thread. Raises what loading raises."""
        self._thread.start()
        await self.call(self._prepare)

    def submit(self, frame: Frame) -> None:
        """Queues a TOKENS, ROWS, HIDDEN, END or ROLL frame."""
        self._queue.put(frame)

    @property
    def queued(self) -> int:
        """Frames and jobs that wait for the thread."""
        return self._queue.qsize()

    def measure_if_idle(self) -> None:
        """Keeps the block time of a node without work fresh: called once a second, it costs under a millisecond."""
        if self.frames_run == self._frames_seen:
            self._queue.put(self._measure_window)
        self._frames_seen = self.frames_run

    async def call(self, job: Callable[[], Result]) -> Result:
        """Runs `job` in the thread after everything queued before it; returns or raises what it does."""
        done: asyncio.Future[Result] = self._loop.create_future()

        def run() -> None:
            try:
                result = job()
            except Exception as error:  # noqa: BLE001 - handed to the caller
                self._loop.call_soon_threadsafe(_settle, done, None, error)
            else:
                self._loop.call_soon_threadsafe(_settle, done, result, None)

        self._queue.put(run)
        return await done

    async def wait_held(self, session: int, layers: LayerRange, positions: int, timeout_s: float) -> None:
        """Returns once the session holds so many positions in these layers, or when the time is over."""
        awaited = _Awaited(session, layers, positions, self._loop.create_future())

        def begin() -> None:
            self._awaited.append(awaited)
            self._tell_held()

        self._queue.put(begin)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await awaited.done

    async def call_in_steps(self, job: Iterator[None]) -> None:
        """As `call`, for a job that nobody shall wait for: between two steps, what came meanwhile has its turn."""
        done: asyncio.Future[None] = self._loop.create_future()

        def run() -> None:
            try:
                next(job)
            except StopIteration:
                self._loop.call_soon_threadsafe(_settle, done, None, None)
            except Exception as error:  # noqa: BLE001 - handed to the caller
                self._loop.call_soon_threadsafe(_settle, done, None, error)
            else:
                self._queue.put(run)

        self._queue.put(run)
        await done

    def stop(self) -> None:
        """Ends the thread after what is queued."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _prepare(self) -> None:
        self.model = self._load_model()
        model = self.model
        self.kv = KvPages(model.page_table, model.kv_pages, self._blocks, model.page_tokens, self._context)
        self.kv.wiper = PageWiper(model, self.kv.give_back, self._queue.put)
        model.page_table[SCRATCH_SLOT] = 0
        layers = LayerRange(0, model.calibration_layers)
        model.load_stage(layers, is_first=False, is_last=True)
        for _ in self.warm_up(layers, runs=0):
            pass
        for _ in range(_CALIBRATION_RUNS):
            self._measure_window()
        for _ in range(_HEAD_RUNS):
            self.timings.add_head(model.time_head(), 1)
        model.release_layers(layers)
        model.release_text(embed=True, head=True)

    def warm_up(self, layers: LayerRange, runs: int) -> Iterator[None]:
        """Runs layers on the scratch page: faults their weights in and measures them. Sessions are not touched.

        A step is a window of layers. All of it takes as long as several tokens, and a live session shall wait for none of it.
        """
        starts = range(layers.start, layers.stop, _WARM_UP_LAYERS)
        windows = [LayerRange(start, min(start + _WARM_UP_LAYERS, layers.stop)) for start in starts]
        for run in range(runs + 1):
            for window in windows:
                if run == 0:
                    self._run_scratch(window, 1)  # pays for page faults, so it is not measured
                else:
                    self._measure(window, 1)
                yield
        few, rows = LayerRange(layers.start, min(layers.start + _PROMPT_LAYERS, layers.stop)), self.model.page_tokens
        self.timings.add_blocks(self._run_scratch(few, rows), len(few), prompt_batch(rows, 0))

    def _measure(self, layers: LayerRange, runs: int) -> None:
        for _ in range(runs):
            self.timings.add_blocks(self._run_scratch(layers, 1), len(layers), Batch(1, own_positions=1))

    def _measure_window(self) -> None:
        """Runs the next window of layers once."""
        start = self._window * _WINDOW_LAYERS
        if start >= self._blocks:
            start = 0
        self._window = start // _WINDOW_LAYERS + 1
        if self._window == _WINDOWS:
            self._window = 0
        layers = self.model.measurable(LayerRange(start, min(start + _WINDOW_LAYERS, self._blocks)))
        if layers is not None:
            self._measure(layers, 1)

    def _run_scratch(self, layers: LayerRange, rows: int) -> float:
        """Seconds for rows `[0, rows)` of the scratch slot through `layers`."""
        hidden = np.zeros((rows, self._hidden_bytes_per_row // 4), np.float32)
        slots = np.full(rows, SCRATCH_SLOT, np.int32)
        started = time.perf_counter()
        self.model.run_blocks(layers, hidden, np.arange(rows, dtype=np.int32), slots)
        return self._hold_cpu_share(time.perf_counter() - started)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            while isinstance(item, Frame):
                item = self._run_waiting(item)
            if item is None:
                return
            item()

    def _run_waiting(self, first: Frame) -> Frame | Callable[[], None] | None:
        """Runs `first` with the frames that wait behind it; returns the next item that did not go with them."""
        batch, rows = [first], first.rows
        following: Frame | Callable[[], None] | None = _nothing
        while first.kind not in _ALONE:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            # Tokens and rows of one session follow each other in one order, so a batch holds one kind.
            if not isinstance(item, Frame) or item.kind is not first.kind or rows + item.rows > MAX_BATCH_ROWS:
                following = item
                break
            batch.append(item)
            rows += item.rows
        outcomes: list[Outcome] = []
        if first.kind is FrameKind.END:
            outcomes = self._end(first)
        elif first.kind is FrameKind.ROLL:
            self._end_missing(first)
        else:
            by_stage: dict[int, list[Frame]] = {}
            for frame in batch:
                by_stage.setdefault(frame.epoch, []).append(frame)
            for epoch, frames in by_stage.items():
                outcomes += self._run_stage(epoch, frames)
        if outcomes:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
        if self._awaited:
            self._tell_held()
        return following

    def _tell_held(self) -> None:
        """Wakes who waits for positions that are there now; who has given up waits no more."""
        waiting, self._awaited = self._awaited, []
        for each in waiting:
            held = self.kv.get(each.session)
            if held is not None and held.valid_in(each.layers) >= each.positions:
                self._loop.call_soon_threadsafe(_settle, each.done, None, None)
            elif not each.done.done():
                self._awaited.append(each)

    def _end(self, frame: Frame) -> list[Outcome]:
        stage = self.stages.get(frame.epoch)
        self.kv.end(frame.session)
        return [Outcome(stage.next_node, frame)] if stage is not None and stage.next_node is not None else []

    def _end_missing(self, roll: Frame) -> None:
        """Frees what sessions hold that have ended without word. Younger ones than the roll are not in it, and live."""
        gateway, live = gateway_of(roll.session), live_sessions(roll)
        for session in self.kv.sessions:
            if gateway_of(session) == gateway and session <= roll.session and session not in live:
                _log.info("session %x has ended without word", session)
                self.kv.end(session)

    def _run_stage(self, epoch: int, frames: Sequence[Frame]) -> list[Outcome]:
        stage = self.stages.get(epoch)
        if stage is None:
            stale = epoch < self.stages.committed_epoch
            code = Refusal.STALE_EPOCH if stale else Refusal.UNKNOWN_EPOCH
            reason = f"epoch {epoch}; this node is at epoch {self.stages.committed_epoch}"
            return [Outcome(None, refuse(frame, code, reason)) for frame in frames]
        outcomes: list[Outcome] = []
        admitted: list[_Admitted] = []
        for frame in frames:
            try:
                admitted.append(self._admit(stage, frame))
            except KvRefusal as refusal:
                outcomes.append(Outcome(None, refuse(frame, refusal.code, str(refusal))))
        if admitted:
            try:
                outcomes += self._run_batch(stage, admitted)
            except Exception as error:  # noqa: BLE001
                # The node must outlive a batch that its kernels refuse; the sessions in it are told.
                _log.exception("a batch of %d frames failed", len(admitted))
                outcomes += [Outcome(None, refuse(a.frame, Refusal.COMPUTE_FAILED, str(error))) for a in admitted]
        return outcomes

    def _admit(self, stage: LoadedStage, frame: Frame) -> _Admitted:
        if (frame.kind in (FrameKind.TOKENS, FrameKind.ROWS)) != stage.is_first:
            raise KvRefusal(Refusal.BAD_FRAME, f"a {frame.kind.name} frame for layers {stage.layers}")
        problem = check_rows(frame, self._row_bytes(stage.layers.start))
        if problem is not None:
            raise KvRefusal(Refusal.BAD_FRAME, problem)
        if frame.kind is FrameKind.TOKENS:
            tokens = memoryview(frame.payload).cast("i")
            if min(tokens) < 0 or max(tokens) >= self._vocabulary:
                raise KvRefusal(Refusal.BAD_FRAME, f"token ids outside [0, {self._vocabulary})")
        kv = self.kv.extend(frame.session, stage.layers, frame.position, frame.rows)
        # Later frames of the batch may build on these rows: kernels write a batch's KV before they read it.
        self.kv.mark_valid(frame.session, stage.layers, frame.position + frame.rows)
        return _Admitted(frame, kv.slot)

    def _run_batch(self, stage: LoadedStage, admitted: Sequence[_Admitted]) -> list[Outcome]:
        frames = [item.frame for item in admitted]
        positions, slots = _places(admitted)
        payload = frames[0].payload if len(frames) == 1 else b"".join(f.payload for f in frames)
        ends = list(itertools.accumulate(f.rows for f in frames))
        wanted = [i for i, frame in enumerate(frames) if frame.wants_token] if stage.is_last else []
        draws = [Draw(ends[i] - 1, frames[i].position + frames[i].rows, frames[i].sampling) for i in wanted]
        takes_tokens = frames[0].kind is FrameKind.TOKENS
        batch = StageBatch(stage.layers, payload, takes_tokens, stage.is_last, positions, slots, draws)
        started = time.perf_counter()
        result = self.model.run(batch)
        ran = time.perf_counter() - started
        held = self._hold_cpu_share(ran)
        self.timings.add_blocks(result.blocks_s * held / ran, len(stage.layers), _batch(frames))
        if wanted:
            self.timings.add_head(result.head_s, len(wanted))
        self.frames_run += len(frames)
        self.rows_run += len(positions)
        self.busy_s += held
        spent_us = round(held * 1e6)
        hidden = result.hidden
        if hidden is None:
            sampled = zip(wanted, result.tokens, strict=True)
            return [Outcome(None, _result(frames[i], token, spent_us)) for i, token in sampled]
        return [
            Outcome(stage.next_node, _hidden(frame, hidden[end - frame.rows : end], spent_us))
            for frame, end in zip(frames, ends, strict=True)
        ]

    def _hold_cpu_share(self, ran_s: float) -> float:
        """EMULATED slower CPU: idles so that the run took 1/share of its time; returns the time taken."""
        if self.cpu_share >= 1.0:
            return ran_s
        idle_s = ran_s * (1.0 / self.cpu_share - 1.0)
        time.sleep(idle_s)
        return ran_s + idle_s


def _settle(done: asyncio.Future[Result], result: Result | None, error: Exception | None) -> None:
    if done.done():  # its caller has given up
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)  # type: ignore[arg-type]


def _nothing() -> None:
    """Stands for an empty queue where the next item to run is expected."""


def refuse(frame: Frame, code: Refusal, reason: str) -> Frame:
    """The answer to the gateway where a frame was not run."""
    return replace(frame, kind=FrameKind.REFUSED, flags=int(code), rows=0, payload=reason.encode()[:1000])


def _batch(frames: Sequence[Frame]) -> Batch:
    """The load that frames make together."""
    own = sum(frame.position + 1 for frame in frames if frame.rows == 1)
    shared = sum(prompt_batch(frame.rows, frame.position).shared_positions for frame in frames if frame.rows > 1)
    return Batch(sum(frame.rows for frame in frames), own, shared)


def _places(admitted: Sequence[_Admitted]) -> tuple[Integers, Integers]:
    """Position and slot of every row of a batch. Decode steps of one session, the common case, take the short way."""
    if len(admitted) == 1:
        frame, slot = admitted[0].frame, admitted[0].slot
        return np.arange(frame.position, frame.position + frame.rows, dtype=np.int32), np.full(
            frame.rows, slot, np.int32
        )
    each = [_places([item]) for item in admitted]
    return np.concatenate([positions for positions, _ in each]), np.concatenate([slots for _, slots in each])


def _result(frame: Frame, token: int, spent_us: int) -> Frame:
    return replace(
        frame,
        kind=FrameKind.RESULT,
        flags=0,
        position=frame.position + frame.rows,
        rows=1,
        compute_us=frame.compute_us + spent_us,
        payload=token.to_bytes(4, "little"),
    )


def _hidden(frame: Frame, rows: Floats, spent_us: int) -> Frame:
    return replace(frame, kind=FrameKind.HIDDEN, compute_us=frame.compute_us + spent_us, payload=rows.tobytes())
