"""Decides journalled decisions again, by today's code or by another policy, and says what would be decided otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mec_platform.control_plane.decision_codec import DecisionRecord
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Trigger,
    Wait,
    decision_kind,
)
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.tick import tick


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision then and now. `difference` says in words what is other, "" where nothing that matters is.

    `now` is None where the decision cannot be made again: it looked at other deployments too.
    """

    then: Decision
    now: Decision | None
    difference: str


def replay(record: DecisionRecord, policies: Policies | None = None) -> Replayed:
    """Decides a record again, from what it was made from; by `policies` where there are any, else by its own settings."""
    then = record.decision
    if isinstance(then, Reconfigure | DropChain) and then.trigger is Trigger.GIVES_WAY:
        return Replayed(then, None, "")
    settings, state = record.settings, record.state
    if policies is not None:
        settings, state = policies.of(record.deployment), replace(state, marks=None)
    now, _ = tick(record.snapshot, state, settings)
    return Replayed(then, now, "; ".join(_differences(then, now)))


def _differences(then: Decision, now: Decision) -> Iterable[str]:
    """What matters: the kind of decision, its plan, its trigger and its limit; not its words and figures."""
    if decision_kind(then) != decision_kind(now):
        yield f"{decision_kind(then)} -> {decision_kind(now)}"
        return
    match then, now:
        case (Reconfigure() | AddChain(), Reconfigure() | AddChain()):
            if then.plan.stages != now.plan.stages:
                yield f"plan {then.plan.describe()} -> {now.plan.describe()}"
        case (DropChain(), DropChain()):
            if then.plan != now.plan:
                yield f"chain {then.plan.describe()} -> {now.plan.describe()}"
        case (Shed(), Shed()):
            if then.session_limit != now.session_limit:
                yield f"limit {then.session_limit} -> {now.session_limit}"
    if not isinstance(then, Wait | Keep) and not isinstance(now, Wait | Keep) and then.trigger != now.trigger:
        yield f"trigger {then.trigger} -> {now.trigger}"
