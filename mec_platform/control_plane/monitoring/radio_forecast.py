"""What radio measurements say of the near future of a UE's link. Pure.

For each UE: the trend of its signal (Theil and Sen's slope, which a third of wild points does not turn), what signal has
meant for its round trip in this cell (`signal_map`), and at which power it left cells before. Several ways to foretell the
round trip are tried side by side, from "as the latest" to "as the signal will be"; all are scored against what came, and
the one that was right most lately speaks.

The error of what was told and that of naive persistence (the latest value, taken for the future) are kept side by side,
for round trips and for the signal. Confidence is the part by which the former is smaller: where forecasts do no better
than persistence, it is 0. It is that of the strongest claim: of a break, how often one that was foreseen has come; else
of a rate that changes, how right the signal was foretold; else of the round trip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log2
from statistics import median
from typing import NamedTuple

from mec_platform.control_plane.monitoring.settings import RadioSettings
from mec_platform.control_plane.monitoring.signal_map import SignalMap
from mec_platform.domain.capacity import LinkCapacity, LinkForecast
from mec_platform.domain.radio import RadioMeasurement

WAYS = (
    "as the latest",
    "as the last second",
    "as the last seconds",
    "by SINR",
    "by RSRP",
    "by the trend of round trips",
)
"""How a round trip can be foretold; `_foretell` gives them in this order."""

_LATEST = 0
_TRIED_EVERY_S = 0.1
_SURE_AFTER = 20
"""Forecasts that have to come due before their record counts for half."""

_LEFT_CELLS = 5
_MAPPED_CELLS = 16
_BREAKS_KEPT = 10
_SILENT_S = 1.0
"""A UE that is not heard of for so long has lost its cell, or was handed over with a gap."""

_SAME_RATE = 0.1
_FASTER_AT_MOST = 2.0
_SLOWER_AT_MOST = 0.1


class Signal(NamedTuple):
    """What was received at one time."""

    at_s: float
    rsrp_dbm: float
    sinr_db: float


class Trial(NamedTuple):
    """A forecast that is not due yet: values in every way, and which way was told."""

    due_s: float
    values: tuple[float, ...]
    told: int


@dataclass(frozen=True, slots=True)
class Record:
    """Mean absolute errors of each way and of what was told, with the past forgotten by halves. The first way is to take
    the latest for the future."""

    ways: tuple[float, ...] = ()
    told: float = 0.0
    weight: float = 0.0
    count: int = 0
    at_s: float = 0.0

    @property
    def persistence(self) -> float:
        """What taking the latest for the future would have been wrong by."""
        return self.ways[_LATEST] if self.ways else 0.0

    @property
    def confidence(self) -> float:
        """In [0, 1]: the part of persistence's error that forecasts have lately saved; 0 without any record."""
        if self.persistence <= 0:
            return 0.0
        saved = max(0.0, 1.0 - self.told / self.persistence)
        return round(saved * self.count / (self.count + _SURE_AFTER), 3)


class Breaks(NamedTuple):
    """How breaks that were foreseen turned out, the latest last, and the one that is expected by `due_s`."""

    came: tuple[bool, ...] = ()
    due_s: float | None = None

    @property
    def confidence(self) -> float:
        """The share that came. It begins at two thirds: who falls to the edge of a cell leaves it, or loses it."""
        return round((sum(self.came) + 2) / (len(self.came) + 3), 3)


@dataclass(frozen=True, slots=True)
class RadioForecast:
    """A UE's round trip `after_s` from `at_s`, beside that of now, and the factor by which its rate will change."""

    at_s: float
    after_s: float
    round_trip_s: float
    now_round_trip_s: float
    rate_factor: float
    confidence: float
    reason: str
    breaks_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class UeState:
    """What is known of one UE. `left_dbm` are the powers at which it left cells, the latest last."""

    cell: str
    signals: tuple[Signal, ...] = ()
    trips: tuple[tuple[float, float], ...] = ()  # when known, and round trip
    by_sinr: Mapping[str, SignalMap] = field(default_factory=dict)
    by_rsrp: Mapping[str, SignalMap] = field(default_factory=dict)
    left_dbm: tuple[float, ...] = ()
    trials: tuple[Trial, ...] = ()
    record: Record = Record()
    signal_trials: tuple[Trial, ...] = ()
    signal_record: Record = Record()
    breaks: Breaks = field(default_factory=Breaks)
    forecast: RadioForecast | None = None


