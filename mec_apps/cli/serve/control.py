"""How the control plane of `mec serve` decides, and what it serves to nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.control_plane.orchestrator.settings import PolicySettings, ReplicaLimits
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import ControlSettings

_option = options_of("Control plane")


@dataclass(frozen=True, slots=True)
class Control:
    """What the options say."""

    settings: ControlSettings
    policies: Path | None
    manual: bool
    store_dir: Path | None
    prefer_peers: bool


def _make(
    expected_nodes: int,
    cooldown_s: float,
    kv_reserve: int,
    standbys: int,
    alpha: float,
    beta: float,
    gamma_ms: float,
    policy: Path | None,
    manual: bool,
    store: Path | None,
    prefer_peers: bool,
) -> Control:
    settings = ControlSettings(
        planning=PlanSettings(alpha=alpha, beta=beta, gamma_ms=gamma_ms, kv_tokens_reserved=kv_reserve),
        policy=PolicySettings(
            expected_nodes=expected_nodes, cooldown_s=cooldown_s, replicas=ReplicaLimits(standbys=standbys)
        ),
    )
    return Control(settings, policy, manual, store, prefer_peers)


control_options = option_group(
    "control",
    _make,
    _option(
        "--expected-nodes",
        default=1,
        show_default=True,
        type=click.IntRange(1, 1000),
        help="Nodes that the first plan waits for.",
    ),
    _option(
        "--cooldown-s",
        default=5.0,
        show_default=True,
        type=click.FloatRange(0),
        help="Least time between two changes of a plan.",
    ),
    _option(
        "--kv-reserve",
        default=2048,
        show_default=True,
        type=click.IntRange(0),
        help="KV positions that every stage must have room for.",
    ),
    _option(
        "--standbys",
        default=0,
        show_default=True,
        type=click.IntRange(0, 3),
        help="Nodes that keep copies of the KV of each stage, where there is room: a killed node then costs no replay.",
    ),
    _option("--alpha", default=1.0, show_default=True, type=click.FloatRange(0), help="Weight of latency."),
    _option(
        "--beta", default=0.5, show_default=True, type=click.FloatRange(0), help="Weight of imbalance (throughput)."
    ),
    _option("--gamma-ms", default=4.0, show_default=True, type=click.FloatRange(0), help="Weight of privacy exposure."),
    _option(
        "--policy",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Policy file (see mec policy check); what it says of a deployment goes before the options here. "
        "Read again when it changes and at SIGHUP.",
    ),
    _option(
        "--manual",
        is_flag=True,
        help="Only say what would be changed (but replace nodes that are lost); see mec reconfigure.",
    ),
    _option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        help="Content store that nodes fetch from (default: the user's cache, $MEC_CACHE).",
    ),
    _option("--prefer-peers", is_flag=True, help="Nodes fetch from each other first, from here what none of them has."),
)
