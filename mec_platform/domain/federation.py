"""What one MEC host keeps of another one whose services it shares (reference point Mp3, ETSI GS MEC 003 clause 6.4), as frozen
values. `registry.federation` keeps the copies in step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerCursor:
    """A place in the history of a peer's registry: all that it shared up to and including `revision` is here.

    `registry_id` says which registry that is: one that begins anew under an old name has another one. `revision` None: the
    copy is of no one moment, and has to be compared with a list of everything before it can be kept in step again.
    """

    registry_id: str
    revision: int | None