@dataclass(frozen=True, slots=True)
class RadioState:
    """All UEs by name."""

    ues: Mapping[str, UeState] = field(default_factory=dict)


def observe_radio(state: RadioState, measurement: RadioMeasurement, settings: RadioSettings) -> RadioState:
    """Takes one measurement in; one that is older than the UE's latest changes nothing."""
    before = state.ues.get(measurement.ue, UeState(measurement.cell))
    if before.signals and measurement.at_s < before.signals[-1].at_s:
        return state
    after = _with_signal(_with_due_breaks(before, measurement, settings), measurement, settings)
    if measurement.round_trip_s is not None and measurement.round_trip_s > 0:
        after = _with_round_trip(after, measurement, measurement.round_trip_s, settings)
    after = _with_forecast(after, measurement, settings)
    others: Mapping[str, UeState] = state.ues
    if measurement.ue not in state.ues:  # names come and go
        oldest_s = measurement.at_s - settings.forget_after_s
        others = {name: ue for name, ue in state.ues.items() if ue.signals[-1].at_s >= oldest_s}
    return RadioState({**others, measurement.ue: after})


def forecast_link(
    link: LinkCapacity, ues: Sequence[str], state: RadioState, now_s: float, settings: RadioSettings
) -> LinkForecast | None:
    """What becomes of a link whose ends are behind these UEs; None where none of them has been heard of lately."""
    known = [state.ues[ue].forecast for ue in ues if ue in state.ues]
    forecasts = [f for f in known if f is not None and now_s - f.at_s <= settings.stale_s]
    if not forecasts:
        return None
    rate, round_trip_s = link.bytes_per_s, link.round_trip_s
    for forecast in forecasts:
        rate *= forecast.rate_factor
        round_trip_s += forecast.round_trip_s - forecast.now_round_trip_s
    breaks = [f.breaks_in_s - (now_s - f.at_s) for f in forecasts if f.breaks_in_s is not None]
    return LinkForecast(
        after_s=settings.after_s,
        bytes_per_s=rate,
        round_trip_s=max(round_trip_s, link.round_trip_s * _SLOWER_AT_MOST),
        confidence=min(forecast.confidence for forecast in forecasts),
        reason="; ".join(forecast.reason for forecast in forecasts),
        breaks_in_s=max(0.0, min(breaks)) if breaks else None,
    )


def _with_due_breaks(before: UeState, measurement: RadioMeasurement, settings: RadioSettings) -> UeState:
    """A break has come where the UE is in another cell, or was not heard of for a while; it has not where neither is."""
    if not before.signals:
        return before
    broke = measurement.cell != before.cell or measurement.at_s - before.signals[-1].at_s > _SILENT_S
    due_s, came = before.breaks.due_s, before.breaks.came
    if due_s is None or not (broke or measurement.at_s > due_s):
        return before
    return replace(before, breaks=Breaks((*came, broke)[-_BREAKS_KEPT:]))


def _with_signal(before: UeState, measurement: RadioMeasurement, settings: RadioSettings) -> UeState:
    """Signals of the present cell within the window of trends."""
    now = Signal(measurement.at_s, measurement.rsrp_dbm, measurement.sinr_db)
    if measurement.cell != before.cell and before.signals:
        last_second = [s.rsrp_dbm for s in before.signals if s.at_s >= before.signals[-1].at_s - 1.0]
        left = (*before.left_dbm, median(last_second))[-_LEFT_CELLS:]
        return replace(before, cell=measurement.cell, signals=(now,), left_dbm=left, signal_trials=())
    kept = tuple(s for s in before.signals if s.at_s >= measurement.at_s - settings.trend_s)
    due = [trial for trial in before.signal_trials if trial.due_s <= measurement.at_s]
    record = before.signal_record
    for trial in due:
        record = _score(record, trial, measurement.sinr_db, settings)
    return replace(before, signals=(*kept, now), signal_trials=before.signal_trials[len(due) :], signal_record=record)


