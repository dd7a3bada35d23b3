"""Processes that hold what users say keep it out of core dumps."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Has the kernel write no core dump of this process, to a file or to a handler, and lets nobody but root read its memory.

    Swap is not in its hands: a machine that swaps to a disk which others can read needs an encrypted one, or none.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A handler that core_pattern pipes to gets dumps whatever the limit is, but none of a process that is not dumpable.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
