"""Makes a world of a scenario: reads its traces, or those given instead. The only part of the simulator that reads files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from mec_platform.scenario.scenario import GIVEN_TRACE, LinkSpec, Scenario, ScenarioError, read_scenario
from mec_platform.simulation.series import Series
from mec_platform.simulation.world import LinkSeries, World
from mec_platform.traces.arrivals import Arrival, read_arrival_trace
from mec_platform.traces.bandwidth import read_bandwidth_trace
from mec_platform.traces.radio import read_radio_trace

_WORLDS = Path(__file__).resolve().parents[1] / "scenario" / "worlds"
BUILT_IN = tuple(sorted(path.stem for path in _WORLDS.glob("*.toml")))
"""Scenarios that come with the product, by name."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Traces that take the place of the scenario's; `speedup` and `bandwidth_scale` that of its numbers."""

    radio: Path | None = None
    bandwidth: Path | None = None
    arrivals: Path | None = None
    speedup: float | None = None
    bandwidth_scale: float | None = None


@dataclass(frozen=True, slots=True)
class LoadedWorld:
    """A world with the requests' traces by deployment."""

    world: World
    arrivals: Mapping[str, tuple[Arrival, ...]]


def find_scenario(name: str) -> Scenario:
    """A built-in scenario by its name, or one from a file. Raises ScenarioError."""
    if name in BUILT_IN:
        return read_scenario(_WORLDS / f"{name}.toml")
    if not Path(name).exists():
        raise ScenarioError(f"{name}: no such file; built in are {', '.join(BUILT_IN)}")
    return read_scenario(Path(name))


def load_world(scenario: Scenario, traces: Traces, duration_s: float | None = None) -> LoadedWorld:
    """The world with its traces. Without `duration_s`, radio and bandwidth traces that are given set the length.

    Raises:
        TraceError: a trace cannot be read.
        ScenarioError: a trace is given that no link of the scenario takes.
    """
    if traces.radio is not None and not any(link.radio for link in scenario.links):
        raise ScenarioError(f'--radio: no link of the scenario has a radio trace; give one radio = "{GIVEN_TRACE}"')
    if traces.bandwidth is not None and not any(link.bandwidth for link in scenario.links):
        raise ScenarioError(
            f'--bandwidth: no link of the scenario has a bandwidth trace; give one bandwidth = "{GIVEN_TRACE}"'
        )
    folder, radio, series, lengths = Path(scenario.folder), {}, {}, []
    for index, link in enumerate(scenario.links):
        path = _path(folder, link.radio, traces.radio)
        if path is not None and path not in radio:
            radio[path] = tuple(read_radio_trace(path))
        trips = None
        if path is not None:
            rows = radio[path]
            fallback = link.round_trip_ms / 1e3
            trips = Series.of(
                [row.at_s for row in rows], [fallback if r.round_trip_s is None else r.round_trip_s for r in rows]
            )
            if traces.radio is not None:
                lengths.append(trips.period_s)
        rates = _rates(folder, link, traces)
        if rates is not None and traces.bandwidth is not None:
            lengths.append(rates.period_s)
        if trips is not None or rates is not None:
            series[index] = LinkSeries(trips, rates, () if path is None else radio[path])
    length = duration_s or max(lengths, default=scenario.duration_s)
    deployments = tuple(
        replace(
            spec,
            demand=replace(spec.demand, speedup=spec.demand.speedup if traces.speedup is None else traces.speedup),
        )
        for spec in scenario.deployments
    )
    arrivals = {}
    for spec in deployments:
        path = traces.arrivals or _path(folder, spec.demand.trace, None)
        if path is not None:
            arrivals[spec.name] = read_arrival_trace(path)
    return LoadedWorld(World(replace(scenario, duration_s=length, deployments=deployments), series), arrivals)


def _rates(folder: Path, link: LinkSpec, traces: Traces) -> Series | None:
    path = _path(folder, link.bandwidth, traces.bandwidth)
    if path is None:
        return None
    scale = link.bandwidth_scale if traces.bandwidth_scale is None else traces.bandwidth_scale
    rows = read_bandwidth_trace(path, scale)
    return Series.of([row.at_s for row in rows], [row.bytes_per_s for row in rows])


def _path(folder: Path, named: str, given: Path | None) -> Path | None:
    """Which file a link or a demand takes; one that waits for a given trace has none without it."""
    if not named:
        return None
    if given is not None:
        return given
    return None if named == GIVEN_TRACE else folder / named
