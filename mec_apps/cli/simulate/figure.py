"""A picture of a run: what the link was like, where the layers were, and how long tokens took, one below the other.

Needs matplotlib (the extra `plots`); everything else of `mec simulate` does without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mec_platform.domain.layers import LayerRange
from mec_platform.simulation.record import DeploymentRecord, RunRecord
from mec_platform.simulation.requests import Slo
from mec_platform.simulation.world import World

_COLOURS = {
    "adaptive": "#d62728",
    "unchanged": "#1f77b4",
    "static-best": "#1f77b4",
    "even-split": "#9467bd",
    "migrate-only": "#8c564b",
    "re-split-only": "#e377c2",
    "oracle": "#2ca02c",
}
_BEHIND = {"even-split": 0.45, "migrate-only": 0.45, "re-split-only": 0.45}
_POINTS = 1500
_MOST_LANES = 10


@dataclass(frozen=True, slots=True)
class Column:
    """Runs that are drawn below one another: of one world, the first policy's plans. `label` says what they are."""

    label: str
    world: World
    records: Sequence[RunRecord]


def draw_figure(path: Path, world: World, records: Sequence[RunRecord], slos: Mapping[str, Slo]) -> None:
    """Draws the first deployment of a run to a PNG or SVG file; plans are those of the first policy."""
    draw_columns(path, world.scenario.title, [Column("", world, records)], slos)


def draw_columns(path: Path, title: str, columns: Sequence[Column], slos: Mapping[str, Slo]) -> None:
    """Draws runs side by side, on the same scales; each as `draw_figure` does it."""
    matplotlib.rcParams["svg.hashsalt"] = "mec"  # the same run gives the same file
    name = columns[0].records[0].deployments[0].name
    used = {lane for column in columns for lane in _lanes(column.records[0].deployments[0], column.world)}
    lanes = [lane for lane in columns[0].world.node_specs if lane in used][:_MOST_LANES]
    figure = Figure(figsize=(13 + 5 * (len(columns) - 1), 7.5 + 0.35 * len(lanes)), layout="constrained")
    ratios = [2.2, 0.7 + 0.45 * len(lanes), 2.4]
    panels = figure.subplots(3, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=ratios)
    figure.suptitle(f"{title}: {name}", fontsize=13, fontweight="bold")
    for number, column in enumerate(columns):
        _draw_column(panels[:, number], column, lanes, slos[name])
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=110, metadata=metadata)


def _draw_column(panels: Any, column: Column, lanes: list[str], slo: Slo) -> None:
    top, middle, bottom = panels
    shown = column.records[0].deployments[0]
    _draw_link(top, column.world, shown)
    _draw_plans(middle, shown, lanes, column.records[0])
    _draw_tokens(bottom, column.records, slo, inside=bool(column.label))
    if column.label:
        top.set_title(column.label, fontweight="bold")
    for axes in (top, bottom):
        for change in _changes(shown):
            axes.axvline(change.ended_s, color=_COLOURS["adaptive"], linewidth=0.8, alpha=0.35)
    bottom.set_xlim(0, column.records[0].duration_s)
    bottom.set_xlabel("time (s)")


def _changes(shown: DeploymentRecord) -> list[Any]:
    return [each for each in shown.reconfigurations if each.outcome == "committed" and each.kind != "initial"]


def _draw_link(axes: Any, world: World, shown: DeploymentRecord) -> None:
    source, target = _link_to_show(world)
    series = world.link_series(source, target)
    duration_s = world.scenario.duration_s
    times = [duration_s * index / _POINTS for index in range(_POINTS)]
    states = [world.link(source, target, at_s) for at_s in times]
    trips_change = len({state.round_trip_s for state in states if state is not None}) > 1
    rates_change = len({state.bytes_per_s for state in states if state is not None}) > 1
    if rates_change and not trips_change:
        axes.plot(times, [0 if s is None else s.bytes_per_s * 8e-6 for s in states], color="#333333", linewidth=1)
        axes.set_ylabel(f"{source} - {target}\nthroughput (Mbit/s)")
    else:
        trips = [None if s is None else s.round_trip_s * 1e3 for s in states]
        axes.plot(times, trips, color="#333333", linewidth=0.9, label="round trip")
        axes.set_ylabel(f"{source} - {target}\nround trip (ms)")
    _use_log_scale(axes)
    told = [each for each in shown.forecasts if {each.source, each.target} == {source, target}]
    if told:
        axes.plot(
            [each.due_s for each in told],
            [each.forecast_s * 1e3 for each in told],
            linestyle="none",
            marker=".",
            markersize=5,
            color="#ff7f0e",
            label="as it was forecast",
        )
    if series is not None and series.radio:
        _draw_signal(axes, series.radio, duration_s)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", fontsize=8, framealpha=0.9)
    axes.set_title("what the link was like", loc="left", fontsize=10)
    axes.grid(alpha=0.25)


