"""Clients of the APIs and the keys that sign their tokens: what may be done to them (ETSI GS MEC 009 clause 6.16).

A thin shell over `registry`, like the facades beside it. Its counterparts are `enablement_api.security` and the
administration API. It makes secrets, returns each once, and keeps their hashes; it knows no tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

from mec_platform.domain.credentials import Client, Scope, SigningKey
from mec_platform.registry import events
from mec_platform.registry.errors import ClientExists, LastAdministrator, UnknownClient
from mec_platform.registry.registry import Registry
from mec_platform.registry.state import RegistryState

SECRET_BYTES = 32

_NOBODY = hashlib.sha256(secrets.token_bytes(SECRET_BYTES)).hexdigest()
"""Compared against where there is no such client, so that an unknown id takes as long as a wrong secret."""


def new_secret() -> str:
    """256 random bits: nobody guesses it, so a plain hash of it may be kept."""
    return secrets.token_urlsafe(SECRET_BYTES)


class Credentials:
    """Clients and signing keys of one registry."""

    def __init__(self, registry: Registry, make_secret: Callable[[], str] = new_secret) -> None:
        self._registry = registry
        self._make_secret = make_secret

    def get(self, client_id: str) -> Client:
        """Raises UnknownClient."""
        return _find(self._registry.state, client_id)

    def all(self) -> list[Client]:
        """All clients, by age."""
        return sorted(
            self._registry.state.clients.values(), key=lambda client: (client.created_unix_ns, client.client_id)
        )

    def find(self, client_id: str, secret: str) -> Client | None:
        """The client that this secret belongs to; None where either is wrong, without a hint which."""
        client = self._registry.state.clients.get(client_id)
        expected = client.secret_hash if client else _NOBODY
        return client if hmac.compare_digest(_hash(secret), expected) and client else None

    async def create(self, scopes: Iterable[Scope], client_id: str | None = None) -> tuple[Client, str]:
        """A new client and its secret, which cannot be read again. Its id is of the platform's making unless one is given.

        Raises:
            ClientExists: there is one of that id.
        """
        secret = self._make_secret()
        return await self.adopt(client_id or self._registry.new_id(), secret, scopes), secret

    async def adopt(self, client_id: str, secret: str, scopes: Iterable[Scope]) -> Client:
        """A new client with a secret that its maker has chosen. Raises ClientExists."""
        client, _ = self.prepare(client_id, scopes, secret)

        def decide(state: RegistryState) -> events.Event:
            if client_id in state.clients:
                raise ClientExists(client_id)
            return events.ClientAdded(client)

        await self._registry.commit(decide)
        return client

    def prepare(self, client_id: str, scopes: Iterable[Scope], secret: str | None = None) -> tuple[Client, str]:
        """A client that is not there yet, and its secret, for who makes it together with something else."""
        secret = secret or self._make_secret()
        return self._client(client_id, secret, frozenset(scopes)), secret

    async def renew_secret(self, client_id: str) -> str:
        """Puts a new secret in place of the old one, and ends the tokens that the old one obtained. Raises UnknownClient."""
        secret = self._make_secret()

        def decide(state: RegistryState) -> events.Event:
            return events.ClientAdded(self._client(client_id, secret, _find(state, client_id).scopes))

        await self._registry.commit(decide)
        return secret

    async def remove(self, client_id: str) -> None:
        """Ends a client and its tokens at once. What it owns stays, for administrators.

        Raises:
            UnknownClient: there is none.
            LastAdministrator: nobody would be left who could make clients.
        """

        def decide(state: RegistryState) -> events.Event:
            _find(state, client_id)
            refuse_last_administrator(state, client_id)
            return events.ClientRemoved(client_id)

        await self._registry.commit(decide)

    def signing_keys(self) -> list[SigningKey]:
        """All signing keys, oldest first; the last one signs."""
        return in_age_order(self._registry.state.signing_keys.values())

    async def add_key(self, key: SigningKey) -> None:
        """From now on this key signs, and the others verify."""
        await self._registry.commit(lambda state: events.SigningKeyAdded(key))

    async def remove_outlived_keys(self, token_life_s: int) -> list[str]:
        """Removes the keys that no valid token is signed with any more; returns their ids."""
        now_ns = self._registry.clock.unix_ns()
        outlived = outlived_keys(self.signing_keys(), token_life_s, now_ns)
        for key_id in outlived:
            await self._registry.commit(partial(_remove_key, key_id))
        return outlived

    def _client(self, client_id: str, secret: str, scopes: frozenset[Scope]) -> Client:
        return Client(
            client_id=client_id,
            scopes=scopes,
            secret_hash=_hash(secret),
            created_unix_ns=self._registry.clock.unix_ns(),
        )


def refuse_last_administrator(state: RegistryState, client_id: str) -> None:
    """Raises LastAdministrator where this client, if it is one, is the only one that may administer the platform."""
    if [each for each, client in state.clients.items() if Scope.ADMIN in client.scopes] == [client_id]:
        raise LastAdministrator(client_id)


def in_age_order(keys: Iterable[SigningKey]) -> list[SigningKey]:
    """Oldest first."""
    return sorted(keys, key=lambda key: (key.created_unix_ns, key.key_id))


def outlived_keys(keys: list[SigningKey], token_life_s: int, now_unix_ns: int) -> list[str]:
    """Of keys in order of age, those whose successor has been signing for longer than any token lives."""
    return [
        key.key_id
        for key, successor in pairwise(keys)
        if successor.created_unix_ns + token_life_s * 10**9 < now_unix_ns
    ]


def _remove_key(key_id: str, state: RegistryState) -> events.Event | None:
    return events.SigningKeyRemoved(key_id) if key_id in state.signing_keys else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _find(state: RegistryState, client_id: str) -> Client:
    client = state.clients.get(client_id)
    if client is None:
        raise UnknownClient(client_id)
    return client
