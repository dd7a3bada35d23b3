"""What testbed runs showed: as numbers, as a table, and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from mec_apps.cli.requests import CliError
from mec_apps.cli.testbed.run import Measured
from mec_apps.cli.testbed.timeline import CpuShare, LinkRate, NodeKilled, NodeStarted
from mec_platform.rpc.convert import plan_from_message

COLOURS = {True: "#1b7f5c", False: "#b5482f"}
"""Of runs, by whether they adapt."""

BIN_S = 1.0
SMOOTH_S = 10.0
"""Answers to long questions come in bursts: rates are drawn as means of so many seconds."""


def summary(runs: Sequence[Measured], after_s: float) -> dict[str, Any]:
    """Plain data; `after_s` is when the trouble was there in full."""
    return {"runs": [_of_run(run, after_s) for run in runs]}


def _of_run(run: Measured, after_s: float) -> dict[str, Any]:
    times = np.array(run.tokens_s)
    gaps_ms = np.array(run.gaps_s or [0.0]) * 1e3
    return {
        "adaptive": run.adaptive,
        "tokens": len(times),
        "tokens_per_s": round(len(times) / run.duration_s, 1),
        "tokens_per_s_before": round(float((times < after_s).sum()) / after_s, 1),
        "tokens_per_s_after": round(float((times >= after_s).sum()) / (run.duration_s - after_s), 1),
        "token_gap_ms": {f"p{p}": round(float(np.percentile(gaps_ms, p)), 2) for p in (50, 95, 99)},
        "longest_gap_ms": round(float(gaps_ms.max()), 1),
        "requests": len(run.requests),
        "first_token_ms_before": _first_token_ms(run, 0.0, after_s),
        "first_token_ms_after": _first_token_ms(run, after_s, run.duration_s),
        "broken_answers": [
            {"at_s": round(asked.at_s, 2), "reason": asked.failure} for asked in run.requests if asked.failure
        ],
        "first_plan": run.plans[0][1].describe() if run.plans else "",
        "reconfigurations": [
            {
                "at_s": round(at_s, 2),
                "kind": done.kind,
                "reason": done.reason,
                "outcome": done.outcome,
                "plan": plan_from_message(done.plan).describe(),
                "pause_ms": round(done.pause_ms_max, 1),
                "moved_bytes": done.moved_bytes,
                "replayed_tokens": done.replayed_tokens,
            }
            for at_s, done in run.reconfigurations
        ],
        "tokens_each_s": _rates(run).tolist(),
    }


def table(runs: Sequence[Measured], after_s: float) -> str:
    """Lines for a terminal."""
    lines = []
    for run in runs:
        facts = _of_run(run, after_s)
        lines.append(
            f"{'with' if run.adaptive else 'without'} adaptation: {facts['tokens_per_s_before']:g} tokens/s before "
            f"{after_s:g} s, {facts['tokens_per_s_after']:g} after; gap p99 {facts['token_gap_ms']['p99']:g} ms; "
            f"first token {facts['first_token_ms_before']:g} ms before, {facts['first_token_ms_after']:g} after (median); "
            f"{len(facts['broken_answers'])} answers broke off; first plan {facts['first_plan']}"
        )
        lines += [
            f"  {done['at_s']:6.1f} s  {done['kind']} ({done['outcome']}): {done['reason']}; pause {done['pause_ms']:g} ms"
            for done in facts["reconfigurations"]
        ]
    return "\n".join(lines)


def figure(runs: Sequence[Measured], path: Path, title: str) -> None:
    """Tokens per second and waits for first tokens over time, with and without adaptation, below the rates of the links
    that changed.

    Raises:
        CliError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # only whoever draws needs it; `check_figure` has looked

    changed = [(run, link) for run in runs for link in _changed_links(run).items()]
    drawing = Figure(figsize=(9, 7.5 if changed else 5.5), layout="constrained")
    drawing.suptitle(title)
    ratios = [*([1] if changed else []), 1.7, 1.5]
    panels = drawing.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    if changed:
        for run, ((source, target), points) in changed:
            label = f"{source} → {target} {_label(run)}"
            style = "-" if run.adaptive else "--"
            panels[0].step(
                *zip(*points, strict=True), where="post", label=label, color=COLOURS[run.adaptive], linestyle=style
            )
        panels[0].set(yscale="log", ylabel="Mbit/s")
        panels[0].legend(fontsize=8)
    tokens, waits = panels[-2:]
    for at_s, words in _events(runs[0]):
        tokens.axvline(at_s, color="grey", linewidth=1)
        _write(tokens, words, (at_s, 1), ("data", "axes fraction"), -10)
    for run in runs:
        _draw_run(tokens, waits, run, COLOURS[run.adaptive])
    tokens.set(ylabel=f"tokens/s (mean of {SMOOTH_S:g} s)", ylim=(0, None), xlim=(0, runs[0].duration_s))
    tokens.legend(loc="lower left", fontsize=8)
    waits.set(xlabel="s", ylabel="time to first token (s)", ylim=(0, None))
    try:
        drawing.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise CliError(f"{path} cannot be written: {error}") from error


