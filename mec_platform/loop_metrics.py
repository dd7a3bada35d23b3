"""How many tasks an event loop has, for /metrics: a number that only grows is a leak."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class LoopMetrics(Collector):
    """Shows `mec_event_loop_tasks`; may be read from another thread than the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterable[GaugeMetricFamily]:
        tasks = len(asyncio.all_tasks(self._loop))
        yield GaugeMetricFamily("mec_event_loop_tasks", "Requests, streams and work beside them", value=tasks)
