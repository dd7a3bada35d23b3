"""Access tokens: signed JWTs (RFC 9068, ETSI GS MEC 009 clause 6.16), issued and verified as pure functions of state and time.

Its counterparts are `token_endpoint`, which issues them, and `authentication`, which asks for them. ES256: of what
joserfc signs with elliptic curves it is verified fastest (0.16 ms, Ed25519 takes 0.22 ms). Keys come in from the state
and time comes in as an argument; nothing here logs, because tokens are secrets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from mec_platform.domain.credentials import Client, Scope, SigningKey

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"
"""RFC 9068 section 2.1: no other signed document passes for an access token."""

LONGEST_TOKEN = 2048
"""Characters; our own have some 400. What is longer is refused unread."""

LEEWAY_S = 5
"""By how much a token may come from the future: the clock may be set back a little between two looks at it."""

_REGISTRY = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)


class InvalidToken(Exception):
    """A token that proves nothing; the message says why and repeats nothing of it."""


class Credentials(Protocol):
    """The part of the registry's state that tokens are checked against."""

    @property
    def clients(self) -> Mapping[str, Client]:
        """By client id."""

    @property
    def signing_keys(self) -> Mapping[str, SigningKey]:
        """By key id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token says: who may do what until when.

    `certificate` is the SHA-256 thumbprint of the client certificate that it is bound to (RFC 8705 section 3.1); empty
    where it is bound to none.
    """

    client_id: str
    scopes: frozenset[Scope]
    issued_unix_s: int
    expires_unix_s: int
    token_id: str
    certificate: str = ""


class _Confirmation(msgspec.Struct, frozen=True):
    thumbprint: str = msgspec.field(name="x5t#S256")


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    iss: str
    sub: str
    scope: str
    iat: int
    exp: int
    jti: str
    cnf: _Confirmation | None = None


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str
    typ: str


def generate_key(key_id: str, now_unix_ns: int) -> SigningKey:
    """A new signing key. Its randomness is the operating system's: a key that can be repeated is none."""
    key = ECKey.generate_key("P-256", {"kid": key_id, "use": "sig", "alg": ALGORITHM}, auto_kid=False)
    return SigningKey(
        key_id=key_id,
        private_jwk=msgspec.json.encode(key.as_dict(private=True)).decode(),
        created_unix_ns=now_unix_ns,
    )


def public_jwk(key: SigningKey) -> dict[str, Any]:
    """What others need to verify tokens themselves (RFC 7517); nothing private."""
    return dict(load_key(key.private_jwk).as_dict(private=False))


def newest_key(keys: Mapping[str, SigningKey]) -> SigningKey | None:
    """The key that signs."""
    return max(keys.values(), key=lambda key: (key.created_unix_ns, key.key_id), default=None)


def issue_token(key: SigningKey, issuer: str, grant: Grant) -> str:
    """The compact serialisation of a token that says what `grant` says."""
    claims = _Claims(
        iss=issuer,
        sub=grant.client_id,
        scope=" ".join(sorted(grant.scopes)),
        iat=grant.issued_unix_s,
        exp=grant.expires_unix_s,
        jti=grant.token_id,
        cnf=_Confirmation(grant.certificate) if grant.certificate else None,
    )
    header = {"alg": ALGORITHM, "kid": key.key_id, "typ": TOKEN_TYPE}
    return jws.serialize_compact(header, msgspec.json.encode(claims), load_key(key.private_jwk), registry=_REGISTRY)


def verify_token(token: str, issuer: str, state: Credentials, now_unix_s: float) -> tuple[Grant, Client, SigningKey]:
    """What a token grants now, to whom, and by which key. Scopes that its client has lost since are left out.

    Raises:
        InvalidToken: it is not ours, not for now, or not of a client that exists.
    """
    signed, key = _check_signature(token, state.signing_keys)
    try:
        claims = msgspec.json.decode(signed.payload, type=_Claims)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidToken("the token's claims are not those of an access token") from error
    if claims.iss != issuer:
        raise InvalidToken("the token was issued by somebody else")
    if claims.exp <= now_unix_s:
        raise InvalidToken("the token has expired; ask for a new one")
    if claims.iat > now_unix_s + LEEWAY_S:
        raise InvalidToken("the token is not valid yet")
    client = state.clients.get(claims.sub)
    if client is None:
        raise InvalidToken("the token's client exists no more")
    if claims.iat < client.created_unix_ns // 10**9:
        raise InvalidToken("the token was obtained with an older secret; ask for a new one")
    grant = Grant(
        client_id=claims.sub,
        scopes=client.scopes.intersection(claims.scope.split()),
        issued_unix_s=claims.iat,
        expires_unix_s=claims.exp,
        token_id=claims.jti,
        certificate=claims.cnf.thumbprint if claims.cnf else "",
    )
    return grant, client, key


def _check_signature(token: str, keys: Mapping[str, SigningKey]) -> tuple[jws.CompactSignature, SigningKey]:
    if len(token) > LONGEST_TOKEN:
        raise InvalidToken(f"the token has more than {LONGEST_TOKEN} characters")
    try:
        signed = jws.extract_compact(token.encode("ascii"), registry=_REGISTRY)
        header = msgspec.convert(signed.headers(), _Header)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken("the token is no signed JWT") from error
    if header.alg != ALGORITHM or header.typ != TOKEN_TYPE:
        raise InvalidToken(f"the token is not an access token signed with {ALGORITHM}")
    key = keys.get(header.kid)
    if key is None:
        raise InvalidToken("the token's signing key is in use no more; ask for a new token")
    try:
        genuine = jws.validate_compact(signed, load_key(key.private_jwk), registry=_REGISTRY)
    except (JoseError, ValueError, TypeError) as error:
        raise InvalidToken("the token's signature cannot be read") from error
    if not genuine:
        raise InvalidToken("the token's signature is wrong")
    return signed, key


@lru_cache(maxsize=32)
def load_key(private_jwk: str) -> ECKey:
    """A signing key ready for use."""
    return ECKey.import_key(msgspec.json.decode(private_jwk, type=dict[str, Any]))


class TokenCache:
    """Tokens that were verified before cost two look-ups: their client and key must still be what they were then.

    Bounded: beyond `size` tokens the oldest is verified anew when it comes again.
    """

    def __init__(self, issuer: str, size: int = 10_000) -> None:
        self._issuer = issuer
        self._size = size
        self._verified: OrderedDict[str, tuple[Grant, Client, SigningKey]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verified)

    def verify(self, token: str, state: Credentials, now_unix_s: float) -> Grant:
        """As `verify_token`. Raises InvalidToken."""
        known = self._verified.get(token)
        if known is not None:
            grant, client, key = known
            if (
                grant.expires_unix_s > now_unix_s
                and state.clients.get(grant.client_id) is client
                and state.signing_keys.get(key.key_id) is key
            ):
                return grant
            del self._verified[token]
        known = self._verified[token] = verify_token(token, self._issuer, state, now_unix_s)
        if len(self._verified) > self._size:
            self._verified.popitem(last=False)
        return known[0]
