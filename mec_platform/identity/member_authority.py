"""The authority of one platform at work: certificates for its members, and the platform's own for its gRPC port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from mec_platform.identity.authority import (
    Pair,
    Purpose,
    fingerprint,
    issue,
    make_authority,
    requested_key,
    sign,
)
from mec_platform.identity.folder import AUTHORITY, key_path, load_authority, load_pair, save
from mec_platform.identity.grpc_identity import Material
from mec_platform.identity.names import Grant, Role, name_problem

MEMBER_LIFE = timedelta(hours=24)
"""Of the certificate of a member that has joined. It renews it by itself; one that was shut out is out after this at last."""

PLATFORM_DAYS = 30

NAME = "MEC platform authority"


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """PEM files, as `mec certs init` makes them."""

    certificate: Path
    key: Path


class MemberAuthority:
    """Signs with one authority; times are Unix times that `unix_time_s` tells."""

    def __init__(self, pair: Pair, unix_time_s: Callable[[], float]) -> None:
        self._pair = pair
        self._unix_time_s = unix_time_s

    @property
    def certificate_pem(self) -> bytes:
        """What members trust."""
        return self._pair.certificate_pem()

    @property
    def fingerprint(self) -> bytes:
        """What join tokens pin."""
        return fingerprint(self._pair.certificate)

    def sign_member(self, name: str, hosts: Sequence[str], request_pem: bytes, grants: frozenset[Grant]) -> bytes:
        """A certificate (PEM) for the member of that name, with the key of its request and nothing else of it.

        Raises:
            RequestRefused: the request is none, or for a key that is not signed.
        """
        key = requested_key(request_pem)
        signed = sign(self._pair, Purpose.MEMBER, name, hosts, key, self._unix_time_s(), MEMBER_LIFE, grants)
        return signed.public_bytes(serialization.Encoding.PEM)

    def make_platform(self, name: str, hosts: Sequence[str]) -> Material:
        """A new key and certificate for the platform, or replica of it, on the host of that name."""
        known_as = name if name_problem(Role.PLATFORM, name) is None else "platform"
        pair = issue(self._pair, Purpose.PLATFORM, known_as, hosts, self._unix_time_s(), PLATFORM_DAYS)
        return Material.of_pair(pair, self._pair.certificate)


def load_or_make(files: AuthorityFiles | None, beside: Path | None, now_unix_s: float) -> Pair:
    """The authority in the files; without them that in the folder `beside`, which is made where it is not there; without
    either one that ends with the process.

    Raises:
        CertificateError, PrivateFileError: it cannot be read, written or used.
    """
    if files is not None:
        return load_pair(files.certificate, files.key)
    if beside is None:
        return make_authority(NAME, now_unix_s)
    if not key_path(beside, AUTHORITY).exists():
        save(beside, AUTHORITY, make_authority(NAME, now_unix_s), replace=False)
    return load_authority(beside)
