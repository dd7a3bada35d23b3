"""What runs on a committed plan at a gateway: the plan in use, and waiting for one that works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.generation import NoPlan

if TYPE_CHECKING:
    from mec_apps.split_inference.gateway.sessions import Session

FIRST_PLAN_TIMEOUT_S = 10.0
"""How long a request waits for a plan when there is none."""

RECOVERY_TIMEOUT_S = 30.0
"""How long a request waits for a usable plan after it lost a stage: detection, preparation and commit take about one."""

SAME_PLAN_RETRY_S = 1.0
"""After this long without a newer plan, a plan whose nodes all answer is tried again: the break was a short one."""

MAX_RECOVERIES = 8
"""Recoveries in a row before a request gives up."""


class PlanUser:
    """`live` are the sessions that a change of plan has to move; requests that keep nothing on nodes are not in it."""

    def __init__(self) -> None:
        self.live: dict[int, Session] = {}
        self.active: ActivePlan | None = None
        self._plan_changed = asyncio.Event()

    def use_plan(self, active: ActivePlan) -> None:
        """New requests start on this plan from now on; those that wait for a newer one wake up."""
        self.active = active
        self._plan_changed.set()
        self._plan_changed = asyncio.Event()

    async def first_plan(self) -> ActivePlan:
        """The plan to start on. Raises NoPlan."""
        try:
            return await self.usable_plan(newer_than=-1, retry=None, timeout_s=FIRST_PLAN_TIMEOUT_S)
        except TimeoutError as error:
            raise NoPlan(
                "no plan to run on: too few edge nodes have joined, or the platform is not reachable"
            ) from error

    async def usable_plan(self, newer_than: int, retry: ActivePlan | None, timeout_s: float) -> ActivePlan:
        """The plan to run on: one newer than an epoch, or after a while `retry` where all its nodes answer again.

        Raises:
            TimeoutError: neither came.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            if self.active is not None and self.active.plan.epoch > newer_than:
                return self.active
            waited = loop.time() - started
            if retry is not None and waited >= SAME_PLAN_RETRY_S and retry.usable:
                return retry
            if waited >= timeout_s:
                raise TimeoutError
            try:
                await asyncio.wait_for(self._plan_changed.wait(), 0.1 if retry is not None else timeout_s - waited)
            except TimeoutError:
                continue