def _with_round_trip(
    before: UeState, measurement: RadioMeasurement, round_trip_s: float, settings: RadioSettings
) -> UeState:
    oldest_s = measurement.at_s - settings.slow_level_s
    kept = tuple(trip for trip in before.trips if trip[0] >= oldest_s)
    cell = measurement.cell
    # A round trip belongs to the time it began at: it is known only when it is over.
    sent_s = measurement.at_s - round_trip_s
    due = [trial for trial in before.trials if trial.due_s <= sent_s]
    record = before.record
    for trial in due:
        record = _score(record, trial, round_trip_s, settings)
    return replace(
        before,
        trips=(*kept, (measurement.at_s, round_trip_s)),
        by_sinr=_learn(before.by_sinr, cell, measurement.sinr_db, round_trip_s),
        by_rsrp=_learn(before.by_rsrp, cell, measurement.rsrp_dbm, round_trip_s),
        trials=before.trials[len(due) :],
        record=record,
    )


def _learn(maps: Mapping[str, SignalMap], cell: str, signal_db: float, round_trip_s: float) -> Mapping[str, SignalMap]:
    """The maps of the cells that the UE was in lately, this one last."""
    learned = maps.get(cell, SignalMap()).learn(signal_db, round_trip_s)
    others = [(name, known) for name, known in maps.items() if name != cell]
    return {**dict(others[1 - _MAPPED_CELLS :]), cell: learned}


def _score(record: Record, trial: Trial, came: float, settings: RadioSettings) -> Record:
    errors = [abs(foretold - came) for foretold in trial.values]
    passed_s = trial.due_s - record.at_s if record.count else 0.0
    kept = record.weight * float(0.5 ** (max(passed_s, 0.0) / settings.error_half_life_s))
    weight = kept + 1.0

    def blend(mean: float, error: float) -> float:
        return (kept * mean + error) / weight

    means = record.ways or (0.0,) * len(errors)
    return Record(
        ways=tuple(blend(mean, error) for mean, error in zip(means, errors, strict=True)),
        told=blend(record.told, errors[trial.told]),
        weight=weight,
        count=record.count + 1,
        at_s=trial.due_s,
    )


