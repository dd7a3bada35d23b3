"""The sandbox of `deploy/arm_sandbox.sh`: an aarch64 Python under qemu, whose `-cpu` allows a core's instructions alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 300  # bounds a process under the emulator, far above what any takes

ArmPython = Callable[[str], tuple[str, ...]]
RunArm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def arm_python() -> ArmPython:
    """arm_python(core): the command that runs Python on that core."""
    sandbox = os.environ.get("MEC_ARM_SANDBOX", "")
    interpreter = Path(sandbox) / "python-arm64"
    if not sandbox or not interpreter.exists():
        pytest.fail("no ARM sandbox; run deploy/arm_sandbox.sh DIR as root, and set MEC_ARM_SANDBOX=DIR")

    def command(core: str) -> tuple[str, ...]:
        return ("env", f"PYTHONPATH={CHECKOUT}", f"QEMU_CPU_MODEL={core}", str(interpreter))

    return command


@pytest.fixture(scope="session")
def run_arm(arm_python: ArmPython) -> RunArm:
    """run_arm(core, *arguments): Python on that core, to its end."""

    def run(core: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*arm_python(core), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)

    return run
