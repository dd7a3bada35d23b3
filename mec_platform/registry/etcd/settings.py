"""Where an etcd state is, and how it is reached: `etcd://host:port[,host:port...]/prefix`, TLS, user and password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mec_platform.domain.errors import MendableError

SCHEME = "etcd://"
DEFAULT_PORT = 2379
DEFAULT_PREFIX = "mec"
DEADLINE_S = 3.0
"""A call has this long, all attempts at all members together: longer than etcd takes to elect a leader (1 to 2 s)."""


class EtcdAddressError(MendableError):
    """An address of a state in etcd that cannot be read; the message says what one looks like."""


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """PEM files: the authority of the members' certificates, and what this client shows them where they ask for it."""

    authority: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Members to try in turn, and the prefix under which all keys of one MEC host lie; it has no slash at either end."""

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    tls: EtcdTls | None = None
    user: str = ""
    password: str = ""
    deadline_s: float = DEADLINE_S

    def __str__(self) -> str:
        return f"{SCHEME}{','.join(self.endpoints)}/{self.prefix}"


def is_etcd_address(text: str) -> bool:
    """Whether a state is in etcd; anything else is a file."""
    return text.startswith(SCHEME)


def parse_etcd_address(text: str) -> EtcdSettings:
    """The settings that an address stands for, without TLS and user. Raises EtcdAddressError."""
    endpoints, _, prefix = text.removeprefix(SCHEME).partition("/")
    if not is_etcd_address(text) or not endpoints:
        raise EtcdAddressError(
            f"{text!r} is no address of an etcd state, such as etcd://10.0.0.1:2379,10.0.0.2:2379/mec"
        )
    prefix = prefix.strip("/") or DEFAULT_PREFIX
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", prefix, re.ASCII):
        raise EtcdAddressError(
            f"the prefix {prefix!r} may have letters, digits, '.', '_', '-' and slashes between them"
        )
    return EtcdSettings(tuple(_endpoint(each, text) for each in endpoints.split(",")), prefix)


def _endpoint(text: str, whole: str) -> str:
    if "@" in text:
        raise EtcdAddressError("a password does not belong into an address; see --etcd-user and --etcd-password-file")
    found = re.fullmatch(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?", text, re.ASCII)
    if found is None or int(found["port"] or DEFAULT_PORT) not in range(1, 65536):
        raise EtcdAddressError(f"{text!r} in {whole!r} is no HOST:PORT of an etcd member")
    return f"{found['host']}:{found['port'] or DEFAULT_PORT}"
