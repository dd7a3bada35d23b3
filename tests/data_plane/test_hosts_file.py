"""DNS rules as a hosts file, and a real dnsmasq that answers from it."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.data_plane.hosts_file import FILE_NAME, DnsmasqDataPlane, compile_hosts
from mec_platform.data_plane.port import DataPlaneError, DataPlaneRules, OwnedDnsRule, active_rules
from mec_platform.domain.applications import AppInstance
from mec_platform.domain.locality import Locality
from mec_platform.domain.rules import DnsRule, IpAddressType, RuleState

NXDOMAIN = 3


def dns_rule(name: str, address: str, state: RuleState = RuleState.ACTIVE) -> DnsRule:
    version = IpAddressType.IP_V6 if ":" in address else IpAddressType.IP_V4
    return DnsRule(rule_id=name, domain_name=name, address_type=version, ip_address=address, state=state)


def wanted(*rules: DnsRule) -> DataPlaneRules:
    return active_rules([AppInstance(app_instance_id="a", name="n", locality=Locality(mec_host="h"), dns_rules=rules)])


def test_every_active_rule_is_a_line_of_address_and_name():
    rules = wanted(
        dns_rule("www.example.com", "192.0.2.1"),
        dns_rule("Api.Example.COM.", "2001:DB8::1"),
        dns_rule("off.example.com", "192.0.2.2", RuleState.INACTIVE),
    )
    assert compile_hosts(rules).splitlines()[1:] == ["2001:db8::1 api.example.com", "192.0.2.1 www.example.com"]


def test_a_name_that_two_applications_claim_has_both_addresses_once():
    first, second = dns_rule("a.example.com", "192.0.2.1"), dns_rule("a.example.com", "192.0.2.2")
    rules = DataPlaneRules(dns=tuple(OwnedDnsRule(owner, rule) for owner in "xy" for rule in (first, second)))
    assert compile_hosts(rules).splitlines()[1:] == ["192.0.2.1 a.example.com", "192.0.2.2 a.example.com"]


@given(name=st.text("aZ0.-_ #\n\r\té\u2028,/"), address=st.text() | st.ip_addresses().map(str))
@settings(derandomize=True, max_examples=100)
def test_whatever_a_rule_says_it_is_one_line_of_two_words_or_no_rule(name, address):
    try:
        rule = dns_rule(name, address)
    except ValueError:
        return
    (line,) = compile_hosts(wanted(rule)).splitlines()[1:]
    assert len(line.split()) == 2
    assert line.isascii()
    assert "#" not in line


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "a..b", "-a.com", "a-.com", "a b.com", "a.com\n127.0.0.1 bank.example", "*.example.com", "a.com#"),
        *("bücher.example", "\u212a.com", "١.com", "a/b", "a.com\r", "192.0.2.1", "a" * 64 + ".com", "abcdefg." * 32),
    ],
)
def test_what_is_no_domain_name_makes_no_rule(name):
    with pytest.raises(ValueError, match="domain name"):
        dns_rule(name, "192.0.2.1")


@pytest.mark.parametrize("name", ["mec", "_mec._tcp.example.com", "xn--bcher-kva.example", "3com.com", "A.EXAMPLE."])
def test_host_and_service_names_make_rules(name):
    assert dns_rule(name, "192.0.2.1").domain_name == name


@pytest.mark.parametrize("address", ["192.0.2.256", "192.0.2.0/24", "fe80::1%eth0", "::1\n", "localhost"])
def test_what_is_no_address_makes_no_rule(address):
    with pytest.raises(ValueError, match=r"IP address|has a zone"):
        dns_rule("a.example.com", address)


def test_notices_that_somebody_changed_the_file(tmp_path):
    plane = DnsmasqDataPlane(tmp_path)
    plane.apply(wanted(dns_rule("a.example.com", "192.0.2.1")))
    assert plane.is_intact()
    (tmp_path / FILE_NAME).write_text("")
    assert not plane.is_intact()
    (tmp_path / FILE_NAME).unlink()
    assert not plane.is_intact()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataPlaneError, match="--data-plane dnsmasq:DIR"):
        DnsmasqDataPlane(tmp_path / "file").apply(wanted())


@pytest.mark.parametrize("content", ["", "-1", "text", "1"])
def test_nobody_but_dnsmasq_is_sent_a_signal(tmp_path, content):
    (tmp_path / "pid").write_text(content)
    with pytest.raises(DataPlaneError, match="dnsmasq cannot be told"):
        DnsmasqDataPlane(tmp_path, tmp_path / "pid").apply(wanted())


@dataclass(frozen=True)
class Dnsmasq:
    """A running dnsmasq that serves one folder."""

    port: int
    folder: Path
    pid_file: Path

    def resolve(self, name: str) -> str | int:
        """The one IPv4 address that is answered, or the response code."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(query, ("127.0.0.1", self.port))
            answer = sock.recv(512)
        code, answers = answer[3] & 15, struct.unpack("!H", answer[6:8])[0]
        return socket.inet_ntoa(answer[-4:]) if answers else code

    def becomes(self, name: str, expected: str | int) -> bool:
        """Whether the answer is `expected`, asked again while dnsmasq reads its files."""
        return any(self.resolve(name) == expected for _ in range(2000))


def start(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Runs dnsmasq until it has found a port; somebody else may take one that was free a moment before."""
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen([*command, f"--port={port}"], stderr=subprocess.PIPE)
        assert process.stderr is not None
        line = process.stderr.readline()
        # It listens once it says that it has started.
        if b"started" in line:
            return process, port
        process.communicate(timeout=10)
    raise AssertionError(line.decode())


@pytest.fixture(params=["hostsdir, no signal", "addn-hosts and SIGHUP"])
def dnsmasq(request, tmp_path) -> Iterator[tuple[Dnsmasq, DnsmasqDataPlane]]:
    program = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
    if program is None:
        pytest.skip("dnsmasq is not installed here (package dnsmasq-base)")
    folder, pid_file = tmp_path / "hosts", tmp_path / "pid"
    folder.mkdir()
    told = "SIGHUP" in request.param
    place = f"--addn-hosts={folder / FILE_NAME}" if told else f"--hostsdir={folder}"
    command = [
        program,
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--log-facility=-",
    ]
    command += ["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/example.com/", "--user=", place]
    process, port = start([*command, f"--pid-file={pid_file}"])
    yield Dnsmasq(port, folder, pid_file), DnsmasqDataPlane(folder, pid_file if told else None)
    process.terminate()
    process.communicate(timeout=10)


def test_dnsmasq_answers_what_the_rules_say_before_and_after_a_change(dnsmasq):
    server, plane = dnsmasq
    name = "www.example.com"
    assert server.resolve(name) == NXDOMAIN
    assert plane.apply(wanted(dns_rule(name, "192.0.2.1"), dns_rule("other.example.com", "192.0.2.9"))) == ()
    assert server.becomes(name, "192.0.2.1")
    plane.apply(wanted(dns_rule(name, "192.0.2.2"), dns_rule("other.example.com", "192.0.2.9")))
    assert server.becomes(name, "192.0.2.2")
    plane.apply(wanted(dns_rule(name, "192.0.2.2", RuleState.INACTIVE), dns_rule("other.example.com", "192.0.2.9")))
    assert server.becomes(name, NXDOMAIN)
    assert server.resolve("other.example.com") == "192.0.2.9"
