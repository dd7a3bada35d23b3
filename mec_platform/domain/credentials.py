"""Clients of the APIs, what they may do, and the keys that sign their tokens (ETSI GS MEC 009 clause 6.16), as frozen values.

Secrets are kept as hashes only. Signing keys are kept whole, so whoever reads the state can issue tokens: the state file is
its owner's alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """One for each API; a token carries those that its client was given."""

    APP_SUPPORT = "mec_app_support"
    SERVICE_MANAGEMENT = "mec_service_mgmt"
    RADIO_INFORMATION = "rni"
    FEDERATION = "mec_federation"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Somebody who may ask for tokens. `secret_hash` is SHA-256, hexadecimal, of a random secret of 256 bits, and
    `created_unix_ns` the time of its making."""

    client_id: str
    scopes: frozenset[Scope]
    secret_hash: str = field(repr=False)
    created_unix_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPermit:
    """A member of that name may join once before `expires_unix_ns`, as what `grants` name (see `identity.names.Grant`).

    `secret_hash` is SHA-256, hexadecimal, of the random 256 bits in the token that says so.
    """

    secret_hash: str = field(repr=False)
    name: str
    created_unix_ns: int
    expires_unix_ns: int
    grants: frozenset[str] = frozenset({"node", "gateway", "trusted"})

    @property
    def permit_id(self) -> str:
        """What operators know it by; of the secret it tells nothing."""
        return self.secret_hash[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key (JWK as JSON): it signs tokens until a newer one exists, and verifies them until it is removed."""

    key_id: str
    private_jwk: str = field(repr=False)
    created_unix_ns: int
