"""What must hold of an edge all the time, and at quiet moments, seen from outside."""

from __future__ import annotations

import re
from collections import defaultdict

import aiohttp
import grpc
import grpc.aio

from mec_apps.cli.local_cluster import LocalCluster
from mec_platform.rpc.v1 import control_plane_pb2, edge_node_pb2, inference_pb2
from tests.integration.edge import until
from tests.integration.soak.growth import FEWEST_SAMPLES, KV_BYTES, MIB, Sample, check_growth
from tests.integration.soak.processes import take_sample

QUIET_DEADLINE_S = 60.0
"""Members that were just started are found, changes under way end, and what sessions held is let go."""

_MANY_DIED = "services fell silent within"
"""The registry's suspicion that the fault is its own: as many nodes really die here."""

_BAD_LINE = re.compile(
    r"^(\S+ \S+ (ERROR|CRITICAL) .*|Traceback .*|.*never (awaited|retrieved).*|[EF]\d{4} .*)$", re.MULTILINE
)


def bad_lines(log: str) -> list[str]:
    """Lines of a log that no run may leave: errors, tracebacks, what was forgotten, and what gRPC's core calls an error."""
    return [line[0] for line in _BAD_LINE.finditer(log) if _MANY_DIED not in line[0]]


class Watch:
    """Follows epochs, logs and what processes hold. Its checks fail the test."""

    def __init__(self, cluster: LocalCluster, names: list[str]) -> None:
        self._cluster = cluster
        self._names = names
        self._epochs: dict[str, int] = {}
        self.why_not = ""
        self._read: dict[str, int] = defaultdict(int)
        self.samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)

    async def check_epochs(self) -> None:
        """No chain's committed epoch, and no running node's, is older than it was."""
        seen = await until(self._snapshot, "the platform answers", QUIET_DEADLINE_S)
        for plan in (seen.plan, *seen.replicas):
            if plan.stages:
                self._note(f"chain {plan.chain}", plan.epoch)
        for name in self._names:
            if name in self._cluster.running:
                node = await self._cluster.node(name).Describe(edge_node_pb2.DescribeRequest())
                self._note(f"{name}, process {node.process_id}", node.committed_epoch)

    async def _snapshot(self) -> control_plane_pb2.Snapshot | None:
        """None where the platform was started again a moment ago, and the channel to it has not seen that yet."""
        try:
            return await self._cluster.snapshot()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return None

    def _note(self, who: str, epoch: int) -> None:
        before = self._epochs.get(who, 0)
        assert epoch >= before, f"{who} has gone back from epoch {before} to {epoch}"
        self._epochs[who] = epoch

    def check_logs(self) -> None:
        """Nothing at the level of errors, and no traceback, in what was logged since the last time."""
        bad = []
        for name in (*self._names, "platform", "gateway"):
            with self._cluster.log_path(name).open("rb") as log:
                log.seek(self._read[name])
                bad += [f"{name}: {line}" for line in bad_lines(log.read().decode(errors="replace"))]
                self._read[name] = log.tell()
        assert not bad, "logged: " + "\n".join(bad)

    async def is_quiet(self) -> bool:
        """Whether every process is there and holds nothing of any session; says what is missing in `why_not`."""
        self.why_not = await self._why_not_quiet()
        return not self.why_not

    async def wait_until_quiet(self) -> None:
        """Waits for a quiet moment. Fails where there is none."""
        try:
            await until(self.is_quiet, "a quiet moment", QUIET_DEADLINE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.why_not}") from error

    async def _why_not_quiet(self) -> str:
        cluster = self._cluster
        try:
            seen = await cluster.snapshot()
            missing = {*self._names, "gateway"} - {member.name for member in seen.members}
            if missing or not seen.HasField("plan"):
                return f"the platform misses {sorted(missing) or 'a plan'}"
            sessions = (await cluster.inference.ListSessions(inference_pb2.ListSessionsRequest())).sessions
            if sessions:
                return f"sessions at the gateway: {sessions}"
            living = {stage.node: plan.epoch for plan in (seen.plan, *seen.replicas) for stage in plan.stages}
            for name in self._names:
                node = await cluster.node(name).Describe(edge_node_pb2.DescribeRequest())
                if node.kv_pages_used or node.sessions:
                    return f"{name} holds {node.kv_pages_used} pages of {list(node.sessions)}"
                held = [stage.epoch for stage in node.stages]
                if held != ([living[name]] if name in living else []):
                    return f"{name} holds stages of {held}, and the plan it is in has {living.get(name)}"
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""

    async def sample(self, at_s: float, client: aiohttp.ClientSession) -> None:
        """Notes what every process holds."""
        for name in (*self._names, "platform", "gateway"):
            key = (name, self._cluster.process_id(name))
            self.samples[key].append(await take_sample(self._cluster, name, at_s, client))

    def describe(self) -> str:
        """What the processes that were sampled most held, from the first quiet moment to the last."""
        lines = []
        for (name, _), samples in self.samples.items():
            if len(samples) >= FEWEST_SAMPLES:
                resident = " ".join(f"{sample.anonymous_bytes / MIB:.1f}" for sample in samples)
                rest = " ".join(f"{sample.descriptors}/{sample.threads}/{sample.tasks}" for sample in samples)
                lines.append(f"{name}: MiB {resident}; descriptors/threads/tasks {rest}")
        return "\n".join(lines)

    def check_growth(self) -> None:
        """No process that lived long enough has grown."""
        grown = [
            line
            for (name, _), samples in self.samples.items()
            for line in check_growth(name, samples, KV_BYTES if name in self._names else 0)
        ]
        assert not grown, "\n".join(grown)
