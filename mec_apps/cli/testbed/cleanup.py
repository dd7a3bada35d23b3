"""Takes a testbed down: a process of its own does it when the testbed's process has ended, in whatever way.

It is started first and reads a pipe whose other end only the testbed holds: the kernel closes that end also for a process
that was killed. What an earlier testbed left behind after all (its cleaner was killed too) goes by `remove_leftovers`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mec_apps.cli.testbed.kernel import try_tool
from mec_apps.cli.testbed.quotas import group_folder

PREFIX = "mec-testbed-"
_GONE_TIMEOUT_S = 5.0
_POLL_S = 0.02


class Cleaner:
    """Watches over everything whose name begins with `prefix`."""

    def __init__(self, prefix: str) -> None:
        reading, self._writing = os.pipe()
        # A session of its own: Ctrl-C is for the testbed, and whoever cleans up after it must live on.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, prefix, str(reading)],
            pass_fds=[reading],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        os.close(reading)

    def finish(self) -> None:
        """Has everything taken down and waits for it."""
        os.close(self._writing)
        self._process.wait()


def prefix_of(pid: int) -> str:
    """What all names of that process's testbed begin with."""
    return f"{PREFIX}{pid}"


def remove_leftovers() -> list[str]:
    """Takes down testbeds whose process is gone; returns their prefixes."""
    names = [path.name for path in Path("/var/run/netns").glob(f"{PREFIX}*")]
    names += [path.name for path in group_folder("").glob(f"{PREFIX}*")]
    pids = {name.removeprefix(PREFIX).split("-")[0] for name in names}
    gone = [prefix_of(int(pid)) for pid in sorted(pids) if pid.isdigit() and not Path(f"/proc/{pid}").exists()]
    for prefix in gone:
        remove_all(prefix)
    return gone


def remove_all(prefix: str) -> None:
    """Kills every process of the testbed and removes its namespaces and control groups; what is gone already is no error."""
    namespaces = [path.name for path in Path("/var/run/netns").glob(f"{prefix}-*")]
    groups = [path for path in group_folder(prefix).glob("*") if path.is_dir()]
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    owner = int(prefix.removeprefix(PREFIX))  # Inside its own network, and still there to say what went wrong.
    while (pids := _processes(namespaces, groups) - {owner, os.getpid()}) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    for namespace in namespaces:
        try_tool("ip", "netns", "delete", namespace)
    for folder in (*groups, group_folder(prefix)):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _processes(namespaces: list[str], groups: list[Path]) -> set[int]:
    listings = [try_tool("ip", "netns", "pids", name) or "" for name in namespaces]
    for group in groups:
        with contextlib.suppress(OSError):
            listings.append((group / "cgroup.procs").read_text())
    return {int(pid) for listing in listings for pid in listing.split()}


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.read(int(sys.argv[2]), 1)
    remove_all(sys.argv[1])
