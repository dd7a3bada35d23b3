"""Answers discovery's questions from a state of the registry and the KPIs of the moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mec_platform.domain.capabilities import Kpis
from mec_platform.registry.discovery.chain import find_chain
from mec_platform.registry.discovery.chain_query import Chain, ChainQuery, HopTime, NoChain
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


def discover_chain(
    state: RegistryState,
    kpis: Mapping[str, Kpis],
    query: ChainQuery,
    now_unix_ns: int,
    hop_ms: HopTime | None = None,
) -> Chain | NoChain:
    """The fastest chain of services that the consumer may learn of, or why there is none; see `chain.find_chain`.

    Raises:
        ValueError: there are too many services for as many blocks; the message says how to ask for fewer.
    """
    return find_chain(narrow(state, query.for_each), kpis, query, now_unix_ns, hop_ms)
