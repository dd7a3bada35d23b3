"""A network of namespaces: a member in each, all on one bridge, every direction between two members shaped on its own.

Each member has one interface to the bridge. What it sends passes an HTB class for its receiver, so the rate of a link is
set where its sender is; a class without a limit lets pass whatever comes. The kernel here delays nothing: round trips
are those of the machine, and of queues in front of links that are full.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from mec_apps.cli.testbed.kernel import run_tool

UNSHAPED_BYTES_PER_S = 10e9 / 8
SUBNET = "10.77.0"
HUB_ADDRESS = f"{SUBNET}.1"
MOST_MEMBERS = 200
_INTERFACE = "eth0"
_CLONE_NEWNET = 0x40000000


class Network:
    """`set_up` makes it; `cleanup.remove_all` takes it down, by the names that all of it begins with."""

    def __init__(self, prefix: str, members: Sequence[str]) -> None:
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"{MOST_MEMBERS} members at most, not {len(members)}")
        self._prefix = prefix
        self._numbers = {name: number for number, name in enumerate(members, 2)}
        self._shaped: set[tuple[str, str]] = set()

    @property
    def hub(self) -> str:
        """The namespace of the bridge, from which every member can be reached."""
        return f"{self._prefix}-hub"

    def namespace(self, member: str) -> str:
        """Where the member's processes belong."""
        return f"{self._prefix}-{self._numbers[member]}"

    def address(self, member: str) -> str:
        """The member's IPv4 address."""
        return f"{SUBNET}.{self._numbers[member]}"

    def set_up(self) -> None:
        """Raises CliError where the kernel does not do it."""
        run_tool("ip", "netns", "add", self.hub)
        run_tool("ip", "-n", self.hub, "link", "set", "lo", "up")
        run_tool("ip", "-n", self.hub, "link", "add", "bridge", "type", "bridge")
        run_tool("ip", "-n", self.hub, "addr", "add", f"{HUB_ADDRESS}/24", "dev", "bridge")
        run_tool("ip", "-n", self.hub, "link", "set", "bridge", "up")
        for member in self._numbers:
            self._add(member)

    def shape(self, source: str, target: str, bytes_per_s: float) -> None:
        """Limits what `source` sends to `target`, from now on. Raises CliError."""
        minor = f"1:{self._numbers[target] + 0x100:x}"
        verb = "change" if (source, target) in self._shaped else "add"
        rate = f"{max(int(bytes_per_s * 8), 8000)}bit"
        self._tc(source, "class", verb, "parent", "1:", "classid", minor, "htb", "rate", rate, "ceil", rate)
        if verb == "change":
            return
        self._tc(source, "qdisc", "add", "parent", minor, "pfifo", "limit", "200")
        match = ("u32", "match", "ip", "dst", f"{self.address(target)}/32")
        self._tc(source, "filter", "add", "parent", "1:", "protocol", "ip", "prio", "1", *match, "flowid", minor)
        self._shaped.add((source, target))

    def _add(self, member: str) -> None:
        name, port = self.namespace(member), f"port{self._numbers[member]}"
        run_tool("ip", "netns", "add", name)
        run_tool("ip", "-n", name, "link", "set", "lo", "up")
        run_tool("ip", "-n", self.hub, "link", "add", port, "type", "veth", "peer", "name", _INTERFACE, "netns", name)
        run_tool("ip", "-n", self.hub, "link", "set", port, "master", "bridge", "up")
        # Packets as they go over a wire: a batch of many would leave a slow class as one long burst.
        run_tool("ip", "-n", name, "link", "set", _INTERFACE, "gso_max_segs", "1", "up")
        run_tool("ip", "-n", name, "addr", "add", f"{self.address(member)}/24", "dev", _INTERFACE)
        self._tc(member, "qdisc", "add", "root", "handle", "1:", "htb", "default", "1")
        unshaped = f"{int(UNSHAPED_BYTES_PER_S * 8)}bit"
        self._tc(member, "class", "add", "parent", "1:", "classid", "1:1", "htb", "rate", unshaped)

    def _tc(self, member: str, kind: str, verb: str, *words: str) -> None:
        run_tool("tc", "-n", self.namespace(member), kind, verb, "dev", _INTERFACE, *words)


def enter_namespace(name: str) -> None:
    """Moves this thread, and what it starts from now on, into a network namespace. Raises OSError."""
    with Path(f"/var/run/netns/{name}").open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
