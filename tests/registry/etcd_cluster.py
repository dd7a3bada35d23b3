"""Real etcd processes for tests: on free ports, with a folder of their own, killed and brought back as a test wants."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from mec_platform.registry.etcd.settings import EtcdSettings

ETCD = shutil.which("etcd")


class EtcdCluster:
    """`size` members that know each other."""

    def __init__(self, folder: Path, size: int = 1, options: Sequence[str] = (), scheme: str = "http") -> None:
        self._folder = folder
        self._options = options
        self._scheme = scheme
        ports = free_ports(2 * size)
        self._clients, self._peers = ports[:size], ports[size:]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.endpoints = tuple(f"127.0.0.1:{port}" for port in self._clients)

    def settings(self, prefix: str = "mec", *, deadline_s: float = 3.0) -> EtcdSettings:
        """How a client reaches it."""
        return EtcdSettings(self.endpoints, prefix, deadline_s=deadline_s)

    def start(self, number: int) -> None:
        """Starts a member, or brings it back with what it knew. Does not wait until it serves."""
        urls = f"{self._scheme}://127.0.0.1:{self._clients[number]}"
        peer = f"http://127.0.0.1:{self._peers[number]}"
        cluster = ",".join(f"m{each}=http://127.0.0.1:{port}" for each, port in enumerate(self._peers))
        command = [
            *(str(ETCD), "--name", f"m{number}", "--data-dir", str(self._folder / f"m{number}")),
            *("--listen-client-urls", urls, "--advertise-client-urls", urls),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "500"),
            *("--log-level", "error", *self._options),
        ]
        with (self._folder / f"m{number}.log").open("ab") as log:
            self._running[number] = subprocess.Popen(command, stdout=log, stderr=log)

    def wait_until_up(self) -> None:
        """Returns once every member is connected to; whether it has a leader is its clients' to find out."""
        for address in self.endpoints:
            with grpc.insecure_channel(address) as channel:
                grpc.channel_ready_future(channel).result(timeout=30)

    def kill(self, number: int) -> None:
        """Ends a member as a power cut does."""
        process = self._running.pop(number)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Ends all members."""
        for number in tuple(self._running):
            self.kill(number)


@contextmanager
def running_cluster(
    folder: Path, size: int = 1, options: Sequence[str] = (), scheme: str = "http"
) -> Iterator[EtcdCluster]:
    """A cluster whose members have been started; clients wait for them by their deadlines."""
    cluster = EtcdCluster(folder, size, options, scheme)
    try:
        for number in range(size):
            cluster.start(number)
        yield cluster
    finally:
        cluster.stop()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
