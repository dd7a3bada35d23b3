"""The benchmark of changes survives what it meets: a change that fails is counted with its reason, and the rest go on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import reconfigure
from tests.benchmarks.answers import Answer
from tests.benchmarks.disturbances import Disturbed
from tests.benchmarks.machine import BenchmarkError


class Fragile:
    """Disturbs two answers: a token of the first is another one than it should be, the second does not come."""

    def __init__(self, *_arguments: object) -> None:
        self.mended = 0
        self._asked = 0

    async def disturb(self, kind: str) -> Disturbed:
        self._asked += 1
        if self._asked == 2:
            raise BenchmarkError("the gateway is gone")
        return Disturbed(Answer(tokens=[1, 2, 9], epochs=[1, 1, 1], came_s=[0.0, 0.1, 0.2]))

    async def mend(self) -> None:
        self.mended += 1


@pytest.mark.asyncio
async def test_a_change_that_fails_is_counted_and_the_rest_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fragile, told = Fragile(), []

    async def ask(*_arguments: object) -> Answer:
        return Answer(tokens=[1, 2, 3])

    monkeypatch.setattr(reconfigure, "Disturber", lambda *_arguments: fragile)
    monkeypatch.setattr(reconfigure, "ask", ask)
    counts, extent = reconfigure._Counts(), reconfigure.Extent(count=3)
    no_cluster: Any = None
    await reconfigure._disturb_all(no_cluster, 30, extent, counts, told.append)
    assert counts.failures == {"re-split: the gateway is gone": 1}
    assert fragile.mended == 1
    assert (counts.answers, counts.identical, counts.lost, counts.repeated) == (3, 0, 1 + 3 + 1, 0)
    assert told[-1].startswith("3 of 3 changes")
    criteria = {each["name"]: each for each in reconfigure._result(extent, counts, {})["criteria"]}
    assert [criteria[name]["ok"] for name in ("tokens_lost", "failed", "identical")] == [False, False, False]
