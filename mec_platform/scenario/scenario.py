"""A scenario file: nodes, gateways, links, deployments, and what happens to them. `read_scenario` is the one way in.

Sizes are MiB, rates Mbit/s, times as their names say. Names of nodes, gateways and sites share one name space; "*" in a
link stands for all others. Counterpart: `snapshots` makes of it what decisions look at.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mec_platform.domain.errors import MendableError

LARGEST_SCENARIO_BYTES = 4 << 20
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

GIVEN_TRACE = "-"
"""In place of a path: the trace that whoever runs the scenario gives; without one the link is as its numbers say."""


class ScenarioError(MendableError):
    """A scenario file cannot be used; the message names the file and the key."""


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model by its sizes; the defaults are those of the default model, packed in int4."""

    blocks: int = 30
    hidden_bytes: int = 2304
    block_mib: float = 2.1
    embed_mib: float = 54.0
    head_mib: float = 17.0
    kv_bytes_per_token_per_block: int = 1536


class NodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One node, or `count` of them, called `name-1` and so on.

    `block_us` is one row through one block, `row_us` what each further row of a batch adds to it; the same for the head.
    `models` names the deployments that there is an artefact for, all where empty; `local_blocks` are half-open ranges of
    blocks whose weights lie on the node, all where absent. The rest is as in `NodeCapacity`. `joins_s`: absent before then.

    `threads` are the cores that it computes with, and `frame_us` what a frame takes of a core beside computing: taking it
    in and sending it on. Both count where its `machine` has an entry, so that its cores can become scarce.
    """

    name: str
    count: int = 1
    site: str = ""
    machine: str = ""
    group: str = ""
    trusted: bool = True
    memory_mib: float = 1024.0
    block_us: float = 200.0
    row_us: float = 60.0
    head_us: float = 600.0
    head_row_us: float = 200.0
    prefill_row_us: float = 40.0
    position_ns: float = 15.0
    models: tuple[str, ...] = ()
    local_blocks: tuple[tuple[int, int], ...] | None = None
    weights_mbit_per_s: float = 100.0
    joins_s: float = 0.0
    ue: str = ""
    threads: int = 1
    frame_us: float = 0.0


class MachineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A machine that members share, and its cores. Machines without an entry have enough for all.

    `others` is how many threads of others compete for its cores all the time, on average.
    """

    name: str
    cores: float = 1.0
    others: float = 0.0


class GatewaySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where requests come in. `ue` names the radio device that it is behind, if any; `machine` and `frame_us` as of nodes."""

    name: str
    site: str = ""
    ue: str = ""
    machine: str = ""
    frame_us: float = 0.0


class LinkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A link between `source` and `target`, in both directions unless `one_way`; later entries win over earlier ones.

    `radio` is a radio trace whose round trips, cells and signal it has; `bandwidth` a bandwidth trace, each value times
    `bandwidth_scale`; paths are relative to the scenario file, "-" is a trace that is given with it. Traces begin again when
    they end, unless the run ends first.
    """

    source: str
    target: str
    mbit_per_s: float = 100.0
    round_trip_ms: float = 2.0
    one_way: bool = False
    radio: str = ""
    bandwidth: str = ""
    bandwidth_scale: float = 1.0


class DemandSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Requests of a deployment: a trace file (`speedup` times as fast), or a Poisson stream of fixed lengths.

    With `streams` there are so many answers at any time instead, each asked for as soon as the one before it has ended.
    """

    trace: str = ""
    streams: int = 0
    speedup: float = 1.0
    per_s: float = 0.2
    prompt_tokens: int = 128
    answer_tokens: int = 128


class MeasurementSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How well members measure: themselves and their links every `measured_every_s`, with relative noise (one standard
    deviation). Every member reports each `report_s`; a report takes `delay_ms`, and the share `lost_share` of them never
    arrives.
    """

    noise: float = 0.03
    measured_every_s: float = 1.0
    report_s: float = 1.0
    delay_ms: float = 20.0
    lost_share: float = 0.0


class DeploymentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model that is served to `gateways` (all where empty). `policy` is a table as in a policy file.

    Requests beyond `max_sessions` at a time wait, in the order in which they came.
    """

    name: str
    model: ModelSpec = ModelSpec()
    gateways: tuple[str, ...] = ()
    policy: dict[str, Any] = {}
    demand: DemandSpec = DemandSpec()
    max_sessions: int = 8
    sessions: int = 1
    context_positions: int = 256


class EventSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens at `at_s`. With `node`: what that node is from then on; with `source` and `target`: what that link is.

    `silent` members go on working and are not heard of any more ("*" is all of them); `until_s` takes the event back.
    """

    at_s: float
    until_s: float | None = None
    node: str = ""
    lost: bool = False
    silent: bool = False
    trusted: bool | None = None
    cpu_share: float | None = None
    source: str = ""
    target: str = ""
    mbit_per_s: float | None = None
    round_trip_ms: float | None = None


class Scenario(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={
        "nodes": "node",
        "gateways": "gateway",
        "machines": "machine",
        "links": "link",
        "deployments": "deployment",
        "events": "event",
    },
):
    """The whole file. `folder` is where it lies, which paths in it are relative to. The platform decides every `tick_s`."""

    nodes: tuple[NodeSpec, ...]
    deployments: tuple[DeploymentSpec, ...] = (DeploymentSpec("model"),)
    gateways: tuple[GatewaySpec, ...] = (GatewaySpec("gateway"),)
    machines: tuple[MachineSpec, ...] = ()
    links: tuple[LinkSpec, ...] = ()
    events: tuple[EventSpec, ...] = ()
    measurement: MeasurementSpec = MeasurementSpec()
    tick_s: float = 1.0
    title: str = ""
    seed: int = 1
    duration_s: float = 60.0
    folder: str = ""

    @property
    def sites(self) -> frozenset[str]:
        """Every site that a node or a gateway names."""
        return frozenset([*(node.site for node in self.nodes), *(gateway.site for gateway in self.gateways)]) - {""}


