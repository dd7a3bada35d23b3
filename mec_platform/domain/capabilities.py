"""What a service can do, and how it is doing: what consumers, schedulers and other hosts choose by.

Capabilities are part of a service's record and change with it. KPIs are measured, many times a minute, and worth less the
older they are; they are kept in memory beside the record and never written to the log one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from mec_platform.domain.layers import LayerRange

LONGEST_TEXT = 256
MOST_LABELS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a service can do; empty texts and None where it does not say.

    `model`, `layers` (blocks of that model), `quantisation` and `hardware_target` (a row of the compiler's target table) are
    of services that run a model or a part of it. `trust_level` grows with what the service may see: 0 is untrusted, from 1 on
    raw tokens and shallow activations. `labels` are for whatever else consumers choose by.

    Raises:
        ValueError: a text is longer than LONGEST_TEXT, labels are more than MOST_LABELS, or the trust level is negative.
    """

    model: str = ""
    layers: LayerRange | None = None
    quantisation: str = ""
    hardware_target: str = ""
    trust_level: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = (self.model, self.quantisation, self.hardware_target, *self.labels, *self.labels.values())
        if any(len(text) > LONGEST_TEXT for text in texts):
            raise ValueError(f"a capability's text has at most {LONGEST_TEXT} characters")
        if len(self.labels) > MOST_LABELS:
            raise ValueError(f"a service has at most {MOST_LABELS} labels, found {len(self.labels)}")
        if self.trust_level < 0:
            raise ValueError(f"trust_level must not be negative, found {self.trust_level}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpis:
    """How a service was doing at `measured_unix_ns`; None for what was not measured.

    `load` is the part of its capacity that is in use, from 0 to 1; `capacity` is the number of requests that it serves at
    once. `rtt_ms` is the round trip to its consumers' access network, `radio_quality_db` the SINR of the radio link there.

    Raises:
        ValueError: a number is not finite, or negative where that means nothing, or the load is above 1.
    """

    measured_unix_ns: int
    load: float | None = None
    capacity: float | None = None
    free_memory_bytes: int | None = None
    tokens_per_s: float | None = None
    rtt_ms: float | None = None
    radio_quality_db: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None:
                continue
            # Comparisons with NaN are false, so they are written to hold for what is right.
            lowest = -float("inf") if each.name == "radio_quality_db" else 0
            if not lowest <= value < float("inf") or value == -float("inf"):
                raise ValueError(
                    f"{each.name} must be a finite number, negative for radio_quality_db only; found {value}"
                )
        if self.load is not None and self.load > 1:
            raise ValueError(f"load is a part of the capacity, from 0 to 1; found {self.load}")


KPI_NAMES = tuple(each.name for each in fields(Kpis) if each.name != "measured_unix_ns")
