"""Which callbacks are taken, and which addresses are connected to."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.enablement_api.notifications.resolver import CheckedResolver
from mec_platform.enablement_api.notifications.targets import (
    DEVELOPMENT_NETWORKS,
    AllowanceError,
    CallbackError,
    CallbackMalformed,
    CallbackNotAllowed,
    CallbackPolicy,
    read_allowances,
)

STRICT = CallbackPolicy()
DEVELOPMENT = CallbackPolicy(DEVELOPMENT_NETWORKS)


@pytest.mark.parametrize(
    "uri",
    [
        "http://callback.example/x?y=z",
        "https://callback.example:8443",
        "http://93.184.215.14/",
        "http://[2606:4700::1]/",
    ],
)
def test_public_targets_are_taken(uri):
    assert str(STRICT.check_uri(uri)).startswith(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "callback",
        "/callback",
        "ftp://callback.example/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user:secret@callback.example/",
        "http://user@callback.example/",
        "http://callback.example:0/",
        "http://callback.example:99999/",
        "http://callback.example:port/",
        "http://[::1/",
        "http://callback.example/" + "x" * 2048,
        "javascript:alert(1)",
    ],
)
def test_what_is_no_callback_is_refused_as_malformed(uri):
    with pytest.raises(CallbackMalformed) as error:
        STRICT.check_uri(uri)
    assert "secret" not in str(error.value)


INTERNAL = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.1.2.3",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.1.1",
    "100.64.0.1",
    "224.0.0.251",
    "255.255.255.255",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%25eth0",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "2002:7f00:1::",
    "2002:0a00:0001::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::10.0.0.1",
    "2001:0:a00:1::1",
]


@pytest.mark.parametrize("host", INTERNAL)
def test_internal_addresses_are_refused_in_every_form(host):
    uri = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    with pytest.raises(CallbackNotAllowed, match="internal"):
        STRICT.check_uri(uri)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost"])
def test_names_of_this_machine_are_refused_without_a_look_up(host):
    with pytest.raises(CallbackNotAllowed, match="--callback-allow"):
        STRICT.check_uri(f"http://{host}:8080/")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "192.168.7.7", "10.0.0.1", "[::ffff:10.0.0.1]"])
def test_a_developers_machine_is_allowed_to_call_itself(host):
    DEVELOPMENT.check_uri(f"http://{host}:8080/callback")


@pytest.mark.parametrize("host", ["169.254.1.1", "224.0.0.1", "0.0.0.0", "[fe80::1]"])
def test_development_allows_no_more_than_loopback_and_private_networks(host):
    with pytest.raises(CallbackNotAllowed):
        DEVELOPMENT.check_uri(f"http://{host}/")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[64:ff9b::169.254.169.254]"]
)
def test_cloud_metadata_is_refused_whatever_is_allowed(host):
    generous = read_allowances(["0.0.0.0/0", "::/0", host])
    with pytest.raises(CallbackNotAllowed, match="metadata"):
        generous.check_uri(f"http://{host}/latest/meta-data")


@pytest.mark.parametrize("port", [22, 25, 1023])
def test_ports_of_other_protocols_are_refused_unless_named(port):
    with pytest.raises(CallbackNotAllowed, match=f"port {port}"):
        STRICT.check_uri(f"http://callback.example:{port}/")
    read_allowances([f"callback.example:{port}"]).check_uri(f"http://callback.example:{port}/")


@pytest.mark.parametrize("uri", ["http://10.20.1.1:8080/", "http://events.internal:9000/", "http://192.168.1.5/"])
def test_an_operator_can_allow_networks_and_hosts(uri):
    policy = read_allowances(["10.20.0.0/16", "Events.Internal:9000", "192.168.1.5"])
    url = policy.check_uri(uri)
    assert url.host is not None
    policy.check_address(url.host, url.port or 0, ip_address("10.20.9.9"))


def test_a_host_is_allowed_at_the_port_that_was_named():
    policy = read_allowances(["10.1.1.1:9000"])
    policy.check_uri("http://10.1.1.1:9000/")
    with pytest.raises(CallbackNotAllowed):
        policy.check_uri("http://10.1.1.1:9001/")


@pytest.mark.parametrize("text", ["10.0.0.0/33", "host/path", "http://host/", "user@host", "host:port", ""])
def test_an_allowance_that_makes_no_sense_is_named(text):
    with pytest.raises(AllowanceError, match="--callback-allow"):
        read_allowances([text])


PARTS = st.sampled_from(
    [
        "http",
        "https",
        "://",
        "//",
        "/",
        ":",
        "@",
        "[",
        "]",
        "%",
        "%00",
        "..",
        "?",
        "#",
        "a",
        "::1",
        "1.2.3.4",
        "0x7f",
        "é",
        " ",
    ]
)


@settings(derandomize=True, max_examples=500)
@given(st.text() | st.lists(PARTS, max_size=12).map("".join) | st.text().map("http://{}".format))
def test_whatever_is_sent_is_taken_or_refused(uri):
    with contextlib.suppress(CallbackError):
        assert DEVELOPMENT.check_uri(uri).origin().scheme in ("http", "https")


class Names:
    """A name server whose answers change from question to question."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def look_up(self, host: str, port: int) -> list[str]:
        return self._answers.pop(0)


async def test_every_address_of_a_name_is_checked():
    resolver = CheckedResolver(
        STRICT, Names(["93.184.215.14"], ["93.184.215.14", "127.0.0.1"], ["2002:7f00:1::"]).look_up
    )
    (found,) = await resolver.resolve("callback.example", 80)
    assert (found["host"], found["hostname"], found["port"]) == ("93.184.215.14", "callback.example", 80)
    for _ in range(2):
        with pytest.raises(CallbackNotAllowed, match=r"callback\.example is at the internal address"):
            await resolver.resolve("callback.example", 80)


async def test_a_name_without_addresses_leads_nowhere():
    with pytest.raises(OSError, match="no address"):
        await CheckedResolver(STRICT, Names([]).look_up).resolve("callback.example", 80)
