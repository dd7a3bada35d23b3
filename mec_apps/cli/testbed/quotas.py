"""CPU quotas of members, by the kernel's own means: control groups of version 1, or of version 2 where those are in use."""

from __future__ import annotations

from pathlib import Path

from mec_apps.cli.requests import CliError

PERIOD_US = 10_000
"""Short against a token: a member that has used up its share waits milliseconds, as a slower processor would."""

SMALLEST_QUOTA_US = 1_000

BUSY_THREADS = 2
"""Of a node: one computes, one serves. Each weighs as much against the machine's other work as it would without a group;
left alone, a whole testbed would weigh as one thread.
"""

_THREAD_WEIGHT_V1, _THREAD_WEIGHT_V2 = 1024, 100
_ROOT = Path("/sys/fs/cgroup")


class CpuQuotas:
    """A control group for each member, below one of their own called `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._is_v2 = (_ROOT / "cgroup.controllers").exists()
        self._folder = group_folder(prefix)

    def set_up(self, members: list[str]) -> None:
        """Raises CliError where the kernel has no CPU quotas to give."""
        try:
            for folder in (self._folder, *(self._folder / member for member in members)):
                folder.mkdir()
                if self._is_v2 and folder == self._folder:
                    (folder / "cgroup.subtree_control").write_text("+cpu")
            self._weigh(self._folder, BUSY_THREADS * len(members))
            for member in members:
                self._weigh(self._folder / member, BUSY_THREADS)
                self.limit(member, None)
        except OSError as error:
            raise CliError(
                f"no CPU quotas here: {error}; they need root and the cpu controller of control groups"
            ) from error

    def limit(self, member: str, cores: float | None) -> None:
        """What the member's processes may use from now on, in cores; None lifts the limit. Raises CliError."""
        quota_us = None if cores is None else max(int(cores * PERIOD_US), SMALLEST_QUOTA_US)
        folder = self._folder / member
        try:
            if self._is_v2:
                (folder / "cpu.max").write_text(f"{'max' if quota_us is None else quota_us} {PERIOD_US}")
            else:
                (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (folder / "cpu.cfs_quota_us").write_text(str(-1 if quota_us is None else quota_us))
        except OSError as error:
            raise CliError(f"the CPU quota of {member} cannot be set: {error}") from error

    def _weigh(self, folder: Path, threads: int) -> None:
        if self._is_v2:
            (folder / "cpu.weight").write_text(str(min(threads * _THREAD_WEIGHT_V2, 10_000)))
        else:
            (folder / "cpu.shares").write_text(str(threads * _THREAD_WEIGHT_V1))

    def joining(self, member: str) -> tuple[str, ...]:
        """A command that runs what follows it inside the member's group."""
        return ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._folder / member))


def group_folder(prefix: str) -> Path:
    """Where the groups of a testbed are."""
    is_v2 = (_ROOT / "cgroup.controllers").exists()
    return (_ROOT if is_v2 else _ROOT / "cpu") / prefix
