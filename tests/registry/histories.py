"""Checks what a watcher has seen against what has happened, as etcd's robustness tests do: ordered, unique, complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.effects import AnnounceService, Effect


@dataclass(frozen=True)
class Seen:
    """One change as a watcher or the recorder saw it."""

    revision: int
    kind: ChangeType
    service_id: str
    version: str


@dataclass
class Recorder:
    """A listener of the registry: what happened, over all of its restarts."""

    happened: list[Seen] = field(default_factory=list)

    def note(self, effect: Effect) -> None:
        if isinstance(effect, AnnounceService):
            service = effect.service
            self.happened.append(Seen(effect.revision, effect.change, service.service_id, service.version))


def complaints(happened: Sequence[Seen], seen: Sequence[Seen], after: int, up_to: int) -> list[str]:
    """What is wrong with what a watcher of everything saw that began after one revision and came to another."""
    found = []
    revisions = [each.revision for each in seen]
    if revisions != sorted(revisions):
        found.append(f"out of order: {revisions}")
    counts = Counter(seen)
    if len(counts) != len(seen):
        found.append(f"repeated: {[each for each in seen if counts[each] > 1]}")
    expected = {each: None for each in happened if after < each.revision <= up_to}
    missing, made_up = (
        [each for each in expected if each not in counts],
        [each for each in seen if each not in expected],
    )
    if missing:
        found.append(f"missing: {missing}")
    if made_up:
        found.append(f"never happened: {made_up}")
    if not found and list(seen) != list(expected):
        found.append(f"in another order than it happened: {seen}")
    return found
