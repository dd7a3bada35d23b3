"""What became of one attempt to deliver a notification, as a value: what happens next is `delivery`'s to decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Delivered:
    """The target took it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Worth another attempt. `unreachable`: the target's host did not answer at all, so others there will fail alike."""

    reason: str
    unreachable: bool = False
    asked_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not worth another attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class Away:
    """Nobody is connected to be told; whoever connects wakes the delivery."""


Outcome: TypeAlias = Delivered | Failed | Rejected | Away
