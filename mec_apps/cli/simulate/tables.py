"""What `mec simulate` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from mec_apps.cli.tables import print_table

_REASON = 150
"""Characters of a reason that are printed; --json has all of it."""


def print_summaries(result: Mapping[str, Any]) -> None:
    """Policies side by side, what adaptation did and why, and the criteria."""
    click.echo(f"{result['scenario']}: {result['duration_s']:.0f} s, seed {result['seed']}\n")
    headings = ["policy", "SLO kept", "missed", "TPOT mean", "p95", "p99", "TTFT mean", "p95", "p99", "tokens"]
    headings += ["changes", "pause", "KV moved", "busiest node", "exposed"]
    print_table(headings, [_row(name, summary) for name, summary in result["policies"].items()])
    for name, summary in result["policies"].items():
        changes = [(each, change) for each, d in summary["deployments"].items() for change in d["changes"]]
        if name in ("adaptive", "oracle") and len(changes) <= 40:
            click.echo(f"\n{name}:")
            for each, change in changes:
                where = f"{each}: " if len(summary["deployments"]) > 1 else ""
                outcome = "" if change["outcome"] == "committed" else f" ({change['outcome']})"
                reason = _shortened(change["reason"])
                click.echo(f"  {change['at_s']:7.1f} s  {where}{change['kind']}{outcome}: {reason}; {change['plan']}")
    _print_forecast(result["policies"].get("adaptive"))
    click.echo("")
    if result["room"] is not None:
        click.echo(
            f"what there was to win: the oracle's tokens come {result['room']:.2f} times as fast as the best single plan's"
        )
    for criterion in result["criteria"]:
        verdict = "ok" if criterion["ok"] else "MISSED"
        click.echo(f"{criterion['name']:48} {criterion['value']:.4g}  (bound {criterion['bound']:g})  {verdict}")


def _row(name: str, summary: Mapping[str, Any]) -> list[str]:
    tpot, ttft = summary["tpot_ms"], summary["ttft_ms"]
    busiest = max(summary["utilisation"].items(), key=lambda each: each[1], default=("none", 0.0))
    return [
        name,
        f"{summary['slo_attainment']:.1%}",
        f"{summary['slo_misses']} of {summary['requests']}",
        *(f"{tpot[each]:.1f} ms" for each in ("mean", "p95", "p99")),
        *(f"{ttft[each]:.0f} ms" for each in ("mean", "p95", "p99")),
        f"{summary['tokens']}",
        f"{summary['reconfigurations']}",
        f"{summary['pause_s']:.2f} s",
        f"{summary['moved_bytes'] / 1e6:.1f} MB",
        f"{busiest[0]} {busiest[1]:.0%}",
        f"{summary['exposed_s']:.1f} s",
    ]


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _REASON else f"{reason[: _REASON - 1]}\N{HORIZONTAL ELLIPSIS}"


def _print_forecast(summary: Mapping[str, Any] | None) -> None:
    forecast = {} if summary is None else summary["forecast"]
    if forecast.get("count"):
        click.echo(
            f"\nforecasts of round trips: {forecast['count']:.0f}, median error {forecast['error_median']:.1%} "
            f"(expecting no change: {forecast['unchanged_error_median']:.1%}), 95th percentile "
            f"{forecast['error_p95']:.0%} ({forecast['unchanged_error_p95']:.0%})"
        )
