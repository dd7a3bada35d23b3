"""DNS rules as a hosts file that dnsmasq serves.

dnsmasq re-reads hosts files while it runs, its configuration only when it starts. So rules become lines of a hosts file,
and never `host-record=` lines, although those could carry a TTL: a rule that is switched off must be gone at once.
What dnsmasq answers from a hosts file has its `local-ttl`, 0 unless it was told otherwise: nobody keeps an answer longer
than its rule allows, and a rule without TTL stands until it is changed.

Two ways to have dnsmasq use the folder, one line of its configuration each:
- `hostsdir=DIR`: dnsmasq (2.87 or newer) sees by itself that a file there was replaced;
- `addn-hosts=DIR/mec.hosts`, and the platform is told dnsmasq's PID file: it sends SIGHUP, which also empties the cache.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from mec_platform.data_plane.port import DataPlaneError, DataPlaneRules, Refusal, RuleKind
from mec_platform.domain.network_addresses import parse_address, parse_domain_name

FILE_NAME = "mec.hosts"
_HEADER = "# DNS rules of MEC applications. Written by the MEC platform; changes made here are lost.\n"


def compile_hosts(rules: DataPlaneRules) -> str:
    """The hosts file: one line for each pair of address and name, in the order of the names.

    A name that several applications claim has all their addresses: the standard ranks DNS rules in no way.
    """
    pairs = dict.fromkeys(
        (parse_domain_name(each.rule.domain_name), parse_address(each.rule.ip_address)) for each in rules.dns
    )
    return _HEADER + "".join(f"{address} {name}\n" for name, address in pairs)


class DnsmasqDataPlane:
    """Implements `DataPlane` for DNS rules: replaces `folder`/mec.hosts and tells dnsmasq, where it is told which one."""

    name = "dnsmasq"
    enforces = frozenset({RuleKind.DNS})

    def __init__(self, folder: Path, pid_file: Path | None = None) -> None:
        self._folder = folder
        self._pid_file = pid_file
        self._text = ""

    def apply(self, rules: DataPlaneRules) -> tuple[Refusal, ...]:
        """Enforces every rule; raises DataPlaneError where the folder cannot be written or dnsmasq cannot be told."""
        self._text = compile_hosts(rules)
        self._replace(self._text)
        if self._pid_file is not None:
            self._tell(self._pid_file)
        return ()

    def is_intact(self) -> bool:
        """Whether the file has the content that was written."""
        try:
            return (self._folder / FILE_NAME).read_text(encoding="ascii", errors="replace") == self._text
        except OSError:
            return False

    def _replace(self, text: str) -> None:
        target = self._folder / FILE_NAME
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # dnsmasq skips names that begin with a dot, so it never reads a file that is half written.
            with tempfile.TemporaryDirectory(prefix=f".{FILE_NAME}.", dir=self._folder) as unfinished:
                file = Path(unfinished, FILE_NAME)
                file.write_text(text, encoding="ascii")
                # dnsmasq reads as a user of its own.
                file.chmod(0o644)
                os.replace(file, target)
        except OSError as error:
            raise DataPlaneError(
                f"cannot write {target}: {error.strerror}; "
                "give the platform's user the folder, or another one: --data-plane dnsmasq:DIR"
            ) from error

    def _tell(self, pid_file: Path) -> None:
        try:
            pid = int(pid_file.read_text(encoding="ascii"))
            program = Path(f"/proc/{pid}/comm").read_text().strip()
            # A PID file that dnsmasq left behind may name anybody by now.
            if program != "dnsmasq":
                raise ValueError(f"process {pid} is {program}")
            os.kill(pid, signal.SIGHUP)
        except (OSError, ValueError) as error:
            raise DataPlaneError(
                f"{self._folder / FILE_NAME} is written, but dnsmasq cannot be told by {pid_file} ({error}); "
                "start dnsmasq with --pid-file, and let the platform's user send it signals"
            ) from error
