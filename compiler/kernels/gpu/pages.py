"""KV pages of one layer, gathered to be sent and scattered when they arrive: a page is copied as it is."""

from __future__ import annotations

from typing import Literal

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.attention import PAGE_TOKENS
from compiler.kernels.gpu.threads import THREADS
from compiler.models.spec import ArchitectureDims


def pages_function(dims: ArchitectureDims, name: Literal["gather", "scatter"]):
    """name(keys, values, layer, ids, count, moved_keys, moved_values): pages `ids` to or from the moved ones."""
    HD, KVH, words = dims.head_dim, dims.kv_heads, dims.head_dim * PAGE_TOKENS
    L, P, N = (tirx.Var(each, "int32") for each in ("L", "P", "N"))
    gathers = name == "gather"

    @T.prim_func
    def move(
        keys: T.Buffer((L, P, KVH, HD, PAGE_TOKENS), "float16"),
        values: T.Buffer((L, P, KVH, PAGE_TOKENS, HD), "float16"),
        layer: T.int32,
        ids: T.Buffer((N,), "int32"),
        count: T.int32,
        moved_keys: T.Buffer((N, KVH, HD, PAGE_TOKENS), "float16"),
        moved_values: T.Buffer((N, KVH, PAGE_TOKENS, HD), "float16"),
    ):
        T.func_attr({"global_symbol": name, "tirx.noalias": True})
        for i in T.thread_binding(count, "blockIdx.x"):
            for k in T.thread_binding(KVH, "blockIdx.y"):
                for t in T.thread_binding(THREADS, "threadIdx.x"):
                    for step in T.serial(words // THREADS):
                        if gathers:
                            moved_keys[i, k, (step * THREADS + t) // PAGE_TOKENS, t % PAGE_TOKENS] = keys[
                                layer, ids[i], k, (step * THREADS + t) // PAGE_TOKENS, t % PAGE_TOKENS
                            ]
                            moved_values[i, k, (step * THREADS + t) // HD, (step * THREADS + t) % HD] = values[
                                layer, ids[i], k, (step * THREADS + t) // HD, (step * THREADS + t) % HD
                            ]
                        else:
                            keys[layer, ids[i], k, (step * THREADS + t) // PAGE_TOKENS, t % PAGE_TOKENS] = moved_keys[
                                i, k, (step * THREADS + t) // PAGE_TOKENS, t % PAGE_TOKENS
                            ]
                            values[layer, ids[i], k, (step * THREADS + t) // HD, (step * THREADS + t) % HD] = (
                                moved_values[i, k, (step * THREADS + t) // HD, (step * THREADS + t) % HD]
                            )

    return move
