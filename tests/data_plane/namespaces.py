"""Four network namespaces for tests of traffic rules, with a socket at each end.

client (10.9.1.2) -- host (10.9.1.1, 10.9.2.1, 10.9.3.1) -- server (10.9.2.2)
                      |-- other (10.9.3.2)
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

PORT, CONTROL_PORT = 7001, 7002
CLIENT, SERVER, OTHER = "10.9.1.2", "10.9.2.2", "10.9.3.2"
OTHER_MAC, HOST_MAC_TO_OTHER = "02:00:00:09:03:02", "02:00:00:09:03:01"
_CLONE_NEWNET = 0x40000000


def missing() -> str | None:
    """Why rules cannot be tried here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not (shutil.which("nft") and shutil.which("ip")):
        return "nft and ip are not installed here (packages nftables, iproute2)"
    probe = subprocess.run(["unshare", "--net", "nft", "list", "tables"], capture_output=True, text=True, check=False)
    return f"nftables cannot be used here: {probe.stderr.strip()}" if probe.returncode else None


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in a network namespace; sockets that it makes there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{namespace}") as other:
        assert libc.setns(other.fileno(), _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), _CLONE_NEWNET) == 0


def write_setting(namespace: str, path: str, value: str) -> None:
    with inside(namespace), open(f"/proc/sys/net/{path}", "w") as setting:
        setting.write(value)


def udp_at(namespace: str, address: str, port: int = 0) -> socket.socket:
    with inside(namespace):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(10)
    return sock


@dataclass(frozen=True)
class Net:
    """The four namespaces, with a socket at each end."""

    host: str
    client: socket.socket
    server: socket.socket
    control: socket.socket
    other: socket.socket
    wire: socket.socket

    def send(self, text: str, to: str = SERVER) -> None:
        self.client.sendto(text.encode(), (to, PORT))

    def at_server(self) -> str:
        """What the server gets next. A packet to its control port follows those sent before on the same way."""
        self.client.sendto(b"", (SERVER, CONTROL_PORT))
        self.control.recv(100)
        self.server.setblocking(False)
        try:
            return self.server.recv(100).decode()
        except BlockingIOError:
            return "nothing"
        finally:
            self.server.settimeout(10)

    def frame_at_other(self, text: str) -> bytes:
        """The frame with this text that arrives at the interface of the other host."""
        while True:
            frame = self.wire.recv(2000)
            if frame.endswith(text.encode()):
                return frame


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The namespaces, joined; every module has its own."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    names = {end: f"mec-{end}-{os.getpid()}" for end in ("client", "host", "server", "other")}
    host = names["host"]
    for name in names.values():
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for name in names.values():
            # Addresses are there at once: nobody else could have them.
            write_setting(name, "ipv6/conf/default/accept_dad", "0")
        for number, end in enumerate(("client", "server", "other"), start=1):
            steps = [
                f"link add to-{end} address 02:00:00:09:0{number}:01 type veth"
                f" peer name eth0 address 02:00:00:09:0{number}:02 netns {names[end]}",
                f"addr add 10.9.{number}.1/24 dev to-{end}",
                f"addr add fd09:{number}::1/64 dev to-{end} nodad",
                f"link set to-{end} up",
            ]
            subprocess.run(["ip", "-n", host, "-batch", "-"], input="\n".join(steps), text=True, check=True)
            steps = [
                f"addr add 10.9.{number}.2/24 dev eth0",
                f"addr add fd09:{number}::2/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via 10.9.{number}.1",
                f"route add default via fd09:{number}::1",
            ]
            subprocess.run(["ip", "-n", names[end], "-batch", "-"], input="\n".join(steps), text=True, check=True)
        write_setting(host, "ipv4/ip_forward", "1")
        write_setting(host, "ipv6/conf/all/forwarding", "1")
        with inside(names["other"]):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        wire.bind(("eth0", 0))
        wire.settimeout(10)
        with (
            udp_at(names["client"], CLIENT, 5000) as client,
            udp_at(names["server"], SERVER, PORT) as server,
            udp_at(names["server"], SERVER, CONTROL_PORT) as control,
            udp_at(names["other"], OTHER, PORT) as other,
            wire,
        ):
            yield Net(host, client, server, control, other, wire)
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=True)
