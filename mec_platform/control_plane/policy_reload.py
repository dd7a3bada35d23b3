"""A policy file in force: read again when it changes and when it is asked for; one that cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from mec_platform.background import BackgroundTasks
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.policy_file import Policies, read_policies
from mec_platform.control_plane.policy_table import PolicyError

LOOK_S = 1.0
"""How often the file is looked at: as often as decisions are made."""

_log = logging.getLogger(__name__)


class PolicyReload:
    """Hands new policies of `path` to `take`. `start`, `stop`; `reload` at any time between."""

    def __init__(self, path: Path, base: ControlSettings, take: Callable[[Policies], None]) -> None:
        self._path = path
        self._base = base
        self._take = take
        self._tasks = BackgroundTasks()
        self._seen = _mark(path)

    def start(self) -> None:
        """Begins to look at the file."""
        self._tasks.start("policy file", self._watch())

    async def stop(self) -> None:
        """Ends that."""
        await self._tasks.stop()

    def reload(self) -> None:
        """Reads the file now. What is wrong with it is logged, and the policies in force stay."""
        self._seen = _mark(self._path)
        try:
            policies = read_policies(self._path, self._base)
        except PolicyError as error:
            _log.error("the policies stay as they are: %s", error)
            return
        _log.warning("new policies from %s", self._path)
        self._take(policies)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if _mark(self._path) != self._seen:
                self.reload()


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What is another one once the file has been written or replaced; None where it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
