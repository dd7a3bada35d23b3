"""Who meets a query, best first, with the reason for every place and every rejection. Pure.

The score is the weighted mean of the preferences' worths (`measures`); without preferences everybody has 1. So it depends
on nothing but the candidate itself. What was not measured, or longer ago than the query allows, is worth 0 in a
preference; where the condition needs it, the candidate is out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import nsmallest
from typing import TypeAlias

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.discovery.conditions import CompiledCondition, Refusal
from mec_platform.registry.discovery.measures import DISTANCE, TRUST_LEVEL
from mec_platform.registry.discovery.query import (
    MOST_RESULTS,
    Contribution,
    DiscoveryQuery,
    RankedService,
    Ranking,
    Rejection,
)
from mec_platform.registry.discovery.requirements import capabilities_of, first_unmet, requirements_of

MOST_WORK = 1_000_000
"""Tokens that conditions are evaluated over for one query at most: a fifth of a second or so of everybody's time."""

_Measure: TypeAlias = Callable[[ServiceInfo, Kpis | None], float | None]
"""A measure's raw value, from the KPIs as far as they count; None where there is none."""


def rank(
    candidates: Iterable[ServiceInfo],
    kpis: Mapping[str, Kpis],
    query: DiscoveryQuery,
    now_unix_ns: int,
    condition: CompiledCondition | None,
) -> Ranking:
    """The candidates that meet the query, best first. `condition` is the query's, compiled; None where it has none.

    Raises:
        ValueError: so many candidates meet the cheap requirements that the condition would hold up everybody else.
    """
    requirements = requirements_of(query)
    scoring = _Scoring(query)
    oldest_ns = oldest_that_counts(now_unix_ns, query.max_kpi_age_s)
    rejected = _Rejected(query, now_unix_ns)
    scored: list[tuple[float, str, ServiceInfo, Kpis | None]] = []
    evaluations = MOST_WORK // condition.work if condition is not None else 0
    for service in candidates:
        unmet = first_unmet(requirements, service)
        if unmet is not None:
            rejected.add(service, unmet.unmet, unmet.reason)
            continue
        measured = kpis.get(service.service_id)
        fresh = measured if measured is not None and measured.measured_unix_ns >= oldest_ns else None
        if condition is not None:
            if not evaluations:
                raise ValueError(
                    f"the condition would be evaluated for more than {MOST_WORK // condition.work} services; "
                    "shorten it, or ask for names, a category, a model or a hardware target as well"
                )
            evaluations -= 1
            refusal = condition.refusal(service, fresh, query.consumer)
            if refusal is not None:
                rejected.add_refused(service, refusal, measured, fresh)
                continue
        scored.append((-scoring.score(service, fresh), service.service_id, service, fresh))
    best = nsmallest(query.limit, scored)
    return Ranking(
        candidates=tuple(
            scoring.explain(service, -worse, kpis.get(service_id), fresh, now_unix_ns)
            for worse, service_id, service, fresh in best
        ),
        matched=len(scored),
        rejected=dict(rejected.counts),
        rejections=tuple(nsmallest(MOST_RESULTS, rejected.reasons, key=lambda each: each.service_id)),
    )


def oldest_that_counts(now_unix_ns: int, max_kpi_age_s: float | None) -> int:
    """When KPIs must have been measured, or later, to count; any time where no age is asked for."""
    return 0 if max_kpi_age_s is None else now_unix_ns - round(max_kpi_age_s * 1e9)


def age_s(kpis: Kpis, now_unix_ns: int) -> float:
    """How old they are; those of a clock that is ahead of ours are new."""
    return max(now_unix_ns - kpis.measured_unix_ns, 0) / 1e9


class _Rejected:
    """Who was kept out, by what; reasons one by one only where the query asks for them."""

    def __init__(self, query: DiscoveryQuery, now_unix_ns: int) -> None:
        self._query = query
        self._now_unix_ns = now_unix_ns
        self.counts: Counter[str] = Counter()
        self.reasons: list[Rejection] = []

    def add(self, service: ServiceInfo, unmet: str, reason: Callable[[ServiceInfo], str]) -> None:
        self.counts[unmet] += 1
        if self._query.explain_rejected:
            self.reasons.append(Rejection(service.service_id, reason(service)))

    def add_refused(self, service: ServiceInfo, refusal: Refusal, measured: Kpis | None, fresh: Kpis | None) -> None:
        """The condition keeps it out."""
        missing = refusal.missing
        if missing.startswith("kpi.") and measured is not None and fresh is None:
            age = age_s(measured, self._now_unix_ns)
            unmet = f"KPIs older than {self._query.max_kpi_age_s:g} s"
            self.add(service, unmet, lambda each: f"the condition needs {missing}, and the KPIs are {age:.1f} s old")
        elif missing:
            reason = f"the condition needs {missing}, which the service is without"
            self.add(service, f"without {missing}", lambda each: reason)
        elif refusal.problem:
            self.add(service, "condition failed", lambda each: f"the condition fails: {refusal.problem}")
        else:
            self.add(service, "condition false", lambda each: "the condition is false")


class _Scoring:
    """The preferences of one query, ready to be applied to many services."""

    def __init__(self, query: DiscoveryQuery) -> None:
        self._preferences = [
            (each, _measure(each.measure, query.consumer), each.weight, each.scale.worth, each.direction)
            for each in query.preferences
        ]
        self._total = sum(each.weight for each in query.preferences)
        self._max_kpi_age_s = query.max_kpi_age_s

    def score(self, service: ServiceInfo, fresh: Kpis | None) -> float:
        """From 0 to 1; `fresh` are the KPIs that count."""
        if not self._preferences:
            return 1.0
        score = 0.0
        for _, measure, weight, worth, direction in self._preferences:
            value = measure(service, fresh)
            if value is not None:
                score += weight * worth(value, direction)
        return score / self._total

    def explain(
        self, service: ServiceInfo, score: float, measured: Kpis | None, fresh: Kpis | None, now_unix_ns: int
    ) -> RankedService:
        """The candidate with its `score`, and how each preference took part in it."""
        age = None if measured is None else age_s(measured, now_unix_ns)
        note = "not measured: counts as worst"
        if measured is not None and fresh is None:
            note = f"{age:.1f} s old, more than {self._max_kpi_age_s:g} s: counts as worst"
        contributions = []
        for preference, measure, weight, worth, direction in self._preferences:
            value = measure(service, fresh)
            if value is None:
                contributions.append(Contribution(preference, None, 0.0, 0.0, note))
            else:
                normalised = worth(value, direction)
                contributions.append(Contribution(preference, value, normalised, weight * normalised / self._total))
        return RankedService(service, score, tuple(contributions), measured, age)


def _measure(name: str, consumer: Locality) -> _Measure:
    if name == TRUST_LEVEL:
        return lambda service, kpis: capabilities_of(service).trust_level
    if name == DISTANCE:
        steps: dict[Locality, int] = {}  # many services are in few places

        def distance(service: ServiceInfo, kpis: Kpis | None) -> float:
            place = service.locality
            if place not in steps:
                steps[place] = place.steps_to(consumer)
            return steps[place]

        return distance
    return lambda service, kpis: None if kpis is None else getattr(kpis, name)
