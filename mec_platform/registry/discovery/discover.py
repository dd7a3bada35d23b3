"""Answers discovery's questions from a state of the registry and the KPIs of the moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mec_platform.domain.capabilities import Kpis
from mec_platform.registry.discovery.conditions import compile_condition
from mec_platform.registry.discovery.narrow import narrow
from mec_platform.registry.discovery.query import DiscoveryQuery, Ranking
from mec_platform.registry.discovery.ranking import rank
from mec_platform.registry.state import RegistryState


def discover(state: RegistryState, kpis: Mapping[str, Kpis], query: DiscoveryQuery, now_unix_ns: int) -> Ranking:
    """The services that meet the query and that its consumer may learn of, best first. `kpis` are by service id.

    Raises:
        ConditionError: the query's condition is none (a ValueError).
        ValueError: the condition is too much work for as many services; the message says how to ask for fewer.
    """
    condition = compile_condition(query.condition) if query.condition else None
    return rank(narrow(state, query), kpis, query, now_unix_ns, condition)
