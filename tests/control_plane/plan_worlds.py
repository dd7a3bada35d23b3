"""Worlds to plan for, drawn from a seed: nodes that differ in everything a plan depends on, and links of every kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, LinkForecast, NodeCapacity, Snapshot
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage

_HARDWARE = HardwareTarget(arch="x86_64", cpu_model="drawn", compile_target="", cores=2, threads=2)
_BLOCK_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw. `parts` is how many average nodes the model fills; `sites` 0: every pair of members has its own link.

    `features` draws forecasts, unsure and missing links, groups, other chains, weights that are not local and a current plan.
    """

    nodes: int
    blocks: int
    parts: float = 2.0
    sites: int = 0
    features: bool = False


def draw_world(seed: int, drawing: Drawing) -> Snapshot:
    """A world in which times differ by a factor of ten, link rates by a hundred and round trips by thirty."""
    random = Random(seed)
    model = ModelShape("model", drawing.blocks, 2304, _BLOCK_BYTES, 4_000_000, 3_000_000, 1536)
    whole = drawing.blocks * (_BLOCK_BYTES + 1536 * 2048) + 7_000_000
    nodes = tuple(_node(random, number, whole / drawing.parts, drawing) for number in range(drawing.nodes))
    gateways = tuple(
        GatewayCapacity(name, "", sessions, sessions * 200, 20.0, site=_site(random, drawing))
        for name, sessions in (("gateway-1", 1 + seed % 3), ("gateway-2", seed % 2))
    )
    snapshot = Snapshot(0.0, model, nodes, gateways, (), None, frozenset())
    if drawing.sites:
        snapshot = replace(snapshot, site_links=_site_links(random, drawing), links=_own_links(random, snapshot))
    else:
        names = [member.name for member in (*nodes, *gateways)]
        snapshot = replace(snapshot, links=tuple(_link(random, a, b, drawing) for a in names for b in names if a != b))
    return _with_plans(random, snapshot) if drawing.features else snapshot


def draw_settings(seed: int) -> PlanSettings:
    """Weights and limits, some of them unusual."""
    random = Random(seed)
    settings = PlanSettings(
        beta=random.choice([0.0, 0.5, 0.5, 3.0]),
        gamma_ms=random.choice([0.0, 4.0]),
        trusted_first_blocks=random.choice([0, 1, 2, 3]),
        trusted_last_blocks=random.choice([0, 1, 2]),
        kv_tokens_reserved=random.choice([0, 2048]),
        kv_growth_tokens=random.choice([0, 256]),
        longest_transmission_ms=random.choice([float("inf"), float("inf"), 8.0]),
        switch_horizon_tokens=random.choice([0, 200, 1000]),
    )
    return settings.for_objective(random.choice(["weighted", "weighted", "latency", "throughput"]))


def _node(random: Random, number: int, average_bytes: float, drawing: Drawing) -> NodeCapacity:
    plain = NodeCapacity(
        name=f"node-{number:04}",
        address="",
        trusted=random.random() < 0.7,
        hardware=_HARDWARE,
        memory_bytes=int(average_bytes * random.uniform(0.5, 2.0)),
        block_time_s=10 ** random.uniform(-3.7, -2.7),
        head_time_s=10 ** random.uniform(-3.5, -2.5),
        prefill_block_time_s_per_row=1e-5,
        sessions=0,
        site=_site(random, drawing),
    )
    if not drawing.features:
        return plain
    local = frozenset(block for block in range(drawing.blocks) if random.random() < 0.5)
    return replace(
        plain,
        group=random.choice(["", "rack-1", "rack-2"]),
        machine=random.choice(["", "", "machine-1"]),
        runs_model=random.random() < 0.9,
        local_blocks=random.choice([None, local, frozenset()]),
        weights_bytes_per_s=10 ** random.uniform(6, 8),
    )


def _site(random: Random, drawing: Drawing) -> str:
    return f"site-{random.randrange(drawing.sites)}" if drawing.sites else ""


def _link(random: Random, source: str, target: str, drawing: Drawing, faster: float = 1.0) -> LinkCapacity:
    rate, round_trip = faster * 10 ** random.uniform(5.5, 7.5), 10 ** random.uniform(-3.5, -2) / faster
    link = LinkCapacity(source, target, rate, round_trip)
    if not drawing.features or random.random() < 0.5:
        return link
    forecast = LinkForecast(
        5.0, rate * random.uniform(0.1, 2), round_trip, random.random(), "drawn", random.choice([None, 3.0, 90.0])
    )
    return replace(
        link,
        bytes_per_s=random.choice([rate, 0.0]),
        confidence=random.choice([0.2, 0.9, 1.0]),
        forecast=random.choice([None, forecast]),
    )


def _site_links(random: Random, drawing: Drawing) -> tuple[LinkCapacity, ...]:
    names = [f"site-{number}" for number in range(drawing.sites)]
    return tuple(_link(random, a, b, drawing, 5.0 if a == b else 1.0) for a in names for b in names)


def _own_links(random: Random, snapshot: Snapshot) -> tuple[LinkCapacity, ...]:
    """A few members have measured each other."""
    names = [member.name for member in (*snapshot.nodes, *snapshot.gateways)]
    pairs = {tuple(random.sample(names, 2)) for _ in range(2 * len(names))}
    return tuple(_link(random, a, b, Drawing(0, 0)) for a, b in sorted(pairs))


def _with_plans(random: Random, snapshot: Snapshot) -> Snapshot:
    """Some of the links are missing; there is another chain, and a plan, which may have lost a node."""
    links = tuple(link for link in snapshot.links if random.random() < 0.9)
    names = [node.name for node in snapshot.nodes]
    assert snapshot.model is not None
    blocks = snapshot.model.blocks
    replicas: tuple[SplitPlan, ...] = ()
    if len(names) > 3 and random.random() < 0.5:
        replicas = (SplitPlan(4, 3, "model", (Stage(random.choice(names), LayerRange(0, blocks)),)),)
    plan = None
    if random.random() < 0.7:
        count = random.randint(1, min(3, blocks, len(names)))
        cuts = [0, *sorted(random.sample(range(1, blocks), count - 1)), blocks]
        holders = random.sample([*names, "lost"], count)
        ranges = [LayerRange(a, b) for a, b in pairwise(cuts)]
        plan = SplitPlan(7, 6, "model", tuple(Stage(n, r) for n, r in zip(holders, ranges, strict=True)))
    return replace(snapshot, links=links, plan=plan, replicas=replicas)
