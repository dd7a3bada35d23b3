"""Addresses, ports and names as rules write them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.network_addresses import (
    parse_address,
    parse_address_range,
    parse_domain_name,
    parse_mac,
    parse_port_range,
)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/28", "192.0.2.0", "192.0.2.15"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0", "192.0.2.255"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("10.0.0.0/24-10.0.3.0/24", "10.0.0.0", "10.0.3.255"),
        ("2001:db8::/64-2001:db8:0:1::/64", "2001:db8::", "2001:db8:0:1:ffff:ffff:ffff:ffff"),
        ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_a_range_is_written_as_address_prefix_or_both_ends(text, first, last):
    parsed = parse_address_range(text)
    assert (str(parsed.first), str(parsed.last)) == (first, last)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "192.0.2.9-192.0.2.1",
        "192.0.2.1-::1",
        "192.0.2.1/33",
        "192.0.2.1-",
        "fe80::1%eth0",
        "fe80::%1/64",
        "?",
        "1",
    ],
)
def test_what_is_no_range_of_addresses_is_refused(text):
    with pytest.raises(ValueError, match=r"neither|zone|mixes|ends before"):
        parse_address_range(text)


@pytest.mark.parametrize(
    ("text", "ports"), [("0", [0]), ("80", [80]), ("8000-8002", [8000, 8001, 8002]), ("1 - 2", [1, 2])]
)
def test_ports_come_alone_or_as_a_range_with_both_ends(text, ports):
    assert list(parse_port_range(text)) == ports


@pytest.mark.parametrize("text", ["", "-1", "65536", "9-8", "80-", "-", "1-2-3", "http", "8 0", "８０", "1_0", "+1"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(ValueError, match="port"):
        parse_port_range(text)


def test_mac_addresses_come_with_colons_or_dashes():
    assert parse_mac("02-00-00-0A-bb-FF") == parse_mac("02:00:00:0a:BB:ff") == "02:00:00:0a:bb:ff"


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02:00:00-00:00:00", "0200.0000.0000", "02:00:00:00:00:0g", "02:" * 6]
)
def test_what_is_no_mac_address_is_refused(text):
    with pytest.raises(ValueError, match="MAC address"):
        parse_mac(text)


@given(address=st.ip_addresses(), prefix=st.integers(0, 32))
@settings(derandomize=True, max_examples=50)
def test_an_address_lies_in_every_prefix_of_its_own(address, prefix):
    parsed = parse_address_range(f"{address}/{prefix}")
    assert int(parsed.first) <= int(address) <= int(parsed.last)
    assert parsed.version == address.version
    assert parse_address(str(address)) == ip_address(str(address))


@given(text=st.text(max_size=30))
@settings(derandomize=True, max_examples=100)
def test_any_text_parses_into_something_safe_or_is_refused(text):
    for parse in (parse_domain_name, parse_address, parse_mac, parse_address_range, parse_port_range):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        assert str(parsed).isascii()
        assert str(parsed).isprintable()
