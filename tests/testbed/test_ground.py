"""The network and the quotas of a testbed, made by the kernel and gone again; needs root, as the testbed does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mec_apps.cli.testbed.cleanup import prefix_of, remove_leftovers
from mec_apps.cli.testbed.quotas import group_folder

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("tc") is None or not group_folder("").is_dir(),
    reason="needs root, iproute2 and the cpu controller of control groups",
)
pytestmark = needs_root

SHAPED = """
import socket, sys
from mec_apps.cli.local_cluster import NodeOptions
from mec_apps.cli.testbed.run import lay_ground
from mec_apps.cli.testbed.kernel import run_tool
with lay_ground([NodeOptions("edge-1"), NodeOptions("edge-2")]) as ground:
    network = ground.network
    network.shape("edge-1", "edge-2", 1e6)
    network.shape("edge-1", "edge-2", 5e6 / 8)
    receiver = f"import socket; s = socket.create_server(('', 5000)); c, _ = s.accept(); print(len(c.recv(4)))"
    import subprocess
    receiving = subprocess.Popen(
        ["ip", "netns", "exec", network.namespace("edge-2"), sys.executable, "-uc", receiver], stdout=subprocess.PIPE
    )
    sender = f'''
import socket, time
for _ in range(200):
    try:
        socket.create_connection(("{network.address('edge-2')}", 5000)).sendall(b"MEC!")
        break
    except OSError:
        time.sleep(0.02)
'''
    subprocess.run(["ip", "netns", "exec", network.namespace("edge-1"), sys.executable, "-c", sender], check=True)
    print("received", receiving.communicate()[0].decode().strip())
    print(run_tool("tc", "-n", network.namespace("edge-1"), "class", "show", "dev", "eth0"))
"""

WAITING = """
import sys
from mec_apps.cli.local_cluster import NodeOptions
from mec_apps.cli.testbed.run import lay_ground
import subprocess
with lay_ground([NodeOptions("edge-1")]) as ground:
    subprocess.Popen(["ip", "netns", "exec", ground.network.namespace("edge-1"), "sleep", "1000"])
    print("up", flush=True)
    sys.stdin.read()
"""


def left_over(pid: int) -> list[Path]:
    prefix = prefix_of(pid)
    return [*Path("/var/run/netns").glob(f"{prefix}-*"), *group_folder("").glob(prefix)]


def test_members_reach_each_other_over_links_that_the_kernel_limits_and_nothing_is_left() -> None:
    done = subprocess.Popen([sys.executable, "-c", SHAPED], stdout=subprocess.PIPE, text=True)
    printed, _ = done.communicate(timeout=60)
    assert "received 4" in printed
    assert "rate 5Mbit ceil 5Mbit" in printed
    assert left_over(done.pid) == []


def test_a_testbed_that_is_killed_leaves_nothing_behind() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert len(left_over(process.pid)) == 5  # hub, platform, gateway, edge-1, and the folder of control groups
        process.send_signal(signal.SIGKILL)
        process.stdout.read()  # ends when the last process that has it has: the one that cleans up
    assert left_over(process.pid) == []


def test_what_a_killed_cleaner_left_is_removed_by_the_next_testbed() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    subprocess.run(["ip", "netns", "add", f"{prefix_of(ended.pid)}-2"], check=True)
    assert prefix_of(ended.pid) in remove_leftovers()
    assert left_over(ended.pid) == []
