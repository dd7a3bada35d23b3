"""What the control plane keeps: committed plans (one stream, compare-and-set) and decisions with their snapshots.

A platform that begins to lead says so in the stream of plans. That fences off the one before: what it still tries to commit
is refused, since the stream has gone on. The record also says from where the new one counts epochs, above all that
others may have attempted without committing them.

Every plan names its model and its chain, so the plans of all deployments share the stream; each deployment's epochs are
its own, and its chains share them. A plan without stages is the end of its chain. Records that name no chain are of
platforms that knew one chain only: chain 0.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from mec_platform.control_plane.decision_log import DecisionLog
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.registry.clock import Clock, SystemClock
from mec_platform.registry.errors import LogUnavailable, RevisionConflict
from mec_platform.registry.event_log import EventLog, LogEntry, Record

PLANS = "plans"
LEADS = "platform.leads"
ATTEMPTS = 100
"""Epochs that a platform may attempt beyond the last one that the stream knows of, before it tells the stream."""

ACTOR = "control plane"
FENCE_ATTEMPTS = 8
"""Others write plans seconds apart; whoever loses that often is cut off from what he reads."""


class Journal:
    """The control plane's streams of the platform's event log."""

    def __init__(self, log: EventLog, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self.decisions = DecisionLog(log, self._clock, ACTOR)
        self._revision = 0
        self._committing = asyncio.Lock()
        self._beginning = asyncio.Lock()
        self._leads = False
        self._has_record = False
        self.epochs_from = 0
        """Epochs up to this one may have been attempted by platforms that led before."""
        self._latest: dict[tuple[str, int], SplitPlan] = {}
        """What was committed last of every chain, its end included; the one committed last comes last."""

    @property
    def plan(self) -> SplitPlan | None:
        """The plan committed last that is still in force, of any deployment."""
        return next((plan for plan in reversed(self._latest.values()) if plan.stages), None)

    @property
    def models(self) -> tuple[str, ...]:
        """Models of all deployments that have had a plan; the one planned for last comes last."""
        return tuple(reversed(dict.fromkeys(model for model, _ in reversed(self._latest))))

    def plans(self, model: str) -> dict[int, SplitPlan]:
        """The plans in force of a deployment, by chain in ascending order."""
        return {plan.chain: plan for plan in self.latest(model) if plan.stages}

    def latest(self, model: str) -> tuple[SplitPlan, ...]:
        """What was committed last of every chain of a deployment, in the order of chains; no stages where it ended."""
        found = [plan for (of, _), plan in self._latest.items() if of == model]
        return tuple(sorted(found, key=lambda plan: plan.chain))

    def last_epoch(self, model: str) -> int:
        """The newest epoch that a deployment has committed, 0 where none."""
        return max((plan.epoch for plan in self.latest(model)), default=0)

    async def load(self) -> None:
        """Reads the plans that were committed since the last time. Raises LogUnavailable."""
        async with self._committing:
            for entry in await self._log.read(PLANS, self._revision):
                self._take_over(entry)

    async def follow(self) -> AsyncGenerator[SplitPlan, None]:
        """Plans that other platforms commit, once `plans` has them; none where they share no log. Raises LogUnavailable."""
        if not self._log.is_shared:
            return
        async with aclosing(self._log.tail(PLANS, self._revision)) as tail:
            async for entry in tail:
                async with self._committing:
                    is_new = entry.revision > self._revision
                    if is_new:
                        self._take_over(entry)
                if is_new and entry.kind != LEADS:
                    yield _plan_from_json(entry.payload)

    def _take_over(self, entry: LogEntry) -> None:
        self._revision = entry.revision
        self._has_record = True
        if entry.kind == LEADS:
            self.epochs_from = max(self.epochs_from, json.loads(entry.payload)["epochs_from"])
        else:
            self._take(_plan_from_json(entry.payload))

    async def begin_to_lead(self) -> None:
        """Reads what others committed, and fences them off, unless this journal has done so already.

        Raises:
            LogUnavailable: the log does not answer, or others keep writing; nobody is fenced off.
        """
        async with self._beginning:
            if not self._leads:
                await self._begin_to_lead()

    async def _begin_to_lead(self) -> None:
        for _ in range(FENCE_ATTEMPTS):
            await self.load()
            async with self._committing:
                attempted = max([self.epochs_from, *(plan.epoch for plan in self._latest.values())])
                try:
                    await self._fence(attempted + ATTEMPTS if self._has_record else 0)
                except RevisionConflict:
                    continue
                self._leads = True
                return
        raise LogUnavailable("other platforms keep writing plans; this one does not lead yet")

    def cease_to_lead(self) -> None:
        """Has the next `begin_to_lead` read and fence again."""
        self._leads = False

    async def allow_epoch(self, model: str, epoch: int) -> None:
        """Has the stream know of attempts that go far beyond what it can tell: the next leader counts from above them.

        Raises LogUnavailable.
        """
        async with self._committing:
            if epoch - max(self.epochs_from, self.last_epoch(model)) < ATTEMPTS:
                return
            try:
                await self._fence(epoch)
            except RevisionConflict as error:
                raise LogUnavailable(f"another platform leads: {error}") from error

    async def _fence(self, epochs_from: int) -> None:
        payload = json.dumps({"epochs_from": epochs_from}).encode()
        self._revision = await self._append(PLANS, LEADS, payload, "", self._revision)
        self.epochs_from, self._has_record = epochs_from, True

    async def commit(self, plan: SplitPlan) -> str | None:
        """Makes `plan` the committed one of its chain; returns why it could not be. The same plan again is harmless."""
        async with self._committing:
            if plan == self._latest.get((plan.model, plan.chain)):
                return None
            kind = "plan.committed" if plan.stages else "plan.dropped"
            try:
                self._revision = await self._append(PLANS, kind, _plan_to_json(plan), plan.model, self._revision)
            except (RevisionConflict, LogUnavailable) as error:
                return str(error)
            self._take(plan)
            self._has_record = True
            return None

    def _take(self, plan: SplitPlan) -> None:
        chain = (plan.model, plan.chain)
        self._latest.pop(chain, None)
        self._latest[chain] = plan

    async def _append(
        self, stream: str, kind: str, payload: bytes, model: str, expected_revision: int | None = None
    ) -> int:
        record = Record(kind, payload, subject=model, actor=ACTOR, at_unix_ns=self._clock.unix_ns())
        return await self._log.append(stream, [record], expected_revision)


def _plan_to_json(plan: SplitPlan) -> bytes:
    fields = {"epoch": plan.epoch, "parent_epoch": plan.parent_epoch, "model": plan.model, "chain": plan.chain}
    stages, standbys = map(_stages_to_json, (plan.stages, plan.standbys))
    return json.dumps({**fields, "stages": stages, "standbys": standbys}).encode()


def _plan_from_json(payload: bytes) -> SplitPlan:
    fields = json.loads(payload)
    return SplitPlan(
        fields["epoch"],
        fields["parent_epoch"],
        fields["model"],
        _stages_from_json(fields["stages"]),
        fields.get("chain", 0),
        _stages_from_json(fields.get("standbys", ())),
    )


def _stages_to_json(stages: Iterable[Stage]) -> list[tuple[str, int, int]]:
    return [(stage.node, stage.layers.start, stage.layers.stop) for stage in stages]


def _stages_from_json(entries: Iterable[tuple[str, int, int]]) -> tuple[Stage, ...]:
    return tuple(Stage(node, LayerRange(start, stop)) for node, start, stop in entries)
