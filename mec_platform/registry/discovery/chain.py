"""The fastest chain of services that together cover blocks of a model. Pure and exact, in polynomial time.

A shortest path: a partial chain is known by the blocks that it covers and the service that serves the last of them. It goes on with
the next block on the same service, or with a hop to another one. Rounds allow one call more each, until no round finds
anything better or the calls are used up; so a chain is the best of all with at most that many calls. With B blocks, S
services and C calls that is O(B S C) where a hop's time depends on its target alone, else O(B S^2 C).

A service serves any part of its range. It may be called again for a later part, where a faster one lies between: to
forbid that would make the problem one of simple paths, which nobody solves in polynomial time.

Ties: fewer calls, then the alphabetical order of ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from typing import Protocol, TypeAlias

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.discovery.chain_query import Call, Chain, ChainQuery, HopTime, NoChain
from mec_platform.registry.discovery.ranking import oldest_that_counts
from mec_platform.registry.discovery.requirements import capabilities_of, first_unmet, requirements_of

MOST_WORK = 2_000_000
"""Steps of one round of the search at most: about a second."""


@dataclass(frozen=True, slots=True)
class _Site:
    """A service that may take part, and the blocks that it may serve here."""

    service_id: str
    layers: LayerRange
    block_ms: float
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class _Partial:
    """A partial chain, linked backwards: it stands on `site`, which it reached from `before` at block `start`."""

    cost: float
    calls: int
    site: int
    start: int
    hop_ms: float
    before: _Partial | None

    @property
    def rank(self) -> tuple[float, int]:
        """The lower, the better."""
        return self.cost, self.calls


_Enter: TypeAlias = Callable[[int], "tuple[_Partial, float] | None"]
"""For a site: the best partial chain to come from, and the hop's milliseconds."""


class _Hops(Protocol):
    """What the ways between the consumer and the sites take."""

    def entries(self, arrivals: Sequence[_Partial]) -> _Enter:
        """How sites are best reached from these partial chains."""

    def back(self, site: int) -> float | None:
        """The way from a site to the consumer."""


_CONSUMER = -1
_AT_CONSUMER = _Partial(0.0, 0, _CONSUMER, 0, 0.0, None)


def find_chain(
    services: Iterable[ServiceInfo],
    kpis: Mapping[str, Kpis],
    query: ChainQuery,
    now_unix_ns: int,
    hop_ms: HopTime | None = None,
) -> Chain | NoChain:
    """The chain that takes least time for a token, or why there is none.

    A service's blocks take equal parts of `1 / tokens_per_s`. Without `hop_ms` the consumer calls each service itself, at its
    `rtt_ms`; with it, each service hands over to the next.

    Raises:
        ValueError: there are too many services for as many blocks (the message says how to ask for fewer), or `hop_ms`
            gives what is no time.
    """
    left_out: Counter[str] = Counter()
    sites = _sites(services, kpis, query, now_unix_ns, left_out, by_rtt=hop_ms is None)
    blocks = query.blocks
    if uncovered := _uncovered(blocks, sites):
        ranges = ", ".join(map(str, uncovered))
        others = _counted(left_out)
        return NoChain(f"no service may serve blocks {ranges} of {query.model!r}; left out: {others}", uncovered)
    work = len(blocks) * len(sites) * (1 if hop_ms is None else len(sites))
    if work > MOST_WORK:
        raise ValueError(
            f"{len(sites)} services for {len(blocks)} blocks are too many to search; "
            "ask for fewer blocks, a higher trust, one quantisation or newer KPIs"
        )
    hops: _Hops = _Star(sites) if hop_ms is None else _Links(sites, hop_ms)

    def cheapest(most_calls: int) -> Chain | None:
        found = _search(sites, blocks, hops, most_calls)
        return None if found is None else _chain(*found, sites, blocks.stop, left_out)

    best = cheapest(query.max_calls)
    if best is None:
        longer = cheapest(len(blocks))
        if longer is None:
            return NoChain(f"services cover blocks {blocks} of {query.model!r}, but no links join them to a chain")
        return NoChain(
            f"no chain of at most {query.max_calls} calls covers blocks {blocks} of {query.model!r}; "
            f"without that limit the cheapest makes {len(longer.calls)}",
            cheapest=longer,
        )
    if query.max_latency_ms is not None and best.latency_ms > query.max_latency_ms:
        return NoChain(
            f"the cheapest chain takes {best.latency_ms:.2f} ms a token, more than {query.max_latency_ms:g} ms",
            cheapest=best,
        )
    return best


def _sites(
    services: Iterable[ServiceInfo],
    kpis: Mapping[str, Kpis],
    query: ChainQuery,
    now_unix_ns: int,
    left_out: Counter[str],
    by_rtt: bool,
) -> list[_Site]:
    """Who may take part, in alphabetical order; the others are counted in `left_out`."""
    requirements = requirements_of(query.for_each)
    oldest_ns = oldest_that_counts(now_unix_ns, query.max_kpi_age_s)
    sites = []
    for service in services:
        unmet = first_unmet(requirements, service)
        site = unmet.unmet if unmet else _site(service, kpis.get(service.service_id), query, oldest_ns, by_rtt)
        if isinstance(site, str):
            left_out[site] += 1
        else:
            sites.append(site)
    return sorted(sites, key=lambda site: site.service_id)