def _use_log_scale(axes: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_signal(axes: Any, radio: Sequence[Any], duration_s: float) -> None:
    signal = axes.twinx()
    rows = [row for row in radio if row.at_s <= duration_s]
    signal.plot([r.at_s for r in rows], [r.rsrp_dbm for r in rows], color="#1f77b4", linewidth=0.8, alpha=0.5)
    signal.set_ylabel("RSRP (dBm)", color="#1f77b4")
    label: str | None = "handover"
    for before, row in itertools.pairwise(rows):
        if before.cell != row.cell:
            axes.axvline(row.at_s, color="#1f77b4", linestyle=":", linewidth=1.4, label=label)
            label = None


def _link_to_show(world: World) -> tuple[str, str]:
    """The link with a trace, or the first that an event changes, or the first of all; the gateway's where there is one."""
    members = [*world.gateway_specs, *world.node_specs]
    pairs = [(a, b) for a in members for b in members if a != b]
    kinds: tuple[Callable[[str, str], bool], ...] = (
        lambda a, b: (s := world.link_series(a, b)) is not None and s.round_trip_s is not None,
        lambda a, b: (s := world.link_series(a, b)) is not None and s.bytes_per_s is not None,
        lambda a, b: world.next_link_change_s(a, b, 0.0) < inf,
        lambda a, b: world.link(a, b, 0.0) is not None,
    )
    for wanted in kinds:
        for a, b in pairs:
            if wanted(a, b):
                return a, b
    return pairs[0]


def _lanes(shown: DeploymentRecord, world: World) -> list[str]:
    """Nodes that hold layers at some time, in the order in which the scenario names them."""
    used = {stage.node for _, stages in shown.plans for stage in stages}
    return [name for name in world.node_specs if name in used][:_MOST_LANES]


def _draw_plans(axes: Any, shown: DeploymentRecord, lanes: list[str], record: RunRecord) -> None:
    blocks = max((stage.layers.stop for _, stages in shown.plans for stage in stages), default=1)
    colours = matplotlib.colormaps["YlGnBu"]
    ends = [at_s for at_s, _ in shown.plans[1:]] + [record.duration_s]
    for (start_s, stages), stop_s in zip(shown.plans, ends, strict=True):
        for stage in stages:
            if stage.node not in lanes:
                continue
            lane, left = lanes.index(stage.node), max(start_s, 0.0)
            share = len(stage.layers) / blocks
            axes.barh(lane, stop_s - left, left=left, height=0.8, color=colours(0.25 + 0.5 * share), edgecolor="white")
            if stop_s - left > record.duration_s / 25:
                _write_layers(axes, (left + stop_s) / 2, lane, stage.layers, share)
    for number, change in enumerate(_changes(shown)):
        axes.axvline(change.ended_s, color=_COLOURS["adaptive"], linewidth=1.2)
        late = change.ended_s > 0.85 * record.duration_s
        axes.annotate(
            f"{change.kind.replace('_', '-')}: {change.trigger.replace('_', ' ')}",
            (change.ended_s, len(lanes) - 0.42 + 0.24 * (number % 3)),
            fontsize=7.5,
            color=_COLOURS["adaptive"],
            xytext=(-3 if late else 3, 0),
            textcoords="offset points",
            ha="right" if late else "left",
        )
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(-0.6, len(lanes) + 0.35)
    axes.set_title(
        f"where the layers were, by the {record.policy} policy, and why that changed", loc="left", fontsize=10
    )


def _write_layers(axes: Any, at_s: float, lane: int, layers: LayerRange, share: float) -> None:
    colour = "white" if share > 0.6 else "#222222"
    axes.text(at_s, lane, str(layers), ha="center", va="center", fontsize=8, color=colour)


def _draw_tokens(axes: Any, records: Sequence[RunRecord], slo: Slo, *, inside: bool) -> None:
    for record in reversed(records):
        times, values = _tpot_by_second(record.deployments[0], record.duration_s)
        main = record.policy not in _BEHIND
        axes.plot(
            times,
            values,
            color=_COLOURS[record.policy],
            linewidth=1.6 if main else 1.0,
            alpha=_BEHIND.get(record.policy, 1.0),
            linestyle="--" if record.policy == "oracle" else "-",
            label=f"{record.policy} (mean {_mean_ms(record.deployments[0]):.0f} ms)",
            marker="." if main else None,
            markersize=3,
        )
    axes.axhline(slo.tpot_ms, color="black", linestyle="-.", linewidth=1)
    axes.text(0, slo.tpot_ms, f" objective: {slo.tpot_ms:g} ms", fontsize=8, va="bottom")
    _use_log_scale(axes)
    axes.set_ylabel("time per token (ms)")
    axes.set_title("how long a token took (mean of each second in which tokens came)", loc="left", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    if inside:
        axes.legend(handles[::-1], labels[::-1], loc="upper right", fontsize=8, framealpha=0.9)
    else:
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    axes.grid(alpha=0.25)


def _tpot_by_second(shown: DeploymentRecord, duration_s: float) -> tuple[list[float], list[float]]:
    """Middle of each second, and the mean time of its tokens in ms, nan where none came; a token counts where it ends."""
    spent: dict[int, float] = {}
    tokens: dict[int, float] = {}
    for flow in shown.flows:
        second = int(flow.stop_s)
        spent[second] = spent.get(second, 0.0) + flow.tpot_s * flow.tokens
        tokens[second] = tokens.get(second, 0.0) + flow.tokens
    seconds = range(int(duration_s))
    return [s + 0.5 for s in seconds], [spent[s] / tokens[s] * 1e3 if s in tokens else nan for s in seconds]


def _mean_ms(shown: DeploymentRecord) -> float:
    tokens = sum(flow.tokens for flow in shown.flows)
    return sum(flow.tpot_s * flow.tokens for flow in shown.flows) / tokens * 1e3 if tokens else 0.0
