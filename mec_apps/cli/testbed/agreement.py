"""How far a simulation is from what was measured: rates, times and changes of plan. Pure."""

from __future__ import annotations

import statistics
from math import ceil
from typing import Any

from mec_platform.simulation.record import RunRecord

BIN_S = 1.0


def agreement(measured: RunRecord, simulated: RunRecord) -> dict[str, Any]:
    """The same figures of both, how much the simulation's differ in per cent, and when each changed its plan."""
    pairs = {
        "tokens_per_s": (tokens_per_s(measured), tokens_per_s(simulated)),
        "time_per_token_ms": (_token_ms(measured), _token_ms(simulated)),
        "first_token_ms": (_first_token_ms(measured), _first_token_ms(simulated)),
        "answers": (float(_done(measured)), float(_done(simulated))),
    }
    return {
        **{name: _compared(*pair) for name, pair in pairs.items()},
        "seconds": _by_second(measured, simulated),
        "plan_changes_s": {"measured": _changes_s(measured), "simulated": _changes_s(simulated)},
        "first_plan": {"measured": _first_plan(measured), "simulated": _first_plan(simulated)},
    }


def tokens_by_second(record: RunRecord) -> list[float]:
    """Tokens that came in each second of the run, over all deployments; those of a fluid are spread over its time."""
    counts = [0.0] * max(ceil(record.duration_s / BIN_S), 1)

    def add(start_s: float, stop_s: float, tokens: float) -> None:
        length_s = stop_s - start_s
        for number in range(max(int(start_s / BIN_S), 0), min(int(stop_s / BIN_S) + 1, len(counts))):
            begin_s, end_s = max(start_s, number * BIN_S), min(stop_s, (number + 1) * BIN_S)
            if length_s > 0 and end_s > begin_s:
                counts[number] += tokens * (end_s - begin_s) / length_s

    for deployment in record.deployments:
        for flow in deployment.flows:
            # A single token came when its time was over; a stretch of tokens came all along it.
            start_s = flow.start_s if flow.tokens > 1 else max(flow.start_s, flow.stop_s - 1e-6)
            add(start_s, flow.stop_s, flow.tokens)
        for served in deployment.served:
            if served.first_token_s is not None:
                add(served.first_token_s, served.first_token_s + 1e-6, 1.0)
    return counts


def tokens_per_s(record: RunRecord) -> float:
    """Over the length of the run; what came after it does not count."""
    return sum(tokens_by_second(record)) / record.duration_s


def _by_second(measured: RunRecord, simulated: RunRecord) -> dict[str, Any]:
    """Seconds in which nothing was measured say nothing of a deviation in per cent."""
    here, there = tokens_by_second(measured), tokens_by_second(simulated)
    off = [abs(b / a - 1) * 100 for a, b in zip(here, there, strict=True) if a > 0]
    return {
        "measured": [round(each, 1) for each in here],
        "simulated": [round(each, 1) for each in there],
        "median_deviation_percent": round(statistics.median(off), 1) if off else None,
    }


def _compared(measured: float | None, simulated: float | None) -> dict[str, float | None]:
    off = None if not measured or simulated is None else round((simulated / measured - 1) * 100, 1)
    rounded = (None if each is None else round(each, 2) for each in (measured, simulated))
    return dict(zip(("measured", "simulated"), rounded, strict=True)) | {"deviation_percent": off}


def _token_ms(record: RunRecord) -> float | None:
    flows = [flow for deployment in record.deployments for flow in deployment.flows]
    tokens = sum(flow.tokens for flow in flows)
    return sum(flow.tpot_s * flow.tokens for flow in flows) / tokens * 1e3 if tokens else None


def _first_token_ms(record: RunRecord) -> float | None:
    waits = [each.ttft_s for deployment in record.deployments for each in deployment.served if each.ttft_s is not None]
    return statistics.fmean(waits) * 1e3 if waits else None


def _done(record: RunRecord) -> int:
    return sum(each.done_s is not None for deployment in record.deployments for each in deployment.served)


def _changes_s(record: RunRecord) -> list[float]:
    return [
        round(each.ended_s, 1)
        for deployment in record.deployments
        for each in deployment.reconfigurations
        if each.outcome == "committed" and each.kind != "initial" and each.ended_s > 0
    ]


def _first_plan(record: RunRecord) -> str:
    plans = [stages for deployment in record.deployments for _, stages in deployment.plans[:1]]
    return "; ".join(" -> ".join(f"{stage.node} {stage.layers}" for stage in stages) for stages in plans)