def _site(service: ServiceInfo, kpis: Kpis | None, query: ChainQuery, oldest_ns: int, by_rtt: bool) -> _Site | str:
    """What the service, one of the model, can do for the chain, or why nothing."""
    capabilities = capabilities_of(service)
    trusted = capabilities.trust_level >= query.trust_at_least
    allowed = query.blocks if trusted else query.open_blocks
    layers = capabilities.layers
    offered = None if layers is None or allowed is None else layers.intersection(allowed)
    if layers is None or offered is None:
        return f"trusted less than {query.trust_at_least}"
    if kpis is None or kpis.tokens_per_s is None or (by_rtt and kpis.rtt_ms is None):
        return "without measured tokens_per_s" + (" and rtt_ms" if by_rtt else "")
    if kpis.measured_unix_ns < oldest_ns:
        return f"KPIs older than {query.max_kpi_age_s:g} s"
    if not kpis.tokens_per_s:
        return "at 0 tokens per second"
    return _Site(service.service_id, offered, 1000 / kpis.tokens_per_s / len(layers), kpis.rtt_ms or 0.0)


def _uncovered(blocks: LayerRange, sites: Sequence[_Site]) -> tuple[LayerRange, ...]:
    """Blocks that no site serves, as few ranges as possible."""
    gaps = []
    covered = blocks.start
    for start, stop in sorted((site.layers.start, site.layers.stop) for site in sites):
        if start > covered:
            gaps.append(LayerRange(covered, start))
        covered = max(covered, stop)
    if covered < blocks.stop:
        gaps.append(LayerRange(covered, blocks.stop))
    return tuple(gaps)


def _counted(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"


def _search(sites: Sequence[_Site], blocks: LayerRange, hops: _Hops, most_calls: int) -> tuple[_Partial, float] | None:
    """The best complete chain of at most so many calls, and its way back."""
    table: list[list[_Partial | None]] = [[None] * len(sites) for _ in range(len(blocks) + 1)]
    for _ in range(most_calls):
        before, table = table, _round(sites, blocks, hops, table)
        if all(map(_costs_the_same, before, table)):
            break
    complete = [
        (partial, back)
        for partial in table[-1]
        if partial is not None and (back := hops.back(partial.site)) is not None
    ]
    return min(complete, key=lambda each: (each[0].cost + each[1], each[0].calls), default=None)


def _costs_the_same(before: Sequence[_Partial | None], after: Sequence[_Partial | None]) -> bool:
    return all(
        (old is None) == (new is None) and (old is None or new is None or old.rank == new.rank)
        for old, new in zip(before, after, strict=True)
    )


def _round(
    sites: Sequence[_Site], blocks: LayerRange, hops: _Hops, before: Sequence[Sequence[_Partial | None]]
) -> list[list[_Partial | None]]:
    """By number of covered blocks and site of the last one: the best partial chains with one call more than in `before`."""
    table: list[list[_Partial | None]] = [[None] * len(sites) for _ in range(len(blocks) + 1)]
    for covered, block in enumerate(blocks):
        arrivals = [partial for partial in before[covered] if partial is not None] if covered else [_AT_CONSUMER]
        enter = hops.entries(arrivals)
        for index, site in enumerate(sites):
            if not site.layers.start <= block < site.layers.stop:
                continue
            stays, entry = table[covered][index], enter(index)
            best = stays
            if entry is not None:
                origin, hop_ms = entry
                if stays is None or (origin.cost + hop_ms, origin.calls + 1) < stays.rank:
                    best = _Partial(origin.cost + hop_ms, origin.calls + 1, index, block, hop_ms, origin)
            if best is not None:
                table[covered + 1][index] = replace(best, cost=best.cost + site.block_ms)
    return table


class _Star:
    """The consumer calls each service itself and has its answer a round trip later."""

    def __init__(self, sites: Sequence[_Site]) -> None:
        self._rtt_ms = [site.rtt_ms for site in sites]

    def entries(self, arrivals: Sequence[_Partial]) -> _Enter:
        # A hop's time depends on its target alone, so all targets are best reached from the same chain.
        best = min(arrivals, key=lambda partial: partial.rank, default=None)
        return lambda site: None if best is None else (best, self._rtt_ms[site])

    def back(self, site: int) -> float | None:
        return 0.0


class _Links:
    """Each service hands over to the next, the last one to the consumer."""

    def __init__(self, sites: Sequence[_Site], hop_ms: HopTime) -> None:
        ids: list[str | None] = [*(site.service_id for site in sites), None]  # the consumer at index -1
        self._ms = [[hop_ms(source, target) for target in ids] for source in ids]
        for time_ms in chain.from_iterable(self._ms):
            if time_ms is not None and not 0 <= time_ms < inf:
                raise ValueError(f"a hop takes a finite number of milliseconds from 0, or is None; found {time_ms}")

    def entries(self, arrivals: Sequence[_Partial]) -> _Enter:
        def enter(site: int) -> tuple[_Partial, float] | None:
            ways = [
                (partial, hop_ms)
                for partial in arrivals
                if partial.site != site and (hop_ms := self._ms[partial.site][site]) is not None
            ]
            return min(ways, key=lambda way: (way[0].cost + way[1], way[0].calls), default=None)

        return enter

    def back(self, site: int) -> float | None:
        return self._ms[site][_CONSUMER]


def _chain(last: _Partial, return_ms: float, sites: Sequence[_Site], stop: int, left_out: Mapping[str, int]) -> Chain:
    """The partial chains as calls, first to last."""
    calls: list[Call] = []
    partial: _Partial | None = last
    while partial is not None and partial.before is not None:
        site = sites[partial.site]
        layers = LayerRange(partial.start, stop)
        calls.insert(0, Call(site.service_id, layers, partial.hop_ms, len(layers) * site.block_ms))
        stop, partial = partial.start, partial.before
    return Chain(tuple(calls), return_ms, dict(left_out))
