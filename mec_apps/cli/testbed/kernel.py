"""How the testbed asks the kernel for things: `ip` and `tc`, with errors that say what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from mec_apps.cli.requests import CliError

COMMAND_TIMEOUT_S = 20.0


def check_tools() -> None:
    """Raises CliError where this process is not root, or iproute2 is not installed."""
    if os.geteuid() != 0:
        raise CliError("network namespaces and quotas need root: run it with sudo")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise CliError(f"{tool} is not installed: on Debian, apt-get install iproute2")


def run_tool(*command: str) -> str:
    """What the command prints. Raises CliError with what it complains of."""
    done = _run(command)
    if done.returncode != 0:
        raise CliError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def try_tool(*command: str) -> str | None:
    """What the command prints, None where it fails: for taking down what may not be there any more."""
    done = _run(command)
    return done.stdout if done.returncode == 0 else None


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
