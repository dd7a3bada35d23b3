"""An authority, and identities that it has signed, for tests that speak mutual TLS for real."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from mec_platform.identity.authority import (
    Pair,
    Purpose,
    fingerprint,
    issue,
    key_pem,
    make_authority,
    make_request,
    sign,
)
from mec_platform.identity.grpc_identity import GrpcIdentity, Material
from mec_platform.identity.names import EVERY_GRANT, Grant


class Town:
    """Everybody with a certificate of one authority. Real handshakes look at the machine's clock, so this does too."""

    def __init__(self) -> None:
        self.now_s = time.time()
        self.authority = make_authority("test authority", self.now_s)

    @property
    def fingerprint(self) -> bytes:
        return fingerprint(self.authority.certificate)

    def pair(self, purpose: Purpose, name: str, grants: frozenset[Grant] = EVERY_GRANT) -> Pair:
        return issue(self.authority, purpose, name, ["127.0.0.1"], self.now_s, 30, grants)

    def identity(self, purpose: Purpose, name: str, grants: frozenset[Grant] = EVERY_GRANT) -> GrpcIdentity:
        """A new certificate at every reading, as after a renewal."""
        return GrpcIdentity(lambda: Material.of_pair(self.pair(purpose, name, grants), self.authority.certificate))

    def member(self, name: str, grants: frozenset[Grant] = EVERY_GRANT) -> GrpcIdentity:
        return self.identity(Purpose.MEMBER, name, grants)

    def expired(self, name: str) -> GrpcIdentity:
        """A member whose certificate was good until a minute ago."""
        key, _ = make_request(name)
        then_s = self.now_s - 3600
        signed = sign(self.authority, Purpose.MEMBER, name, [], key.public_key(), then_s, timedelta(minutes=59))
        material = Material.of_pair(Pair(signed, key), self.authority.certificate)
        assert material.key == key_pem(key)
        return GrpcIdentity(lambda: material)


def own_address() -> str:
    """This machine's address in its network; nothing is sent to find it. Skips where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address beyond loopback")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no address beyond loopback")
    return address


async def refused(call: Awaitable[object], code: grpc.StatusCode) -> str:
    """The words with which a call is refused; fails the test where it is not, or otherwise."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is code, raised.value
    return raised.value.details() or ""