def _with_forecast(ue: UeState, measurement: RadioMeasurement, settings: RadioSettings) -> UeState:
    now_s, after_s = measurement.at_s, settings.after_s
    points = ue.signals[:: max(1, len(ue.signals) // settings.trend_points)]
    rsrp_slope = _slope([(s.at_s, s.rsrp_dbm) for s in points])
    sinr_slope = _slope([(s.at_s, s.sinr_db) for s in points])
    rsrp, sinr = (median(values) for values in zip(*(s[1:] for s in ue.signals[-_RECENT:]), strict=True))
    ahead = (sinr + sinr_slope * after_s, rsrp + rsrp_slope * after_s)
    breaks_in_s, why = _foresee_break(ue, rsrp, rsrp_slope, settings)
    rate_factor = max(_SLOWER_AT_MOST, min(_FASTER_AT_MOST, _spectral(ahead[0]) / _spectral(sinr)))
    breaks = ue.breaks
    if breaks_in_s is not None and breaks.due_s is None:
        # A straight line is wrong by as much again; who is not gone by then was not going.
        breaks = breaks._replace(due_s=now_s + 2 * breaks_in_s + after_s)
    foretold = _foretell(ue, (sinr, rsrp), ahead, settings)
    ways = ue.record.ways or (0.0,) * len(WAYS)
    way = min(range(len(WAYS)), key=lambda number: ways[number])
    claims = [f"round trip {WAYS[way]}"] if foretold else []
    forecast = RadioForecast(
        at_s=now_s,
        after_s=after_s,
        round_trip_s=foretold[way] if foretold else 0.0,
        now_round_trip_s=foretold[1] if foretold else 0.0,
        rate_factor=rate_factor,
        confidence=_confidence(ue, rate_factor, breaks_in_s),
        reason=f"{measurement.ue}: {', '.join([*claims, why])}",
        breaks_in_s=breaks_in_s,
    )
    due_s = now_s + after_s
    return replace(
        ue,
        breaks=breaks,
        trials=_with_trial(ue.trials, Trial(due_s, foretold, way)) if foretold else ue.trials,
        signal_trials=_with_trial(ue.signal_trials, Trial(due_s, (measurement.sinr_db, ahead[0]), 1)),
        forecast=forecast,
    )


def _with_trial(trials: tuple[Trial, ...], trial: Trial) -> tuple[Trial, ...]:
    """Forecasts of one tenth of a second are one: their errors would all be the same."""
    return trials if trials and trial.due_s - trials[-1].due_s < _TRIED_EVERY_S else (*trials, trial)


def _confidence(ue: UeState, rate_factor: float, breaks_in_s: float | None) -> float:
    if breaks_in_s is not None:
        return ue.breaks.confidence
    if abs(rate_factor - 1.0) > _SAME_RATE:
        return ue.signal_record.confidence
    return ue.record.confidence


_RECENT = 5
"""Signals that make the present one: whole decibels are reported, and they waver."""


def _foretell(
    ue: UeState, now: tuple[float, float], ahead: tuple[float, float], settings: RadioSettings
) -> tuple[float, ...]:
    """The round trip in every one of WAYS, in seconds; () where none was measured lately."""
    if not ue.trips:
        return ()
    last_s = ue.trips[-1][0]
    recent = [trip for at_s, trip in ue.trips if at_s > last_s - settings.level_s]
    level_s = median(recent)
    earlier = [trip for at_s, trip in ue.trips if last_s - 2 * settings.level_s < at_s <= last_s - settings.level_s]
    rise_s = (level_s - median(earlier)) / settings.level_s if earlier else 0.0
    maps = (ue.by_sinr.get(ue.cell), ue.by_rsrp.get(ue.cell))
    by_signal = [
        level_s + _difference(known, before, after) for known, before, after in zip(maps, now, ahead, strict=True)
    ]
    ways = (
        ue.trips[-1][1],
        level_s,
        median([trip for _, trip in ue.trips]),
        *by_signal,
        level_s + rise_s * settings.after_s,
    )
    return tuple(max(way, 0.0) for way in ways)


def _difference(known: SignalMap | None, before_db: float, after_db: float) -> float:
    """By how much the round trip changes with the signal, as far as the map has seen such signals."""
    if known is None:
        return 0.0
    before_s, after_s = known.round_trip_s(before_db), known.round_trip_s(after_db)
    return 0.0 if before_s is None or after_s is None else after_s - before_s


def _foresee_break(ue: UeState, rsrp: float, slope: float, settings: RadioSettings) -> tuple[float | None, str]:
    """When the UE is expected to leave its cell, or lose it, and the signal in words."""
    edge = median(ue.left_dbm) if ue.left_dbm else settings.weakest_rsrp_dbm
    words = f"RSRP {rsrp:.0f} dBm {slope:+.1f} dB/s"
    if slope > -settings.falling_db_per_s:
        return None, words
    left_s = max(0.0, (rsrp - edge) / -slope)
    if left_s > settings.break_horizon_s:
        return None, words
    where = "where it left cells before" if ue.left_dbm else "the edge of a cell"
    return left_s, f"{words}, {where} ({edge:.0f} dBm) in {left_s:.1f} s"


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs; 0 where there are fewer than three points."""
    if len(points) < _FEWEST:
        return 0.0
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else 0.0


_FEWEST = 3


def _spectral(sinr_db: float) -> float:
    """Bits per second and hertz that a signal can carry (Shannon 1948); the rate of a link goes with it."""
    return log2(1.0 + 10.0 ** (sinr_db / 10.0))