def read_scenario(path: Path) -> Scenario:
    """Reads and checks a scenario.

    Raises:
        ScenarioError: the file cannot be read or says something that makes no sense.
    """
    try:
        if path.stat().st_size > LARGEST_SCENARIO_BYTES:
            raise ScenarioError(f"{path}: more than {LARGEST_SCENARIO_BYTES >> 20} MiB")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    try:
        scenario = msgspec.convert({**table, "folder": str(path.parent)}, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{path}: {error}") from error
    problem = next(_problems(scenario), None)
    if problem is not None:
        raise ScenarioError(f"{path}: {problem}")
    return scenario


def node_names(spec: NodeSpec) -> tuple[str, ...]:
    """The nodes that an entry stands for."""
    return (spec.name,) if spec.count == 1 else tuple(f"{spec.name}-{number}" for number in range(1, spec.count + 1))


def _problems(scenario: Scenario) -> Iterator[str]:
    """What a type cannot say: names that are unknown or taken, and numbers out of range."""
    nodes = [name for spec in scenario.nodes for name in node_names(spec)]
    gateways = [gateway.name for gateway in scenario.gateways]
    deployments = [deployment.name for deployment in scenario.deployments]
    for name in (*nodes, *gateways, *deployments):
        if not NAME.fullmatch(name):
            yield f"{name!r} is no name: letters, digits, '.', '_' and '-', 64 at most"
    machines = [machine.name for machine in scenario.machines]
    for kind, names in (
        ("node or gateway", [*nodes, *gateways]),
        ("deployment", deployments),
        ("machine", machines),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"there are two {kind}s called {name}"
    if not nodes or not gateways or not deployments:
        yield "at least one node, one gateway and one deployment are needed"
    known = {*nodes, *gateways, *scenario.sites, "*"}
    for link in scenario.links:
        for end in (link.source, link.target):
            if end not in known:
                yield f"link {link.source} -> {link.target}: there is no node, gateway or site called {end}"
    for event in scenario.events:
        for name in (event.node, event.source, event.target):
            if name and name not in known:
                yield f"event at {event.at_s:g} s: there is no node, gateway or site called {name}"
    for deployment in scenario.deployments:
        for gateway in deployment.gateways:
            if gateway not in gateways:
                yield f"deployment {deployment.name}: there is no gateway called {gateway}"
    yield from _numbers(scenario)


def _numbers(scenario: Scenario) -> Iterator[str]:
    if not 0 < scenario.duration_s <= 30 * 86400:
        yield f"duration_s: {scenario.duration_s:g} is not between 0 and 30 days"
    for node in scenario.nodes:
        times = (node.block_us, node.row_us, node.head_us, node.head_row_us, node.prefill_row_us, node.position_ns)
        if node.threads < 1 or node.frame_us < 0:
            yield f"node {node.name}: threads from 1, and a frame_us of 0 or more, are needed"
        if not 1 <= node.count <= 100_000 or node.block_us <= 0 or min(times) < 0 or node.memory_mib < 0:
            yield f"node {node.name}: count from 1 to 100000, block_us above 0, and nothing below 0"
    for gateway in scenario.gateways:
        if gateway.frame_us < 0:
            yield f"gateway {gateway.name}: a frame_us of 0 or more is needed"
    for machine in scenario.machines:
        if machine.cores <= 0 or machine.others < 0:
            yield f"machine {machine.name}: cores above 0, and others of 0 or more, are needed"
    if not 0.1 <= scenario.tick_s <= 600:
        yield f"tick_s: {scenario.tick_s:g} is not between 0.1 and 600"
    measured = scenario.measurement
    if not 0 <= measured.noise < 1 or not 0 <= measured.lost_share < 1 or measured.delay_ms < 0:
        yield "measurement: noise and lost_share from 0 to below 1, and a delay_ms of 0 or more, are needed"
    if not 0.1 <= measured.report_s <= 60 or measured.measured_every_s <= 0:
        yield "measurement: report_s from 0.1 to 60, and measured_every_s above 0, are needed"
    for link in scenario.links:
        if link.mbit_per_s <= 0 or link.round_trip_ms < 0 or link.bandwidth_scale <= 0:
            yield f"link {link.source} -> {link.target}: rates above 0 and a round trip of 0 or more are needed"
    for deployment in scenario.deployments:
        model, demand = deployment.model, deployment.demand
        sizes = (model.block_mib, model.embed_mib, model.head_mib, model.kv_bytes_per_token_per_block)
        if not 1 <= model.blocks <= 1000 or model.hidden_bytes < 1 or min(sizes) < 0:
            yield f"deployment {deployment.name}: 1 to 1000 blocks, hidden_bytes above 0, and no size below 0"
        if deployment.max_sessions < 1:
            yield f"deployment {deployment.name}: max_sessions from 1 is needed"
        if not 0 <= demand.streams <= deployment.max_sessions:
            yield f"deployment {deployment.name}: streams from 0 to max_sessions ({deployment.max_sessions}) are needed"
        if demand.speedup <= 0 or demand.per_s < 0 or demand.prompt_tokens < 1 or demand.answer_tokens < 1:
            yield f"deployment {deployment.name}: demand needs speedup above 0, per_s of 0 or more, and tokens from 1"
