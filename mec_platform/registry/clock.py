"""The time that shells read and hand on; pure code gets it as an argument, tests give their own."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two times that must not be mixed up, and waiting."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes backwards. For deadlines."""

    def unix_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; may jump. For time stamps that leave the process."""

    async def sleep(self, seconds: float) -> None:
        """Returns when `seconds` have passed."""


class SystemClock:
    """The machine's clock."""

    def monotonic_s(self) -> float:
        """`time.monotonic`."""
        return time.monotonic()

    def unix_ns(self) -> int:
        """`time.time_ns`."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep`."""
        await asyncio.sleep(seconds)
