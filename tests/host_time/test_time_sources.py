"""Which time servers a host is configured with, from the files of the daemons that steer clocks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.host_time.time_sources import (
    NtpAuthentication,
    NtpServer,
    find_ntp_servers,
    parse_daemon_servers,
    parse_timesyncd_servers,
    rank_servers,
)

CHRONY = """\
! comments of chronyd
% server not.example
pool 2.debian.pool.ntp.org iburst
server ntp1.example.com minpoll 4 maxpoll 9 key 17 prefer
server 192.0.2.1 nts minpoll -3 maxpoll 24   # an own one
server ntp9.example.com minpoll x
refclock PHC /dev/ptp0
server
driftfile /var/lib/chrony/chrony.drift
"""

NTPD = """\
restrict default kod
server 127.127.1.0
server -4 NTP2.example.com. iburst autokey
server bad;name
"""


def test_reads_the_servers_of_chronyd():
    assert parse_daemon_servers(CHRONY) == [
        NtpServer(address="2.debian.pool.ntp.org"),
        NtpServer(
            address="ntp1.example.com",
            min_poll=4,
            max_poll=9,
            preferred=True,
            authentication=NtpAuthentication.SYMMETRIC_KEY,
            key_number=17,
        ),
        NtpServer(address="192.0.2.1", min_poll=3, max_poll=17, authentication=NtpAuthentication.AUTO_KEY),
        NtpServer(address="ntp9.example.com"),
    ]


def test_reads_the_servers_of_ntpd_but_no_clocks_of_the_machine():
    assert parse_daemon_servers(NTPD) == [
        NtpServer(address="ntp2.example.com", authentication=NtpAuthentication.AUTO_KEY)
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["[Time]\n#NTP=no.example\n"], []),
        (["[Time]\nNTP=a.example 192.0.2.1\nFallbackNTP=b.example"], [("a.example", 5, 11), ("192.0.2.1", 5, 11)]),
        (["[Time]\nFallbackNTP=b.example\nPollIntervalMinSec=64"], [("b.example", 6, 11)]),
        (["[Time]\nNTP=a.example", "[Time]\nNTP=c.example\nPollIntervalMaxSec=34min 8s\n"], [("c.example", 5, 11)]),
        (["NTP=a.example"], []),
        (["[Time]\nNTP=a.example\nnonsense\n"], [("a.example", 5, 11)]),
    ],
)
def test_reads_the_servers_of_timesyncd(texts, expected):
    found = parse_timesyncd_servers(texts)
    assert [(each.address, each.min_poll, each.max_poll) for each in found] == expected


def test_servers_of_the_settings_come_first_then_preferred_ones_and_each_once():
    found = [NtpServer(address="a.example"), NtpServer(address="b.example", preferred=True)]
    ranked = rank_servers(["192.0.2.1", "A.example."], found)
    assert [each.address for each in ranked] == ["192.0.2.1", "a.example", "b.example"]
    assert [each.is_named for each in ranked] == [False, True, True]


def test_the_first_daemon_that_names_servers_is_taken(tmp_path):
    assert find_ntp_servers(tmp_path) == []
    (tmp_path / "etc/systemd").mkdir(parents=True)
    (tmp_path / "etc/systemd/timesyncd.conf").write_text("[Time]\nNTP=timesyncd.example\n")
    assert [each.address for each in find_ntp_servers(tmp_path)] == ["timesyncd.example"]
    (tmp_path / "etc/ntp.conf").write_text("server ntpd.example\n")
    assert [each.address for each in find_ntp_servers(tmp_path)] == ["ntpd.example"]
    (tmp_path / "etc/chrony/sources.d").mkdir(parents=True)
    (tmp_path / "etc/chrony/chrony.conf").write_bytes(b"pool chronyd.example \xff\n")
    (tmp_path / "etc/chrony/sources.d/own.sources").write_text("server own.example\n")
    assert [each.address for each in find_ntp_servers(tmp_path)] == ["chronyd.example", "own.example"]


@given(text=st.text('server pool\n\r=[]Time#NTP9.-%$"\x00é', max_size=200))
@settings(derandomize=True, max_examples=100)
def test_no_file_content_breaks_the_parsers_or_gets_into_an_answer(text):
    for server in parse_daemon_servers("server " + text) + parse_timesyncd_servers(["[Time]\nNTP=" + text]):
        assert server.address.isascii()
        assert len(server.address.split()) == 1
        assert 3 <= server.min_poll <= server.max_poll <= 17
