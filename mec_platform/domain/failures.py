"""How a member failed, as whoever waited for it tells the others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """What was seen of a failure; the values are for people too."""

    LINK_BROKEN = "link broken"
    """A stream to it ended; whether it lives is not known."""

    NOT_ANSWERING = "not answering"
    """Its connections stand, but the process answers nothing: it hangs. A slow one answers while its work takes long."""

    GONE = "gone"
    """Its host refuses connections: there is no such process any more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind and what was seen."""

    kind: FailureKind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"
