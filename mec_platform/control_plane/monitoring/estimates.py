"""Monitoring & Capacity Profiling, the pure half: member reports in, snapshots out.

Counterpart: the `CapacityProfiler` service turns messages into `events` and stamps them with the platform's clock. This
package keeps no clock and decides nothing; it says who is alive and what they can do.

State changes through the `apply_` functions of this module only. A member is alive while its reports arrive; it is gone
when it fell silent, left in order, or another member reported its failure. `series` filters what is measured,
`mass_silence` says when silence is not believed, `radio_forecast` looks ahead, `snapshots` puts it together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mec_platform.control_plane.monitoring.events import LinkReading, MemberFailed, MemberReported, Refusal, Role
from mec_platform.control_plane.monitoring.members import Member, MonitoringState, is_alive, observe
from mec_platform.control_plane.monitoring.radio_forecast import observe_radio
from mec_platform.control_plane.monitoring.settings import MonitoringSettings
from mec_platform.control_plane.monitoring.snapshots import gone_members, mass_silence_since, snapshot
from mec_platform.domain.radio import RadioMeasurement

__all__ = [
    "LinkReading",
    "Member",
    "MemberFailed",
    "MemberReported",
    "MonitoringSettings",
    "MonitoringState",
    "Refusal",
    "Role",
    "apply_failure",
    "apply_radio",
    "apply_report",
    "apply_reports",
    "gone_members",
    "is_alive",
    "snapshot",
    "why_gone",
]

FORGET_EVERY_S = 60.0


def apply_report(
    state: MonitoringState, event: MemberReported, settings: MonitoringSettings
) -> MonitoringState | Refusal:
    """Takes one report in, or says why not; see `apply_reports`."""
    after, refusals = apply_reports(state, (event,), settings)
    return refusals[0][1] if refusals else after


def apply_reports(
    state: MonitoringState, events: Iterable[MemberReported], settings: MonitoringSettings
) -> tuple[MonitoringState, Sequence[tuple[MemberReported, Refusal]]]:
    """Takes reports in, in order of time, and says which were not taken and why.

    Refused: a second process under the name of a live member, and a model other than the one that live nodes serve.
    Ignored (state unchanged): a report that was still on its way when its sender failed or left.
    """
    batch = _Batch(state, settings)
    refusals = []
    for event in events:
        refusal = batch.take(event)
        if refusal is not None:
            refusals.append((event, refusal))
    return batch.state(), refusals


def apply_failure(state: MonitoringState, event: MemberFailed) -> MonitoringState:
    """Marks a member as gone; members that nobody knows are ignored. Reports that keep coming heal a mistake."""
    member = state.members.get(event.name)
    if member is None or event.at_s < member.latest.at_s:
        return state
    member = replace(member, gone_since_s=event.at_s, gone_reason=event.reason)
    return replace(state, members={**state.members, event.name: member})


def apply_radio(state: MonitoringState, measurement: RadioMeasurement, settings: MonitoringSettings) -> MonitoringState:
    """Takes in what a radio network tells of a UE, in seconds of the clock that reports are stamped with."""
    radio = observe_radio(state.radio, measurement, settings.radio)
    return state if radio is state.radio else replace(state, radio=radio)


def why_gone(state: MonitoringState, name: str, now_s: float) -> str:
    """For people: why a member that is not alive is gone."""
    member = state.members.get(name)
    if member is None:
        return f"{name} has not reported since the platform started"
    if member.gone_since_s is not None:
        return f"{name} is gone since {now_s - member.gone_since_s:.1f} s: {member.gone_reason}"
    return f"{name} has been silent for {now_s - member.latest.at_s:.1f} s"


class _Batch:
    """A state while several reports are taken in: members are copied once for all of them, and nobody else sees it."""

    def __init__(self, before: MonitoringState, settings: MonitoringSettings) -> None:
        self._before = before
        self._settings = settings
        self._members = dict(before.members)
        self._model = before.model
        self._silence_from_s = before.silence_from_s
        self._forgiven_until_s = before.forgiven_until_s
        self._forget_at_s = before.forget_at_s
        self._changed = False

    def take(self, event: MemberReported) -> Refusal | None:
        settings = self._settings
        known = self._members.get(event.name)
        same_process = known is not None and known.latest.incarnation == event.incarnation
        if known is not None and not same_process and is_alive(known, event.at_s, settings):
            return Refusal(
                f"{event.name} is taken: another process of that name at {known.latest.address} reported "
                f"{event.at_s - known.latest.at_s:.1f} s ago; give this one another name or stop the other"
            )
        refusal = self._model_conflict(event)
        if refusal is not None:
            return refusal
        if known is not None:
            gone = known.gone_since_s
            if same_process and (
                event.at_s < known.latest.at_s or (gone is not None and event.at_s <= gone + settings.failure_grace_s)
            ):
                return None
            if gone is None and event.at_s - known.latest.at_s > settings.report_timeout_s:
                self._forgive(event.at_s)
        member = observe(known if same_process else None, event, settings.series)
        if event.leaving:
            member = replace(member, gone_since_s=event.at_s, gone_reason="left in order")
        if event.role == "node" and event.model is not None:
            self._model = event.model
        if event.at_s >= self._forget_at_s:
            self._forget(event.at_s)
        self._members[event.name] = member
        self._changed = True
        return None

    def state(self) -> MonitoringState:
        if not self._changed:
            return self._before
        return replace(
            self._before,
            members=self._members,
            model=self._model,
            silence_from_s=self._silence_from_s,
            forgiven_until_s=self._forgiven_until_s,
            forget_at_s=self._forget_at_s,
        )

    def _forgive(self, now_s: float) -> None:
        """The first of a mass silence are heard again: the others get the time that it takes them to connect."""
        since_s = mass_silence_since(self.state(), now_s, self._settings)
        if since_s is not None:
            self._silence_from_s = since_s
            self._forgiven_until_s = now_s + self._settings.mass_silence.heal_s

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - self._settings.forget_after_s
        for name in [name for name, member in self._members.items() if member.latest.at_s < oldest_s]:
            del self._members[name]
        self._forget_at_s = now_s + FORGET_EVERY_S
        self._changed = True

    def _model_conflict(self, event: MemberReported) -> Refusal | None:
        """Stages of two models do not fit together: the first model stays as long as another live node serves it."""
        model = self._model
        if event.role != "node" or event.model is None or model is None or event.model == model:
            return None
        for name, member in self._members.items():
            serves = member.latest.role == "node" and member.latest.model is not None
            if serves and name != event.name and is_alive(member, event.at_s, self._settings):
                return Refusal(
                    f"{event.name} serves model {event.model.name} with another shape than {model.name}, which "
                    f"{name} serves; start it with the same model file"
                )
        return None
