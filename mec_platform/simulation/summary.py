"""Figures of a run, and the criteria that runs of several policies are held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mec_platform.simulation.record import DeploymentRecord, RunRecord
from mec_platform.simulation.requests import Slo

QUANTILES = (50, 95, 99)

# What adaptation is asked for where there is something to win, and how much it may cost where there is not.
LEAST_GAIN, MOST_MISSES, MOST_OVER_ORACLE, MOST_LOSS = 1.4, 0.5, 1.15, 1.03


def summarise(record: RunRecord, slos: Mapping[str, Slo]) -> dict[str, Any]:
    """One policy: over all deployments, and each of them."""
    each = {
        deployment.name: _deployment(deployment, record, slos[deployment.name]) for deployment in record.deployments
    }
    flows = [flow for deployment in record.deployments for flow in deployment.flows]
    late = [slos[d.name].tpot_ms / 1e3 for d in record.deployments for _ in d.flows]
    served = [(one, slos[d.name]) for d in record.deployments for one in d.served]
    tokens = sum(flow.tokens for flow in flows)
    missed = sum(not one.keeps(slo) for one, slo in served)
    return {
        "requests": len(served),
        "unfinished": sum(one.done_s is None for one, _ in served),
        "slo_attainment": 1.0 if not served else 1 - missed / len(served),
        "slo_misses": missed,
        "late_token_share": sum(f.tokens for f, bound in zip(flows, late, strict=True) if f.tpot_s > bound)
        / max(tokens, 1e-9),
        "ttft_ms": _distribution((_ttft_s(one, record.ended_s) * 1e3, 1.0) for one, _ in served),
        "tpot_ms": _distribution((flow.tpot_s * 1e3, flow.tokens) for flow in flows),
        "tokens": round(tokens),
        "reconfigurations": sum(one["reconfigurations"] for one in each.values()),
        "moved_bytes": sum(one["moved_bytes"] for one in each.values()),
        "weights_bytes": sum(one["weights_bytes"] for one in each.values()),
        "pause_s": sum(one["pause_s"] for one in each.values()),
        "utilisation": {node: busy / max(record.ended_s, 1e-9) for node, busy in sorted(record.busy_s.items())},
        "trust_violations": sum(len(d.violations) for d in record.deployments),
        "exposed_s": sum(d.exposed_s for d in record.deployments),
        "forecast": _forecasts([one for d in record.deployments for one in d.forecasts]),
        "deployments": each,
    }


def criteria(summaries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """Of the adaptive policy against those that ran with it, in the form that benchmarks use."""
    found: list[dict[str, object]] = []
    adaptive = summaries.get("adaptive")
    if adaptive is None:
        return found
    own = adaptive["tpot_ms"]["mean"]
    static, oracle = summaries.get("static-best"), summaries.get("oracle")
    if static is not None:
        ratio = static["tpot_ms"]["mean"] / own
        found.append(_at_least("tpot_static_best_over_adaptive", ratio, LEAST_GAIN))
        found.append(_at_most("tpot_adaptive_over_static_best", 1 / ratio, MOST_LOSS))
        misses = (
            adaptive["slo_misses"] / static["slo_misses"] if static["slo_misses"] else float(adaptive["slo_misses"])
        )
        found.append(_at_most("slo_misses_adaptive_over_static_best", misses, MOST_MISSES))
    if oracle is not None:
        found.append(_at_most("tpot_adaptive_over_oracle", own / oracle["tpot_ms"]["mean"], MOST_OVER_ORACLE))
    found.append(_at_most("trust_violations", float(sum(s["trust_violations"] for s in summaries.values())), 0.0))
    return found


def room(summaries: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How many times faster than the best single plan one could be at all: what there was to win in this world."""
    static, oracle = summaries.get("static-best"), summaries.get("oracle")
    if static is None or oracle is None:
        return None
    return float(static["tpot_ms"]["mean"] / oracle["tpot_ms"]["mean"])


def weighted_quantile(samples: Sequence[tuple[float, float]], percent: float) -> float:
    """The value below which so many percent of the weight lie; samples are (value, weight) in order."""
    wanted, sum_so_far = sum(weight for _, weight in samples) * percent / 100, 0.0
    for value, weight in samples:
        sum_so_far += weight
        if sum_so_far >= wanted:
            return value
    return samples[-1][0]


def _deployment(deployment: DeploymentRecord, record: RunRecord, slo: Slo) -> dict[str, Any]:
    done = [each for each in deployment.reconfigurations if each.outcome == "committed"]
    served = deployment.served
    return {
        "slo": {"ttft_ms": slo.ttft_ms, "tpot_ms": slo.tpot_ms},
        "requests": len(served),
        "slo_attainment": 1.0 if not served else sum(one.keeps(slo) for one in served) / len(served),
        "ttft_ms": _distribution((_ttft_s(one, record.ended_s) * 1e3, 1.0) for one in served),
        "tpot_ms": _distribution((flow.tpot_s * 1e3, flow.tokens) for flow in deployment.flows),
        "reconfigurations": sum(each.kind != "initial" for each in done),
        "by_trigger": dict(sorted(Counter(each.trigger for each in done).items())),
        "aborted": len(deployment.reconfigurations) - len(done),
        "moved_bytes": sum(each.moved_bytes for each in done),
        "weights_bytes": sum(each.weights_bytes for each in done),
        "pause_s": sum(each.pause_s for each in done if each.kind != "initial"),
        "violations": list(deployment.violations),
        "changes": [
            {
                "at_s": each.decided_s,
                "kind": each.kind,
                "trigger": each.trigger,
                "reason": each.reason,
                "outcome": each.outcome,
                "took_s": each.ended_s - each.decided_s,
                "pause_s": each.pause_s,
                "plan": " -> ".join(f"{stage.node} {stage.layers}" for stage in each.stages),
            }
            for each in deployment.reconfigurations
        ],
    }


def _ttft_s(served: Any, ended_s: float) -> float:
    """Of a request that got no token, as long as it has waited."""
    return float(ended_s - served.request.at_s if served.ttft_s is None else served.ttft_s)


def _distribution(samples: Iterable[tuple[float, float]]) -> dict[str, float]:
    ordered = sorted(samples)
    weight = sum(each for _, each in ordered)
    if weight <= 0:
        return {"mean": 0.0, **{f"p{percent}": 0.0 for percent in QUANTILES}}
    mean = sum(value * each for value, each in ordered) / weight
    return {"mean": mean, **{f"p{percent}": weighted_quantile(ordered, percent) for percent in QUANTILES}}


def _forecasts(found: Sequence[Any]) -> dict[str, float]:
    """Median relative error of forecasts of round trips, and of expecting no change."""
    if not found:
        return {"count": 0.0}
    errors = sorted((abs(one.forecast_s - one.came_s) / max(one.came_s, 1e-4), 1.0) for one in found)
    unchanged = sorted((abs(one.unchanged_s - one.came_s) / max(one.came_s, 1e-4), 1.0) for one in found)
    return {
        "count": float(len(found)),
        "error_median": weighted_quantile(errors, 50),
        "error_p95": weighted_quantile(errors, 95),
        "unchanged_error_median": weighted_quantile(unchanged, 50),
        "unchanged_error_p95": weighted_quantile(unchanged, 95),
    }


def _at_least(name: str, value: float, bound: float) -> dict[str, object]:
    return {"name": name, "value": value, "bound": bound, "ok": value >= bound}


def _at_most(name: str, value: float, bound: float) -> dict[str, object]:
    return {"name": name, "value": value, "bound": bound, "ok": value <= bound}
