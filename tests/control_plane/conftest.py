"""A small world for the pure control plane: nodes, links and snapshots with readable defaults."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage

HARDWARE = HardwareTarget(arch="x86_64", cpu_model="test", compile_target="test", cores=2, threads=2)


def make_model(blocks: int = 12, **changes: Any) -> ModelShape:
    sizes: dict[str, Any] = {
        "name": "model",
        "blocks": blocks,
        "hidden_bytes_per_row": 2304,
        "block_bytes": 1_000_000,
        "embed_bytes": 500_000,
        "head_bytes": 500_000,
        "kv_bytes_per_token_per_block": 100,
    }
    return ModelShape(**(sizes | changes))


def make_node(name: str, **changes: Any) -> NodeCapacity:
    values: dict[str, Any] = {
        "name": name,
        "address": f"{name}:50060",
        "trusted": True,
        "hardware": HARDWARE,
        "memory_bytes": 100_000_000,
        "block_time_s": 0.001,
        "head_time_s": 0.001,
        "prefill_block_time_s_per_row": 0.0001,
        "sessions": 0,
    }
    return NodeCapacity(**(values | changes))


def make_links(names: Sequence[str], bytes_per_s: float = 12.5e6, **overrides: float) -> tuple[LinkCapacity, ...]:
    """Full mesh; `overrides` are `a__b=bytes_per_s` for the direction a -> b (names with _ for -)."""
    rates = {tuple(part.replace("_", "-") for part in key.split("__")): value for key, value in overrides.items()}
    return tuple(LinkCapacity(a, b, rates.get((a, b), bytes_per_s), 0.0004) for a in names for b in names if a != b)


def make_plan(epoch: int, *stages: tuple[str, int, int], model: str = "model") -> SplitPlan:
    placed = tuple(Stage(node, LayerRange(start, stop)) for node, start, stop in stages)
    return SplitPlan(epoch=epoch, parent_epoch=epoch - 1, model=model, stages=placed)


def make_gateway(name: str = "gateway", **changes: Any) -> GatewayCapacity:
    values: dict[str, Any] = {"address": "", "sessions": 1, "context_positions": 200, "tokens_per_s": 30.0}
    return GatewayCapacity(name=name, **(values | changes))


def make_snapshot(nodes: Sequence[NodeCapacity], now_s: float = 100.0, **changes: Any) -> Snapshot:
    names = [*(node.name for node in nodes), "gateway"]
    values: dict[str, Any] = {
        "model": make_model(),
        "gateways": (make_gateway(),),
        "links": make_links(names),
        "plan": None,
        "lost_nodes": frozenset(),
    }
    return Snapshot(now_s=now_s, nodes=tuple(nodes), **(values | changes))


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Where connections are taken, as a kernel does for a process that hangs, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """Builders: `world.node("edge-1", block_time_s=0.002)`, `world.snapshot([...])`, `world.plan(1, ("a", 0, 12))`."""
    builders: Mapping[str, Any] = {
        "model": make_model,
        "node": make_node,
        "links": make_links,
        "plan": make_plan,
        "gateway": make_gateway,
        "snapshot": make_snapshot,
    }
    return SimpleNamespace(hardware=HARDWARE, **builders)
