"""A measured run in the form of a simulated one, so that the same report and the same figure are made of both. Pure."""

from __future__ import annotations

from itertools import pairwise

from mec_apps.cli.testbed.demand import Asked
from mec_apps.cli.testbed.run import Measured
from mec_platform.domain.split_plan import SplitPlan, plan_change
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2
from mec_platform.simulation.record import DecisionRecord, DeploymentRecord, ReconfigurationRecord, RunRecord
from mec_platform.simulation.requests import Request, Served
from mec_platform.simulation.service import TokenFlow

ADAPTIVE, UNCHANGED = "adaptive", "unchanged"


def record_of(run: Measured, deployment: str) -> RunRecord:
    """What was measured, as a record of the policy `adaptive`, or `unchanged` for the first plan left as it is."""
    ended_s = max([run.duration_s, *(at_s for asked in run.requests for at_s in asked.came_s)])
    record = DeploymentRecord(
        deployment,
        served=[_served(number, asked) for number, asked in enumerate(run.requests)],
        flows=[flow for asked in run.requests for flow in _flows(asked)],
        decisions=[DecisionRecord(at_s, decision.kind, decision.reason) for at_s, decision in run.decisions],
        reconfigurations=[_change(run, at_s, done) for at_s, done in run.reconfigurations],
        plans=[(at_s, plan.stages) for at_s, plan in run.plans],
    )
    return RunRecord(ADAPTIVE if run.adaptive else UNCHANGED, run.duration_s, ended_s, (record,), dict(run.busy_s))


def requests_of_run(run: Measured) -> tuple[Request, ...]:
    """What was asked, as long as it turned out, in order of time: for a simulation to be asked the same."""
    return tuple(
        _served(number, asked).request for number, asked in enumerate(sorted(run.requests, key=lambda each: each.at_s))
    )


def mean_answer_tokens(run: Measured) -> int:
    """Of the answers that came to their end; as many as were wanted where none did."""
    done = [len(asked.came_s) for asked in run.requests if asked.done_s is not None]
    wanted = [asked.wanted_tokens for asked in run.requests]
    return round(sum(done) / len(done)) if done else max(wanted, default=1)


def _served(number: int, asked: Asked) -> Served:
    tokens = asked.wanted_tokens if asked.done_s is None else max(len(asked.came_s), 1)
    request = Request(number, asked.at_s, "gateway", asked.prompt_tokens, tokens)
    return Served(request, asked.came_s[0] if asked.came_s else None, asked.done_s)


def _flows(asked: Asked) -> list[TokenFlow]:
    return [TokenFlow(before, after, after - before, 1.0, 1) for before, after in pairwise(asked.came_s)]


def _change(run: Measured, ended_s: float, done: control_plane_pb2.Reconfiguration) -> ReconfigurationRecord:
    """`Reconfiguration` does not say what made the platform decide; the decision of the same words does."""
    plan = plan_from_message(done.plan)
    decided = [(at_s, each) for at_s, each in run.decisions if each.reason == done.reason and at_s <= ended_s]
    took_s = (done.prepare_ms + done.switch_ms) / 1e3
    return ReconfigurationRecord(
        decided_s=ended_s - took_s,
        ended_s=ended_s,
        kind=done.kind or _kind(run, plan),
        trigger=decided[-1][1].trigger if decided else "",
        reason=done.reason,
        outcome=done.outcome if done.outcome == "committed" else f"{done.outcome}: {done.error}",
        stages=plan.stages,
        pause_s=done.pause_ms_max / 1e3,
        moved_bytes=done.moved_bytes,
        weights_bytes=0,
        replayed_tokens=done.replayed_tokens,
    )


def _kind(run: Measured, plan: SplitPlan) -> str:
    return plan_change(run.plans[0][1], plan).value
