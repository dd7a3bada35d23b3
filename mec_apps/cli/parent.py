"""A process that another one started for itself ends with it, however that one went."""

from __future__ import annotations

import ctypes
import os
import signal

PARENT_VARIABLE = "MEC_PARENT_PID"
"""Names the process to end with; `LocalCluster` sets it for its children."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Has the kernel send SIGTERM when the named parent is gone; does it at once where it is gone already."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGTERM)
