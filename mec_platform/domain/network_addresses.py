"""Names and addresses as rules write them, parsed into values that are safe to write anywhere: nothing of a text that
does not parse here gets into a file or a command. Every parser raises ValueError, and its message quotes the text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

PORTS = 1 << 16

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_LONGEST_NAME = 253
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """The IP addresses from `first` to `last`, both included; one version only."""

    first: IpAddress
    last: IpAddress

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.first.version


def parse_domain_name(text: str) -> str:
    """A host name (RFC 1035 clause 2.3.1, RFC 1123 clause 2.1) in lower case, without a dot at its end.

    Underscores are allowed, as service names have them. Names in other scripts must come in their ASCII form (xn--...):
    the two generations of IDNA translate some of them differently, so guessing could answer for somebody else's name.
    """
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if not text.isascii() or len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is no domain name; names in other scripts are written as xn--...")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} is no domain name: its last label has digits only")
    return name


def parse_address(text: str) -> IpAddress:
    """One IP address, without a zone: a rule means the same on every machine."""
    address = _address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} has a zone, which only one machine knows")
    return address


def parse_address_range(text: str) -> AddressRange:
    """An address, an address with a prefix length or mask, or a range `first-last` of either (MEC 011 clause 7.1.5.2)."""
    first, dash, last = text.partition("-")
    start = _network(first.strip(), text)
    end = _network(last.strip(), text) if dash else start
    if start.version != end.version:
        raise ValueError(f"{text!r} mixes IPv4 and IPv6")
    low, high = start.network_address, end.broadcast_address
    if int(low) > int(high):
        raise ValueError(f"{text!r} ends before it begins")
    return AddressRange(low, high)


def parse_port_range(text: str) -> range:
    """A port or a range `first-last` with both ends; what is returned is half-open."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not _PORT.fullmatch(first) or (dash and not _PORT.fullmatch(last)):
        raise ValueError(f"{text!r} is neither a port nor a range of ports such as 8000-8080")
    ports = range(int(first), int(last if dash else first) + 1)
    if not ports or ports.stop > PORTS:
        raise ValueError(f"{text!r} is no range of ports: from the lower to the higher, at most {PORTS - 1}")
    return ports


def parse_mac(text: str) -> str:
    """A MAC address as six pairs of hexadecimal digits, in lower case with colons; dashes are read as well."""
    mac = text.lower()
    if not _MAC.fullmatch(mac):
        raise ValueError(f"{text!r} is no MAC address such as 02:00:00:00:00:01")
    return mac.replace("-", ":")


def _address(text: str) -> IpAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def _network(text: str, whole: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if "%" in text:
        raise ValueError(f"{whole!r} has a zone, which only one machine knows")
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{whole!r} is neither an IP address, nor one with a prefix, nor a range of them") from None
