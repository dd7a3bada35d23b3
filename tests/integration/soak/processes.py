"""Processes of an edge from outside: what they hold, and their connections broken."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from pathlib import Path
from typing import Any

import aiohttp

from mec_apps.cli.local_cluster import LocalCluster
from tests.integration.soak.growth import Sample

_PIDFD_GETFD = 438  # the same on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


async def take_sample(cluster: LocalCluster, name: str, at_s: float, client: aiohttp.ClientSession) -> Sample:
    """Raises FileNotFoundError where the process has ended."""
    folder = Path("/proc") / str(cluster.process_id(name))
    status = (folder / "status").read_text()
    facts: dict[str, Any] = cluster.facts[name]
    urls = {
        "platform": f"{facts.get('rest')}/metrics",
        "gateway": str(facts.get("openai")).removesuffix("/v1") + "/metrics",
    }
    async with client.get(urls.get(name) or facts["metrics"]) as answer:
        metrics = await answer.text()
    return Sample(
        at_s,
        anonymous_bytes=_number(r"RssAnon:\s+(\d+) kB", status) * 1024,
        descriptors=len(os.listdir(folder / "fd")),
        threads=_number(r"Threads:\s+(\d+)", status),
        tasks=_number(r"mec_event_loop_tasks (\d+)", metrics),
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"there is no {pattern!r} in {text[:200]!r}"
    return int(found[1])


def break_connections(process_id: int, ports: frozenset[int]) -> int:
    """Shuts down every TCP connection of another process of this user to one of the ports; returns how many there were.

    Both ends see the connection end, as when a middlebox forgets it; neither process is told.
    """
    broken, pidfd = 0, os.pidfd_open(process_id)
    try:
        for name in os.listdir(f"/proc/{process_id}/fd"):
            descriptor = _libc.syscall(_PIDFD_GETFD, pidfd, int(name), 0)
            if descriptor < 0:
                continue  # it has been closed meanwhile
            try:
                broken += _shut_down(descriptor, ports)
            finally:
                os.close(descriptor)
    finally:
        os.close(pidfd)
    return broken


def _shut_down(descriptor: int, ports: frozenset[int]) -> bool:
    """Whether it is a connection to one of the ports. The descriptor stays open."""
    try:
        connection = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return False  # no socket
    with connection:
        try:
            peer = connection.getpeername()
            if connection.family not in (socket.AF_INET, socket.AF_INET6) or peer[1] not in ports:
                return False
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False  # not connected
    return True
