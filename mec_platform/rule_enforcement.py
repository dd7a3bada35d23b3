"""Joins the registry and the data planes of a host: what applications want is what gets applied. Neither knows the other."""

from __future__ import annotations

from collections.abc import Iterable

from mec_platform.data_plane.port import DataPlane, active_rules
from mec_platform.data_plane.reconciler import Reconciler, Wanted
from mec_platform.registry.effects import ApplyRules, Effect
from mec_platform.registry.registry import Registry


def enforce_rules(registry: Registry, planes: Iterable[DataPlane]) -> Reconciler:
    """A reconciler that hears of every change of rules in this registry; to be started once the registry is."""

    def read() -> Wanted:
        state = registry.state
        return Wanted(state.revision, active_rules(tuple(state.apps.values())))

    def listen(effect: Effect) -> None:
        if isinstance(effect, ApplyRules):
            reconciler.request()

    reconciler = Reconciler(planes, read, sleep=registry.clock.sleep, unix_ns=registry.clock.unix_ns)
    registry.add_listener(listen)
    return reconciler
