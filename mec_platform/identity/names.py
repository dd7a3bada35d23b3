"""Whom a certificate stands for, as URIs among its alternative names: `urn:mec:member:edge-1`. Pure.

Of a member other such URIs say what it was granted to be, as `urn:mec:grant:trusted`: by whoever had it signed, not by itself.

Beside the URI a certificate has a DNS name made from it. It is for no resolver: a channel demands it of the other end, so
that what answers at the address of `edge-2` has to be `edge-2`, wherever that address leads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

URN = "urn:mec:"
DNS_ROOT = "mec.internal"
"""The top-level name `internal` is reserved for private use (ICANN, 2024): no public authority answers for it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MEMBER = re.compile(r"[a-z0-9]([a-z0-9_-]{0,55}[a-z0-9])?")


class Role(StrEnum):
    """What somebody is to the platform."""

    PLATFORM = "platform"
    """The platform itself; every replica."""
    MEMBER = "member"
    """An edge node or a gateway."""
    OPERATOR = "operator"
    """A person, or a program of theirs, that runs the platform."""
    CLIENT = "client"
    """A client of the APIs; its tokens say what it may do there."""


class Grant(StrEnum):
    """What a member may be. What its certificate does not grant it is not, whatever it says."""

    NODE = "node"
    GATEWAY = "gateway"
    TRUSTED = "trusted"
    """A node that may hold blocks which need trust."""

    @property
    def uri(self) -> str:
        """As it stands in a certificate."""
        return f"{URN}grant:{self}"


EVERY_GRANT = frozenset(Grant)


@dataclass(frozen=True, slots=True)
class Identity:
    """A role and a name in it."""

    role: Role
    name: str

    def __str__(self) -> str:
        return f"{self.role} {self.name}"

    @property
    def uri(self) -> str:
        """As it stands in a certificate."""
        return f"{URN}{self.role}:{self.name}"


def identities_in(uris: Iterable[str]) -> frozenset[Identity]:
    """Those that URIs of a certificate name; others are not for us."""
    found = set()
    for uri in uris:
        role, _, name = uri.removeprefix(URN).partition(":")
        if uri.startswith(URN) and name and role in frozenset(Role):
            found.add(Identity(Role(role), name))
    return frozenset(found)


def grants_in(uris: Iterable[str]) -> frozenset[Grant]:
    """What URIs of a certificate grant."""
    stated = frozenset(uris)
    return frozenset(grant for grant in Grant if grant.uri in stated)


def name_problem(role: Role, name: str) -> str | None:
    """Why nobody of that role can have this name in a certificate; None where somebody can."""
    if role is Role.MEMBER:
        # One DNS label, and those know no case: `Edge-1` must not pass for `edge-1`.
        if not _MEMBER.fullmatch(name):
            return (
                f"{name!r} cannot name a member in a certificate: take up to 57 small letters, digits, '_' and '-', "
                "with a letter or digit at both ends"
            )
    elif not _NAME.fullmatch(name):
        return f"{name!r} cannot stand in a certificate: take up to 64 letters, digits, '.', '_' and '-'"
    return None


def server_name(member: str) -> str:
    """The DNS name that a channel demands of a member; of the platform where `member` is empty."""
    return f"{member}.member.{DNS_ROOT}" if member else f"platform.{DNS_ROOT}"


def client_id_of(member: str) -> str:
    """The id of the client of the APIs that a member is which has joined by a token."""
    return f"member.{member}"
