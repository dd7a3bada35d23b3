"""All deployments of the platform: a control loop for every model that nodes report.

A deployment is named by its model. Members, snapshot, plan, epochs and decisions are each loop's own. They share the
journal, names of nodes, and machines that several nodes are on: what one takes of them the others see (`sharing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import aclosing

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.control_loop import ControlLoop
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import MemberReported, MonitoringSettings, Refusal
from mec_platform.control_plane.orchestrator.decisions import Decision
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.selection import UnknownDeployment
from mec_platform.control_plane.sharing import tick_shared
from mec_platform.control_plane.tick import tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.failures import Failure
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.leadership import AlwaysLeader, Leadership
from mec_platform.rpc.liveness import find_refusal

logger = logging.getLogger(__name__)

MAX_DEPLOYMENTS = 32
"""Names come in with reports; a platform that is told ever new ones stops listening."""

FOLLOW_AGAIN_S = 0.5
"""Between attempts to follow plans of other platforms in a log that cannot be read."""


class Deployments:
    """`start`, then `take_report` and `select`, then `stop`."""

    def __init__(
        self,
        journal: Journal,
        policies: Policies,
        monitoring: MonitoringSettings,
        *,
        manual: bool = False,
        leadership: Leadership | None = None,
        identity: GrpcIdentity | None = None,
    ) -> None:
        self._leadership = leadership or AlwaysLeader()
        self._tasks = BackgroundTasks()
        self._journal = journal
        self._policies = policies
        self._monitoring = monitoring
        self._manual = manual
        self._identity = identity
        self._loops: list[ControlLoop] = []

    async def start(self) -> None:
        """Takes up every deployment that has a committed plan. Raises LogUnavailable."""
        await self._journal.load()
        for model in self._journal.models:
            self._open(model)
        if not self._loops:
            self._open("")  # takes the name of the first model that is reported; until then it can be watched
        self._tasks.start("plans of other platforms", self._follow())

    async def stop(self) -> None:
        """Stops every loop."""
        await self._tasks.stop()
        for loop in self._loops:
            await loop.stop()

    @property
    def loops(self) -> tuple[ControlLoop, ...]:
        """Every deployment, in the order in which they came up."""
        return tuple(self._loops)

    @property
    def names(self) -> tuple[str, ...]:
        """Models of the deployments that nodes serve now, or of all where none are served."""
        live = [loop.model for loop in self._loops if loop.model and loop.is_served]
        return tuple(live or (loop.model for loop in self._loops if loop.model))

    def select(self, model: str) -> ControlLoop:
        """The deployment of `model`; for "" the only one that is served, or where none is, the one planned for last.

        Raises:
            UnknownDeployment: there is none of that name, or several are served.
        """
        found = [loop for loop in self._loops if loop.model == model]
        if found and model:
            return found[0]
        if model:
            raise UnknownDeployment(f"there is no deployment of {model}; {self._choices()}")
        served = [loop for loop in self._loops if loop.is_served]
        if len(served) > 1:
            raise UnknownDeployment(f"several models are deployed, name one; {self._choices()}")
        if served:
            return served[0]
        last = self._journal.plan
        return next((loop for loop in self._loops if last is not None and loop.model == last.model), self._loops[0])

    def _choices(self) -> str:
        return f"deployed: {', '.join(self.names) or 'none yet'}"

    def take_report(self, event: MemberReported) -> Refusal | None:
        """Hands a report to the deployment of its model; a refusal is for its sender."""
        loop = self.of_report(event)
        if loop is None:
            return Refusal(f"this platform has {MAX_DEPLOYMENTS} deployments already; stop one and start it again")
        if event.role == "node":
            for other in self._loops:
                if other is not loop and other.has_node(event.name):
                    return Refusal(
                        f"{event.name} is taken: a node of that name serves {other.model}; give this one another name"
                    )
        return loop.take_report(event)

    def of_report(self, event: MemberReported) -> ControlLoop | None:
        """The deployment that a report belongs to, made where it is the first of its model; None beyond the limit."""
        model = "" if event.model is None else event.model.name
        for loop in self._loops:
            if loop.model == model or not loop.model:
                loop.model = loop.model or model
                return loop
        if not model:
            return self._loops[0]
        return self._open(model) if len(self._loops) < MAX_DEPLOYMENTS else None

    def take_radio(self, measurement: RadioMeasurement) -> None:
        """Hands a radio measurement, stamped with the loop's clock, to every deployment: UEs are no deployment's own."""
        for loop in self._loops:
            loop.take_radio(measurement)

    def fail_member(self, name: str, failure: Failure) -> None:
        """Takes word of a member's failure; a gateway may be a member of several deployments."""
        for loop in self._loops:
            loop.fail_member(name, failure)

    def take_broken_stream(self, name: str, address: str) -> None:
        """Looks whether a member whose stream of reports broke off is still there; one that has a new address is."""
        with contextlib.suppress(RuntimeError):  # this platform is stopping, which is why the stream broke
            self._tasks.start(f"look for {name}", self._look_for(name, address))

    async def _look_for(self, name: str, address: str) -> None:
        failure = await find_refusal(address)
        if failure is None:
            return
        for loop in self._loops:
            if loop.addresses().get(name) == address:
                loop.fail_member(name, failure)

    def settings(self, model: str) -> ControlSettings:
        """The policy in force of a deployment."""
        return self._policies.of(model)

    def change_policies(self, policies: Policies) -> None:
        """Has every deployment decide by new policies, at once."""
        self._policies = policies
        for loop in self._loops:
            loop.wake()

    def decide(self, model: str, seen: Snapshot, state: PolicyState) -> tuple[Decision, PolicyState, Snapshot]:
        """A decision about a chain of a deployment, beside what all others take of the machines that they share."""
        snapshots = {loop.model: loop.observe() for loop in self._loops if loop.model}
        if len(snapshots) < 2 or model not in snapshots:
            return *tick(seen, state, self.settings(model)), seen
        return tick_shared(model, seen, snapshots, state, {name: self.settings(name) for name in snapshots})

    def _open(self, model: str) -> ControlLoop:
        loop = ControlLoop(
            self._journal,
            self,
            self._monitoring,
            model,
            manual=self._manual,
            leadership=self._leadership,
            identity=self._identity,
        )
        self._loops.append(loop)
        loop.start()
        return loop

    async def _follow(self) -> None:
        """Takes up deployments that another platform has planned."""
        while True:
            try:
                async with aclosing(self._journal.follow()) as plans:
                    async for plan in plans:
                        self._of_plan(plan.model)
                return
            except LogUnavailable as error:
                logger.warning("plans of other platforms are not seen for now: %s", error)
                await asyncio.sleep(FOLLOW_AGAIN_S)

    def _of_plan(self, model: str) -> None:
        if any(loop.model == model for loop in self._loops):
            return
        unnamed = next((loop for loop in self._loops if not loop.model), None)
        if unnamed is not None:
            unnamed.model = model
        elif len(self._loops) < MAX_DEPLOYMENTS:
            self._open(model)