def _draw_run(tokens: Any, waits: Any, run: Measured, colour: str) -> None:
    label = _label(run)
    smooth = np.convolve(_rates(run), np.ones(int(SMOOTH_S / BIN_S)) / (SMOOTH_S / BIN_S), mode="valid")
    times = np.arange(len(smooth)) * BIN_S + SMOOTH_S / 2
    tokens.plot(times, smooth, color=colour, label=label)
    came = [(asked.at_s, asked.came_s[0] - asked.at_s) for asked in run.requests if asked.came_s]
    waits.plot(*zip(*came, strict=True) if came else ((), ()), color=colour, marker=".", linestyle="none")
    for at_s, done in run.reconfigurations:
        if done.outcome == "committed":
            for axes in (tokens, waits):
                axes.axvline(at_s, color=colour, linestyle=":", linewidth=1)
            _write(tokens, done.kind.replace("_", "-"), (at_s, 0), "data", 4)


def _label(run: Measured) -> str:
    return "with adaptation" if run.adaptive else "plan left as it is"


def _write(axes: Any, words: str, at: tuple[float, float], coordinates: Any, above: int) -> None:
    axes.annotate(words, at, xycoords=coordinates, xytext=(3, above), textcoords="offset points", fontsize=8)


def _first_token_ms(run: Measured, start_s: float, stop_s: float) -> float | None:
    """Median over the requests of that time; one without a token has waited for as long as the run went on. None without any."""
    waits = [
        (asked.came_s[0] if asked.came_s else run.duration_s) - asked.at_s
        for asked in run.requests
        if start_s <= asked.at_s < stop_s
    ]
    return round(float(np.median(waits)) * 1e3, 1) if waits else None


def _rates(run: Measured) -> np.ndarray[Any, Any]:
    edges = np.arange(0, run.duration_s + BIN_S, BIN_S)
    return np.histogram(run.tokens_s, edges)[0] / BIN_S


def _changed_links(run: Measured) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Mbit/s over time of the links whose rate changed, one direction of each."""
    rates = [change for change in run.changes if isinstance(change, LinkRate)]
    changed = {tuple(sorted((rate.source, rate.target))) for rate in rates if rate.at_s > 0}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for rate in rates:
        if tuple(sorted((rate.source, rate.target))) in changed and rate.source < rate.target:
            found.setdefault((rate.source, rate.target), []).append((rate.at_s, rate.bytes_per_s * 8 / 1e6))
    for points in found.values():
        points.append((run.duration_s, points[-1][1]))
    return found


def _events(run: Measured) -> Iterator[tuple[float, str]]:
    for change in run.changes:
        match change:
            case CpuShare():
                yield change.at_s, f"{change.node} has {change.share:.0%} of its CPU"
            case NodeKilled():
                yield change.at_s, f"{change.node} is killed"
            case NodeStarted():
                yield change.at_s, f"{change.node} is back"
            case LinkRate():
                pass
            case _:
                assert_never(change)
