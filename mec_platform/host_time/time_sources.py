"""NTP servers and PTP masters that this host can name to applications: those of the settings, then those that the host's
own time daemon is configured with. The parsers are pure; `find_ntp_servers` reads the files.

Only names and addresses that parse are told: whoever can write the daemon's files writes nothing else into our answers.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from mec_platform.domain.network_addresses import parse_address, parse_domain_name

# As exponents of two, in seconds: what MEC 011 can say, and what chronyd and ntpd do unless told.
SHORTEST_POLL, LONGEST_POLL = 3, 17
_USUAL_POLLS = (6, 10)
# systemd-timesyncd: 32 s and 2048 s.
_TIMESYNCD_POLLS = (5, 11)

# IEEE 1588-2019 annex I.3: logMinDelayReqInterval 0, one message per second.
DEFAULT_DELAY_REQUESTS_PER_S = 1

_CHRONY_FILES = ("etc/chrony/chrony.conf", "etc/chrony.conf")
_CHRONY_FOLDERS = ("etc/chrony/conf.d/*.conf", "etc/chrony/sources.d/*.sources", "run/chrony-dhcp/*.sources")
_NTPD_FILES = ("etc/ntpsec/ntp.conf", "etc/ntp.conf")
_TIMESYNCD_FILES = ("etc/systemd/timesyncd.conf",)
_TIMESYNCD_FOLDERS = ("etc/systemd/timesyncd.conf.d/*.conf", "run/systemd/timesyncd.conf.d/*.conf")


class NtpAuthentication(StrEnum):
    """MEC 011 clause 7.1.2.4. Network Time Security, which came after the standard, counts as AUTO_KEY."""

    NONE = "NONE"
    SYMMETRIC_KEY = "SYMMETRIC_KEY"
    AUTO_KEY = "AUTO_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class NtpServer:
    """MEC 011 clause 7.1.2.4. Poll intervals are exponents of two, in seconds. `preferred` as the daemon's files say."""

    address: str
    min_poll: int = _USUAL_POLLS[0]
    max_poll: int = _USUAL_POLLS[1]
    preferred: bool = False
    authentication: NtpAuthentication = NtpAuthentication.NONE
    key_number: int = 0

    @property
    def is_named(self) -> bool:
        """Whether `address` is a name to resolve."""
        try:
            parse_address(self.address)
        except ValueError:
            return True
        return False


@dataclass(frozen=True, slots=True)
class PtpMaster:
    """MEC 011 clause 7.1.2.4; masters are named in the order in which they are to be preferred."""

    address: str
    delay_requests_per_s: int = DEFAULT_DELAY_REQUESTS_PER_S


@dataclass(frozen=True, slots=True)
class TimeSources:
    """What the platform names, best first."""

    ntp_servers: tuple[NtpServer, ...] = ()
    ptp_masters: tuple[PtpMaster, ...] = ()


def parse_host(text: str) -> str:
    """An IP address or a domain name, as it is told. Raises ValueError."""
    try:
        return str(parse_address(text))
    except ValueError:
        return parse_domain_name(text)


def rank_servers(configured: Iterable[str], found: Iterable[NtpServer]) -> tuple[NtpServer, ...]:
    """Servers of the settings first, then those found, preferred ones before others; each once."""
    servers = [NtpServer(address=parse_host(each)) for each in configured]
    servers += sorted(found, key=lambda each: not each.preferred)
    by_address: dict[str, NtpServer] = {}
    for server in servers:
        by_address.setdefault(server.address, server)
    return tuple(by_address.values())


def parse_daemon_servers(text: str) -> list[NtpServer]:
    """Servers and pools of a chrony.conf or ntp.conf; reference clocks on this machine are no servers to others."""
    servers = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        # chronyd has more signs for comments; none of them begins a directive that is looked for.
        if len(words) < 2 or words[0].lower() not in ("server", "pool"):
            continue
        address, *options = [word for word in words[1:] if word not in ("-4", "-6")] or [""]
        server = _server(address, *_USUAL_POLLS)
        if server is not None and not address.startswith("127.127."):
            servers.append(_with_options(server, iter(options)))
    return servers


def parse_timesyncd_servers(texts: Sequence[str]) -> list[NtpServer]:
    """Servers of a timesyncd.conf and the files that add to it, in that order; the fallback only where there are no others.

    Intervals that are not written as plain seconds are taken for the default.
    """
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for text in texts:
        try:
            parser.read_string(text)
        except configparser.Error:
            continue
    section = parser["Time"] if parser.has_section("Time") else {}
    shortest, longest = (
        _exponent(section.get(f"PollInterval{end}Sec", ""), usual)
        for end, usual in zip(("Min", "Max"), _TIMESYNCD_POLLS, strict=True)
    )
    names = section.get("NTP", "").split() or section.get("FallbackNTP", "").split()
    return [server for name in names if (server := _server(name, shortest, longest)) is not None]


def find_ntp_servers(root: Path = Path("/")) -> list[NtpServer]:
    """What this host's time daemon is configured with: the first of chronyd, ntpd, systemd-timesyncd that names servers.

    Files that are not there, or that the platform may not read, name none.
    """
    for files, folders in ((_CHRONY_FILES, _CHRONY_FOLDERS), (_NTPD_FILES, ())):
        if servers := parse_daemon_servers("\n".join(_read(root, files, folders))):
            return servers
    return parse_timesyncd_servers(list(_read(root, _TIMESYNCD_FILES, _TIMESYNCD_FOLDERS)))


def _read(root: Path, files: Iterable[str], folders: Iterable[str]) -> Iterator[str]:
    paths = [root / file for file in files] + [path for folder in folders for path in sorted(root.glob(folder))]
    for path in paths:
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue


def _server(address: str, shortest: int, longest: int) -> NtpServer | None:
    try:
        return NtpServer(address=parse_host(address), min_poll=shortest, max_poll=longest)
    except ValueError:
        return None


def _with_options(server: NtpServer, options: Iterator[str]) -> NtpServer:
    for option in options:
        match option.lower():
            case "minpoll":
                server = replace(server, min_poll=_poll(next(options, ""), server.min_poll))
            case "maxpoll":
                server = replace(server, max_poll=_poll(next(options, ""), server.max_poll))
            case "prefer":
                server = replace(server, preferred=True)
            case "key":
                number = next(options, "")
                if _is_number(number):
                    symmetric = NtpAuthentication.SYMMETRIC_KEY
                    server = replace(server, authentication=symmetric, key_number=int(number))
            case "autokey" | "nts":
                server = replace(server, authentication=NtpAuthentication.AUTO_KEY)
    return replace(server, max_poll=max(server.min_poll, server.max_poll))


def _poll(text: str, usual: int) -> int:
    return _within(int(text)) if _is_number(text.removeprefix("-")) else usual


def _exponent(seconds: str, usual: int) -> int:
    return _within(int(seconds).bit_length() - 1) if _is_number(seconds) else usual


def _within(exponent: int) -> int:
    return min(max(exponent, SHORTEST_POLL), LONGEST_POLL)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
