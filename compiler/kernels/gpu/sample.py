"""`sample` on a GPU: a token for every draw of a frame, so that only token ids leave the device.

Temperature 0 takes the largest logit, the lowest id on ties. Otherwise the nucleus is the fewest most likely tokens whose
weights reach its share, ties by id, found by halving: thirty sums fix the bits of the smallest weight that is in. The
draw runs through the nucleus in the order of ids. Its random number belongs to (seed, position) alone (Philox 4x32-10,
Salmon et al., 2011): a replayed token is drawn again alike. A CPU node draws from the same nucleus with other numbers.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.attention import EMPTY
from compiler.kernels.gpu.frame import (
    DRAW_NUCLEUS,
    DRAW_POSITION,
    DRAW_SEED_HIGH,
    DRAW_SEED_LOW,
    DRAW_TEMPERATURE,
    draw_setting,
)
from compiler.kernels.gpu.threads import JOINED, THREADS, add, as_float, f32, join
from compiler.models.spec import ArchitectureDims

WEIGHT_BITS = 30  # of a float32 in (0, 1], which order like the weights
FINITE = 3e38


def bits_of(weight):
    """The bits of a weight as an int32: they order as weights do."""
    return T.reinterpret("int32", weight)


@T.inline
def philox_round(t, x, y):
    """One round on the counter x[t, 0:4] under the key x[t, 4:6]; y is scratch."""
    y[t, 0] = T.cast(x[t, 0], "uint64") * T.uint64(0xD2511F53)
    y[t, 1] = T.cast(x[t, 2], "uint64") * T.uint64(0xCD9E8D57)
    x[t, 0] = T.bitwise_xor(T.bitwise_xor(T.cast(T.shift_right(y[t, 1], T.uint64(32)), "uint32"), x[t, 1]), x[t, 4])
    x[t, 2] = T.bitwise_xor(T.bitwise_xor(T.cast(T.shift_right(y[t, 0], T.uint64(32)), "uint32"), x[t, 3]), x[t, 5])
    x[t, 1] = T.cast(y[t, 1], "uint32")
    x[t, 3] = T.cast(y[t, 0], "uint32")
    x[t, 4] = x[t, 4] + T.uint32(0x9E3779B9)
    x[t, 5] = x[t, 5] + T.uint32(0xBB67AE85)


@T.inline
def uniform(t, x, y, position, seed_low, seed_high, out):
    """out[t, 0]: a float32 in [0, 1) that belongs to (seed, position)."""
    x[t, 0] = T.cast(position, "uint32")
    for i in T.unroll(1, 4):
        x[t, i] = T.uint32(0)
    x[t, 4] = T.cast(seed_low, "uint32")
    x[t, 5] = T.cast(seed_high, "uint32")
    for _ in T.serial(10):
        philox_round(t, x, y)
    out[t, 0] = T.cast(T.shift_right(x[t, 0], T.uint32(8)), "float32") * f32(2.0**-24)


@T.inline
def find_largest(logits, row, vocab, shared, ids, own, own_id):
    """Phases that leave the largest logit in shared[THREADS] and its lowest id in ids[THREADS]."""
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        own[t, 0] = f32(EMPTY)
        own_id[t, 0] = t
        for step in T.serial((vocab - t + THREADS - 1) // THREADS):
            if logits[row, step * THREADS + t] > own[t, 0]:
                own[t, 0] = logits[row, step * THREADS + t]
                own_id[t, 0] = step * THREADS + t
        shared[t] = own[t, 0]
        ids[t] = own_id[t, 0]
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        if t < JOINED:
            for i in T.serial(THREADS // JOINED):
                if shared[i * JOINED + t] > own[t, 0] or (
                    shared[i * JOINED + t] == own[t, 0] and ids[i * JOINED + t] < own_id[t, 0]
                ):
                    own[t, 0] = shared[i * JOINED + t]
                    own_id[t, 0] = ids[i * JOINED + t]
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        if t < JOINED:
            shared[t] = own[t, 0]
            ids[t] = own_id[t, 0]
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        if t == 0:
            for i in T.serial(JOINED):
                if shared[i] > own[t, 0] or (shared[i] == own[t, 0] and ids[i] < own_id[t, 0]):
                    own[t, 0] = shared[i]
                    own_id[t, 0] = ids[i]
            shared[THREADS] = own[t, 0]
            ids[THREADS] = own_id[t, 0]


_total = join(THREADS, add, 0.0)


@T.inline
def sum_from(weights, row, vocab, lowest, shared, own):
    """Phases that leave the sum of all weights whose bits are at least `lowest` in shared[THREADS]."""
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        own[t, 0] = f32(0)
        for step in T.serial((vocab - t + THREADS - 1) // THREADS):
            if bits_of(weights[row, step * THREADS + t]) >= lowest:
                own[t, 0] = own[t, 0] + weights[row, step * THREADS + t]
        shared[t] = own[t, 0]
    _total(shared, own)


@T.inline
def weigh(logits, row, vocab, shared, temperature):
    """A phase that makes weights in (0, 1] of logits."""
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        for step in T.serial((vocab - t + THREADS - 1) // THREADS):
            logits[row, step * THREADS + t] = T.exp((logits[row, step * THREADS + t] - shared[THREADS]) / temperature)


@T.inline
def find_nucleus(weights, row, vocab, nucleus, wanted, smallest, ties, shared, own):
    """Phases: bits of the smallest weight that is in, and how many tokens of exactly this weight are."""
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        if t == 0:
            smallest[0] = 0
            ties[0] = 0
    if nucleus < f32(1):
        sum_from(weights, row, vocab, 0, shared, own)
        for t in T.thread_binding(THREADS, "threadIdx.x"):
            if t == 0:
                wanted[0] = shared[THREADS] * nucleus
        for bit in T.serial(WEIGHT_BITS):
            sum_from(weights, row, vocab, smallest[0] + T.shift_left(1, WEIGHT_BITS - 1 - bit), shared, own)
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                if t == 0 and shared[THREADS] >= wanted[0]:
                    smallest[0] = smallest[0] + T.shift_left(1, WEIGHT_BITS - 1 - bit)
        sum_from(weights, row, vocab, smallest[0] + 1, shared, own)
        for t in T.thread_binding(THREADS, "threadIdx.x"):
            if t == 0:
                own[t, 0] = T.ceil((wanted[0] - shared[THREADS]) / T.reinterpret("float32", smallest[0]))
                ties[0] = T.cast(T.max(f32(1), T.min(own[t, 0], T.cast(vocab, "float32"))), "int32")


def in_nucleus(weight, smallest, rank, ties):
    """Whether a token is in; `rank` counts the tokens of the smallest weight before it."""
    return T.Or(bits_of(weight) > smallest, T.And(bits_of(weight) == smallest, rank < ties))


@T.inline
def sum_chunks(weights, row, vocab, chunk, smallest, ties, shared, ids, own, own_id):
    """Phases: ids[t] counts the ties in a thread's chunk of ids, shared[t] is the nucleus' weight in it."""
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        own_id[t, 0] = 0
        for v in T.serial(T.min(vocab, t * chunk), T.min(vocab, (t + 1) * chunk)):
            if bits_of(weights[row, v]) == smallest[0]:
                own_id[t, 0] = own_id[t, 0] + 1
        ids[t] = own_id[t, 0]
    for t in T.thread_binding(THREADS, "threadIdx.x"):
        own_id[t, 0] = 0
        own[t, 0] = f32(0)
        for before in T.serial(t):
            own_id[t, 0] = own_id[t, 0] + ids[before]
        own_id[t, 1] = own_id[t, 0]
        for v in T.serial(T.min(vocab, t * chunk), T.min(vocab, (t + 1) * chunk)):
            if in_nucleus(weights[row, v], smallest[0], own_id[t, 1], ties[0]):
                own[t, 0] = own[t, 0] + weights[row, v]
            if bits_of(weights[row, v]) == smallest[0]:
                own_id[t, 1] = own_id[t, 1] + 1
        shared[t] = own[t, 0]


@T.inline
def choose_chunk(t, shared, own, drawn, winner):
    """For thread 0: the chunk that the draw falls into, and what is left of the draw there."""
    own[t, 1] = f32(0)
    for i in T.serial(THREADS):
        own[t, 1] = own[t, 1] + shared[i]
    drawn[0] = own[t, 0] * own[t, 1]
    own[t, 1] = f32(0)
    winner[0] = -1
    winner[1] = 0
    for i in T.serial(THREADS):
        if shared[i] > f32(0) and winner[0] < 0:
            winner[1] = i
            if own[t, 1] + shared[i] > drawn[0]:
                winner[0] = i
                drawn[0] = drawn[0] - own[t, 1]
            own[t, 1] = own[t, 1] + shared[i]
    if winner[0] < 0:
        winner[0] = winner[1]


@T.inline
def walk_chunk(t, weights, row, vocab, chunk, smallest, ties, drawn, own, own_id, tokens):
    """For the thread of the chunk: the first token of the nucleus that the draw does not pass, or the last."""
    own[t, 0] = f32(0)
    own_id[t, 1] = 0
    for v in T.serial(T.min(vocab, t * chunk), T.min(vocab, (t + 1) * chunk)):
        if in_nucleus(weights[row, v], smallest[0], own_id[t, 0], ties[0]) and own_id[t, 1] == 0:
            tokens[row] = v
            own[t, 0] = own[t, 0] + weights[row, v]
            if own[t, 0] > drawn[0]:
                own_id[t, 1] = 1
        if bits_of(weights[row, v]) == smallest[0]:
            own_id[t, 0] = own_id[t, 0] + 1


def sample_function(dims: ArchitectureDims):
    """sample(logits, vocab, frame, start, draws, tokens): a token per row of logits, which become weights meanwhile."""
    V = dims.vocab
    N, C = tirx.Var("N", "int32"), tirx.Var("C", "int32")

    @T.prim_func
    def sample(
        logits: T.Buffer((N, V), "float32"),
        vocab: T.int32,
        frame: T.Buffer((C,), "int32"),
        start: T.int32,
        draws: T.int32,
        tokens: T.Buffer((N,), "int32"),
    ):
        T.func_attr({"global_symbol": "sample", "tirx.noalias": True})

        @T.inline
        def draw(row, chunk, shared, ids, own, own_id):
            wanted = T.alloc_buffer((1,), "float32", scope="shared")
            drawn = T.alloc_buffer((1,), "float32", scope="shared")
            smallest = T.alloc_buffer((1,), "int32", scope="shared")
            ties = T.alloc_buffer((1,), "int32", scope="shared")
            winner = T.alloc_buffer((2,), "int32", scope="shared")
            x = T.alloc_buffer((THREADS, 6), "uint32", scope="local")
            y = T.alloc_buffer((THREADS, 2), "uint64", scope="local")
            weigh(logits, row, vocab, shared, as_float(draw_setting(frame, start, row, DRAW_TEMPERATURE)))
            find_nucleus(
                logits,
                row,
                vocab,
                as_float(draw_setting(frame, start, row, DRAW_NUCLEUS)),
                wanted,
                smallest,
                ties,
                shared,
                own,
            )
            sum_chunks(logits, row, vocab, chunk, smallest, ties, shared, ids, own, own_id)
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                if t == 0:
                    uniform(
                        t,
                        x,
                        y,
                        draw_setting(frame, start, row, DRAW_POSITION),
                        draw_setting(frame, start, row, DRAW_SEED_LOW),
                        draw_setting(frame, start, row, DRAW_SEED_HIGH),
                        own,
                    )
                    choose_chunk(t, shared, own, drawn, winner)
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                if t == winner[0]:
                    walk_chunk(t, logits, row, vocab, chunk, smallest, ties, drawn, own, own_id, tokens)

        for row in T.thread_binding(draws, "blockIdx.x"):
            shared = T.alloc_buffer((THREADS + 1,), "float32", scope="shared")
            ids = T.alloc_buffer((THREADS + 1,), "int32", scope="shared")
            greedy = T.alloc_buffer((1,), "int32", scope="shared")
            own = T.alloc_buffer((THREADS, 2), "float32", scope="local")
            own_id = T.alloc_buffer((THREADS, 2), "int32", scope="local")
            find_largest(logits, row, vocab, shared, ids, own, own_id)
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                if t == 0:
                    greedy[0] = T.Select(T.abs(shared[THREADS]) < f32(FINITE), -1, ids[THREADS])
                    tokens[row] = ids[THREADS]
            if as_float(draw_setting(frame, start, row, DRAW_TEMPERATURE)) > f32(0):
                draw(row, (vocab + THREADS - 1) // THREADS, shared, ids, own, own_id)
                for t in T.thread_binding(THREADS, "threadIdx.x"):
                    if t == 0 and greedy[0] >= 0:
                        tokens[row] = greedy[0]

    return sample
