"""What a consumer asks of discovery, and what it is answered, as frozen values.

Counterparts: `ranking` answers a query, `wire` translates both from and to protobuf messages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType

from mec_platform.domain.capabilities import LONGEST_TEXT, MOST_LABELS, Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import ServiceInfo, ServiceState
from mec_platform.registry.discovery.measures import SCALES, Direction, Saturating, Scale

MOST_VALUES = 256
"""Values of one requirement, as in names."""

MOST_PREFERENCES = 16
HEAVIEST = 1e6
"""Largest weight, so that sums of weights stay finite."""

MOST_RESULTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """By what the better ones of those that meet the requirements are told; weights count relative to each other.

    `measure` is one of `measures.SCALES`. `half` is the value that is worth one half, for measures without an upper end.

    Raises:
        ValueError: there is no such measure, the weight or `half` is out of its bounds, or the measure takes no half.
    """

    measure: str
    direction: Direction
    weight: float = 1.0
    half: float | None = None

    def __post_init__(self) -> None:
        if self.measure not in SCALES:
            raise ValueError(f"there is no measure {self.measure!r} to prefer by; there are {', '.join(SCALES)}")
        if not 0 < self.weight <= HEAVIEST:
            raise ValueError(
                f"the weight of {self.measure} must be above 0 and at most {HEAVIEST:g}, found {self.weight}"
            )
        if self.half is None:
            return
        if not isinstance(SCALES[self.measure], Saturating):
            raise ValueError(f"{self.measure} has a scale with two ends; leave its half out")
        if not 0 < self.half < inf:
            raise ValueError(f"the half of {self.measure} must be a finite number above 0, found {self.half}")

    @property
    def scale(self) -> Scale:
        """How raw values become worth."""
        return SCALES[self.measure] if self.half is None else Saturating(self.half)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryQuery:
    """Requirements AND, values of one requirement OR; empty and None ask for nothing.

    `covers`: the service has all of these blocks; `intersects`: one of them at least. `labels`: these, equal.
    `must_be_local`: the standard's `isLocal` for `consumer`. `condition` is a CEL text (see `conditions`). KPIs older than
    `max_kpi_age_s` count as not measured. The best `limit` are answered.

    Raises:
        ValueError: a value is out of its bounds; the message says which and what would do.
    """

    consumer: Locality
    service_ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    category_ids: frozenset[str] = frozenset()
    states: frozenset[ServiceState] = frozenset({ServiceState.ACTIVE})
    model: str = ""
    covers: LayerRange | None = None
    intersects: LayerRange | None = None
    quantisations: frozenset[str] = frozenset()
    hardware_targets: frozenset[str] = frozenset()
    trust_at_least: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scope_of_locality: LocalityType | None = None
    must_be_local: bool = False
    condition: str = ""
    preferences: tuple[Preference, ...] = ()
    max_kpi_age_s: float | None = None
    limit: int = 100
    explain_rejected: bool = False

    def __post_init__(self) -> None:
        for name in ("service_ids", "names", "category_ids", "quantisations", "hardware_targets"):
            check_texts(name, getattr(self, name))
        check_texts("model", (self.model,))
        check_texts("labels", (*self.labels, *self.labels.values()), 2 * MOST_LABELS)
        check_trust(self.trust_at_least)
        check_kpi_age(self.max_kpi_age_s)
        if not 1 <= self.limit <= MOST_RESULTS:
            raise ValueError(f"limit must be from 1 to {MOST_RESULTS}, found {self.limit}")
        if len(self.preferences) > MOST_PREFERENCES:
            raise ValueError(f"a query has at most {MOST_PREFERENCES} preferences, found {len(self.preferences)}")
        preferred = [each.measure for each in self.preferences]
        if twice := next((each for each in preferred if preferred.count(each) > 1), None):
            raise ValueError(f"{twice} is preferred by twice; give one preference with the weight that it should have")


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one preference gave a candidate. `value` None: nothing to go by, for the reason in `note`; it counts as worst.

    `normalised` is from 0 (worst) to 1; contributions sum up to the score.
    """

    preference: Preference
    value: float | None
    normalised: float
    contribution: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class RankedService:
    """A candidate with its score from 0 to 1 and why it has it; `kpi_age_s` None where nothing was measured."""

    service: ServiceInfo
    score: float
    contributions: tuple[Contribution, ...]
    kpis: Kpis | None
    kpi_age_s: float | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one service is not among the candidates."""

    service_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best candidates, best first; ties by service id. `matched` counts those beyond the limit too.

    `rejected` counts, of the services that the index gave, those that a requirement kept out, by the first that did;
    `rejections` names them one by one where the query asked for it, by service id and `MOST_RESULTS` at most.
    """

    candidates: tuple[RankedService, ...]
    matched: int
    rejected: Mapping[str, int]
    rejections: tuple[Rejection, ...] = ()

    def why_not_others(self) -> str:
        """As in `12 not ACTIVE, 5 condition false`; empty where nobody was kept out."""
        most_first = sorted(self.rejected.items(), key=lambda each: (-each[1], each[0]))
        return ", ".join(f"{count} {requirement}" for requirement, count in most_first)


def check_texts(name: str, texts: Collection[str], most: int = MOST_VALUES) -> None:
    """Raises ValueError where there are more than `most`, or one is longer than any attribute of a service is."""
    if len(texts) > most:
        raise ValueError(f"{name} takes at most {most} values, found {len(texts)}; ask several times")
    if any(len(text) > LONGEST_TEXT for text in texts):
        raise ValueError(f"a value of {name} has at most {LONGEST_TEXT} characters")


def check_trust(trust_at_least: int) -> None:
    """Raises ValueError for a trust level that no service can have."""
    if trust_at_least < 0:
        raise ValueError(f"trust_at_least must be 0 or more, found {trust_at_least}")


def check_kpi_age(max_kpi_age_s: float | None) -> None:
    """Raises ValueError unless it is None or a finite number above 0."""
    if max_kpi_age_s is not None and not 0 < max_kpi_age_s < inf:
        raise ValueError(f"max_kpi_age_s must be a finite number above 0, or absent for any age; found {max_kpi_age_s}")
