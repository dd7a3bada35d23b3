"""Where callbacks may go: the guard against being used as a way into the operator's own network. Pure but for `resolver`.

Syntax and policy are checked when a subscription is made, without looking a name up; the addresses behind a name are
checked whenever a connection is opened, and it is opened to the very addresses that were checked (`resolver`), so that a
name which points elsewhere later gains nothing.

CallbackError
+-- CallbackMalformed      no URI that a notification could be posted to
+-- CallbackNotAllowed     the policy keeps the platform from calling there
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from yarl import URL

from mec_platform.domain.errors import MendableError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

LONGEST_URI = 2048

_METADATA = frozenset(
    map(
        ip_address,
        # Cloud metadata services hand credentials to whoever can send them a request from inside.
        ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))

DEVELOPMENT_NETWORKS: tuple[Network, ...] = tuple(
    map(ip_network, ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)
"""Loopback and private networks: where callbacks of a platform on a developer's machine are."""

_USUAL_PORTS = frozenset({80, 443})
_FIRST_OPEN_PORT = 1024


class CallbackError(Exception):
    """A callback reference that is not accepted; the message is meant for the subscriber."""


class CallbackMalformed(CallbackError):
    """The message says what a callback reference must look like."""


class CallbackNotAllowed(CallbackError):
    """The message says how an operator can allow it."""


class AllowanceError(MendableError):
    """A value of --callback-allow that cannot be read."""


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host, by name or address, that may be called though it is internal; at one port or at any (None)."""

    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class CallbackPolicy:
    """Which internal targets are allowed. Public ones are without being named, cloud metadata services never."""

    networks: tuple[Network, ...] = ()
    hosts: tuple[AllowedHost, ...] = ()

    def check_uri(self, uri: str) -> URL:
        """The URI, if it is one that notifications can be posted to, as far as can be told without looking a name up.

        Raises:
            CallbackMalformed, CallbackNotAllowed: with what to change.
        """
        url = parse_callback(uri)
        host, port = _host(url), _port(url)
        if not (port in _USUAL_PORTS or port >= _FIRST_OPEN_PORT or self._names(host, port)):
            raise CallbackNotAllowed(
                f"port {port} of a callback is neither 80, 443 nor above 1023; {_way_out(f'{host}:{port}')}"
            )
        literal = read_address(host)
        if literal is not None:
            self.check_address(host, port, literal)
        elif host == "localhost" or host.endswith(".localhost"):
            self.check_address(host, port, IPv4Address("127.0.0.1"))
        return url

    def check_address(self, host: str, port: int, address: Address) -> None:
        """Raises CallbackNotAllowed where the platform must not connect to this address of `host`."""
        meant = destinations(address)
        if any(each in _METADATA for each in meant):
            raise CallbackNotAllowed(f"{host} is a cloud metadata service ({address}); callbacks never go there")
        internal = [each for each in meant if not is_public(each)]
        if all(self._covers(each) for each in internal) or self._names(host, port):
            return
        raise CallbackNotAllowed(
            f"{host} is at the internal address {address}, which callbacks must not reach; {_way_out(host)}"
        )

    def _covers(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def _names(self, host: str, port: int) -> bool:
        return any(each.host == host and each.port in (None, port) for each in self.hosts)


def parse_callback(uri: str) -> URL:
    """The URI, if it has the form of one that notifications can be posted to. Raises CallbackMalformed."""
    if len(uri) > LONGEST_URI:
        raise CallbackMalformed(f"callbackReference has {len(uri)} characters, at most {LONGEST_URI} are taken")
    try:
        url = URL(uri)
        port = url.port
    except ValueError as error:
        raise CallbackMalformed(f"callbackReference {uri!r} is no URI: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise CallbackMalformed(f"callbackReference must look like http://host:port/path, not {uri!r}")
    if url.raw_user is not None or url.raw_password is not None:
        raise CallbackMalformed("callbackReference must not carry credentials")
    if not port:
        raise CallbackMalformed("callbackReference must not name port 0")
    return url


def read_allowances(texts: Iterable[str], networks: tuple[Network, ...] = ()) -> CallbackPolicy:
    """The policy that allows `networks` and what the operator names: CIDR networks, and hosts with or without a port.

    Raises:
        AllowanceError: naming the text that cannot be read.
    """
    named: list[Network] = list(networks)
    hosts: list[AllowedHost] = []
    for text in texts:
        if "/" in text:
            try:
                named.append(ip_network(text, strict=False))
            except ValueError as error:
                raise AllowanceError(f"--callback-allow {text}: {error}; write 10.0.0.0/8, host or host:port") from None
        else:
            hosts.append(_read_host(text))
    return CallbackPolicy(tuple(named), tuple(hosts))


def _read_host(text: str) -> AllowedHost:
    bare = read_address(text)
    if bare is not None:
        return AllowedHost(str(bare), None)
    try:
        url = URL(f"http://{text}")
        host, port = url.host, url.explicit_port
    except ValueError:
        host, port = None, None
    if not host or url.path != "/" or url.raw_user is not None:
        raise AllowanceError(f"--callback-allow {text}: no such host can be; write 10.0.0.0/8, host or host:port")
    return AllowedHost(_normal(host), port)


def read_address(host: str) -> Address | None:
    """The address that `host` is, None where it is a name. A scope (fe80::1%eth0) is left away."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether the address belongs to the internet at large."""
    return address.is_global and not (address.is_multicast or address.is_unspecified or address.is_reserved)


def destinations(address: Address) -> list[Address]:
    """Where a packet to this address may end: itself, and the IPv4 addresses in its 6to4, Teredo or NAT64 form."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    found: list[Address] = [address]
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    if any(address in network for network in _NAT64):
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return found


def _host(url: URL) -> str:
    assert url.host is not None
    return _normal(url.host)


def _normal(host: str) -> str:
    address = read_address(host)
    return host.lower().rstrip(".") if address is None else str(address)


def _port(url: URL) -> int:
    assert url.port is not None
    return url.port


def _way_out(target: str) -> str:
    return f"an operator can allow it with: mec serve --callback-allow {target}"
