"""Who meets a query, best first, with the reason for every place and every rejection. Pure.

The score is the weighted mean of the preferences' worths (`measures`); without preferences everybody has 1. So it depends
on nothing but the candidate itself. What was not measured, or longer ago than the query allows, is worth 0 in a
preference; where the condition needs it, the candidate is out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from operator import itemgetter
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
    Preference,
    RankedService,
    Ranking,
    Rejection,
)
from mec_platform.registry.discovery.requirements import capabilities_of, requirements_of

MOST_WORK = 1_000_000
"""Tokens that conditions are evaluated over for one query at most: a fifth of a second or so of everybody's time."""

_Measure: TypeAlias = Callable[[ServiceInfo, Kpis | None], float | None]
"""A measure's raw value, from the KPIs as far as they count; None where there is none."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a service was doing at the time of a query; `fresh` are its KPIs unless they are too old to count."""

    kpis: Kpis | None
    fresh: Kpis | None
    age_s: float | None

    @staticmethod
    def of(kpis: Kpis | None, now_unix_ns: int, max_kpi_age_s: float | None) -> Standing:
        """KPIs of a clock that is ahead of ours count as new."""
        if kpis is None:
            return _UNKNOWN
        age_s = max(now_unix_ns - kpis.measured_unix_ns, 0) / 1e9
        return Standing(kpis, kpis if max_kpi_age_s is None or age_s <= max_kpi_age_s else None, age_s)


_UNKNOWN = Standing(None, None, None)


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
    scored: list[tuple[tuple[float, str], ServiceInfo, Standing]] = []
    rejected: Counter[str] = Counter()
    rejections: list[Rejection] = []
    work = 0

    def reject(service: ServiceInfo, unmet: str, reason: Callable[[], str]) -> None:
        rejected[unmet] += 1
        if query.explain_rejected and len(rejections) < MOST_RESULTS:
            rejections.append(Rejection(service.service_id, reason()))

    for service in candidates:
        for requirement in requirements:
            if not requirement.holds(service):
                reject(service, requirement.unmet, lambda: requirement.reason(service))  # noqa: B023 (called at once)
                break
        else:
            standing = Standing.of(kpis.get(service.service_id), now_unix_ns, query.max_kpi_age_s)
            if condition is not None:
                work += condition.work
                if work > MOST_WORK:
                    raise ValueError(
                        f"the condition would be evaluated for more than {MOST_WORK // condition.work} services; "
                        "shorten it, or ask for names, a category, a model or a hardware target as well"
                    )
                refusal = condition.refusal(service, standing.fresh, query.consumer)
                if refusal is not None:
                    reject(service, *_in_words(refusal, standing, query))
                    continue
            scored.append(((-scoring.score(service, standing), service.service_id), service, standing))
    best = nsmallest(query.limit, scored, key=itemgetter(0))
    return Ranking(
        candidates=tuple(scoring.explain(service, standing) for _, service, standing in best),
        matched=len(scored),
        rejected=dict(rejected),
        rejections=tuple(rejections),
    )


def _in_words(refusal: Refusal, standing: Standing, query: DiscoveryQuery) -> tuple[str, Callable[[], str]]:
    """Under what a service is counted that the condition kept out, and why it did."""
    missing = refusal.missing
    if missing.startswith("kpi.") and standing.fresh is not standing.kpis:
        return (
            f"KPIs older than {query.max_kpi_age_s:g} s",
            lambda: f"the condition needs {missing}, and the KPIs are {standing.age_s:.1f} s old",
        )
    if missing:
        return f"without {missing}", lambda: f"the condition needs {missing}, which the service is without"
    if refusal.problem:
        return "condition failed", lambda: f"the condition fails: {refusal.problem}"
    return "condition false", lambda: "the condition is false"


class _Scoring:
    """The preferences of one query, ready to be applied to many services."""

    def __init__(self, query: DiscoveryQuery) -> None:
        self._preferences = [
            (each, _measure(each.measure, query.consumer), each.weight, each.scale.worth, each.direction)
            for each in query.preferences
        ]
        self._total = sum(each.weight for each in query.preferences)
        self._max_kpi_age_s = query.max_kpi_age_s

    def score(self, service: ServiceInfo, standing: Standing) -> float:
        """From 0 to 1."""
        if not self._preferences:
            return 1.0
        score = 0.0
        for _, measure, weight, worth, direction in self._preferences:
            value = measure(service, standing.fresh)
            if value is not None:
                score += weight * worth(value, direction)
        return score / self._total

    def explain(self, service: ServiceInfo, standing: Standing) -> RankedService:
        """The candidate with its score, and how each preference took part in it."""
        contributions = tuple(
            self._contribution(preference, measure(service, standing.fresh), standing)
            for preference, measure, *_ in self._preferences
        )
        return RankedService(service, self.score(service, standing), contributions, standing.kpis, standing.age_s)

    def _contribution(self, preference: Preference, value: float | None, standing: Standing) -> Contribution:
        if value is not None:
            worth = preference.scale.worth(value, preference.direction)
            return Contribution(preference, value, worth, preference.weight * worth / self._total)
        if standing.fresh is not standing.kpis:
            note = f"{standing.age_s:.1f} s old, more than {self._max_kpi_age_s:g} s: counts as worst"
        else:
            note = "not measured: counts as worst"
        return Contribution(preference, None, 0.0, 0.0, note)


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
