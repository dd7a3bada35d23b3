"""How right radio forecasts are on measured round trips, against naive persistence: `mec bench forecast`.

Every measurement is taken in when its round trip was over, as it would be live; every forecast is held against the first
round trip that began when it was due. Error is the mean of absolute differences over the whole file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mec_platform.control_plane.monitoring.radio_forecast import RadioState, observe_radio
from mec_platform.control_plane.monitoring.settings import RadioSettings
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.traces.radio import read_radio_trace

TRACES = Path(os.environ.get("MEC_RADIO_TRACES", Path(__file__).resolve().parents[3] / "shared/traces/cicv5g-rtt"))
"""Where the files of the CICV5G data set are; files that are not there are skipped."""

LITTLE = 0.1
"""Decisions believe forecasts from 0.6 on."""


def evaluate(measurements: Sequence[RadioMeasurement], settings: RadioSettings) -> dict[str, float]:
    """Mean absolute errors in milliseconds of what was told, of the latest round trip and of the last second's median."""
    known = sorted(
        (replace(each, at_s=each.at_s + (each.round_trip_s or 0.0)) for each in measurements), key=lambda m: m.at_s
    )
    sent = [(each.at_s, each.round_trip_s) for each in measurements if each.round_trip_s]
    state, told, latest, level, sure, index = RadioState(), [], [], [], [], 0
    recent: list[tuple[float, float]] = []
    for each in known:
        state = observe_radio(state, each, settings)
        forecast = state.ues[each.ue].forecast
        if forecast is None or each.round_trip_s is None:
            continue
        recent = [*(r for r in recent if r[0] > each.at_s - settings.level_s), (each.at_s, each.round_trip_s)]
        while index < len(sent) and sent[index][0] < each.at_s + settings.after_s:
            index += 1
        if index == len(sent):
            break
        came = sent[index][1]
        told.append(abs(forecast.round_trip_s - came))
        latest.append(abs(each.round_trip_s - came))
        level.append(abs(median(r[1] for r in recent) - came))
        sure.append(state.ues[each.ue].record.confidence)
    return {
        "forecasts": len(told),
        "forecast_ms": fmean(told) * 1e3,
        "persistence_ms": fmean(latest) * 1e3,
        "last_second_ms": fmean(level) * 1e3,
        "confidence": fmean(sure),
    }


def run(folder: Path | None = None, after_s: float | None = None) -> dict[str, Any]:
    """Every trace of the folder, by file.

    The criterion is honesty: forecasts that do no better than persistence must not claim more than a little confidence.
    """
    settings = RadioSettings() if after_s is None else RadioSettings(after_s=after_s)
    files = sorted((folder or TRACES).glob("*.txt"))
    traces = {path.name: evaluate(read_radio_trace(path), settings) for path in files}
    worse = [each for each in traces.values() if each["forecast_ms"] >= each["persistence_ms"]]
    return {
        "after_s": settings.after_s,
        "traces": traces,
        "metrics": {"traces": len(traces), "traces_better_than_persistence": len(traces) - len(worse)},
        "criteria": [
            {
                "name": "confidence_where_no_better_than_persistence",
                "value": max((each["confidence"] for each in worse), default=0.0),
                "bound": LITTLE,
                "ok": all(each["confidence"] <= LITTLE for each in worse),
            }
        ],
    }
