"""`mec serve` on a host of its own: what an application changes over Mp1 is what becomes of real packets."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mec_platform.data_plane.hosts_file import FILE_NAME
from mec_platform.domain.applications import AppDescription
from mec_platform.domain.locality import Locality
from mec_platform.domain.rules import DnsRule, FilterType, IpAddressType, TrafficAction, TrafficFilter, TrafficRule
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.data_plane.namespaces import PORT, Net, inside

pytestmark = pytest.mark.slow

REST_PORT = 8081


@dataclass(frozen=True)
class Served:
    """A platform in the host's namespace, the rules of its one application instance, and where its DNS rules go."""

    net: Net
    app: str
    hosts: Path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, Any]:
        """Status, ETag and message of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", REST_PORT, timeout=10)
        with inside(self.net.host):
            connection.connect()
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        message = json.loads(answer.read())
        connection.close()
        return answer.status, answer.headers.get("ETag", ""), message

    def activate(self, resource: str) -> None:
        """As an application does: reads the rule, changes it, and waits until the host does what it wants."""
        path = f"/mec_app_support/v2/applications/{self.app}/{resource}"
        _, tag, rule = self.ask("GET", path)
        assert self.ask("PUT", path, rule | {"state": "ACTIVE"}, **{"If-Match": tag})[0] == 200
        assert self.ask("PUT", path, rule, **{"If-Match": tag})[0] == 412
        assert self.becomes_current()

    def becomes_current(self) -> bool:
        """Whether nothing waits to be applied any more, asked again while it is applied."""
        return any(self._is_current() for _ in range(2000))

    def _is_current(self) -> bool:
        return all(plane["isCurrent"] for plane in self.ask("GET", "/admin/v1/data_plane")[2]["planes"])


@pytest.fixture
async def state(tmp_path: Path) -> tuple[Path, str]:
    """A state file with one application instance, and its id."""
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    host = HostRegistry(Registry(log), locality=Locality(mec_host="host"))
    await host.start()
    dns = DnsRule(
        rule_id="dns", domain_name="www.example.com", address_type=IpAddressType.IP_V4, ip_address="192.0.2.1"
    )
    traffic = TrafficRule(
        rule_id="traffic",
        filter_type=FilterType.FLOW,
        priority=1,
        filters=(TrafficFilter(destination_ports=(str(PORT),), protocols=("udp",)),),
        action=TrafficAction.DROP,
    )
    app = await host.applications.register(AppDescription(name="app"), dns_rules=[dns], traffic_rules=[traffic])
    await host.stop()
    await log.close()
    return tmp_path / "state.sqlite", app.app_instance_id


@pytest.fixture
def served(net: Net, state: tuple[Path, str], tmp_path: Path) -> Iterator[Served]:
    subprocess.run(["ip", "-n", net.host, "link", "set", "lo", "up"], check=True)
    command = ["ip", "netns", "exec", net.host, sys.executable, "-m", "mec_apps.cli", "serve", "--grpc-port", "0"]
    command += ["--rest-port", str(REST_PORT), "--state", str(state[0]), "--data-plane", "nftables:to-client,to-server"]
    command += ["--data-plane", f"dnsmasq:{tmp_path / 'hosts'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("platform ready")
    yield Served(net, state[1], tmp_path / "hosts" / FILE_NAME)
    process.terminate()
    process.communicate(timeout=30)


def test_rules_take_effect_when_their_application_activates_them(served, net):
    assert served.becomes_current()
    net.send("passes")
    assert net.at_server() == "passes"
    assert served.hosts.read_text().count("\n") == 1
    served.activate("traffic_rules/traffic")
    net.send("dropped")
    assert net.at_server() == "nothing"
    served.activate("dns_rules/dns")
    assert served.hosts.read_text().splitlines()[1:] == ["192.0.2.1 www.example.com"]
