"""Permissions to join, and the clients that members become by using them; a shell over `registry` as `credentials` is.

A permission is good once, for one name, for a while. Of its secret the registry keeps the hash; who uses it gets the
credentials of a client of the APIs in return, by the same event, so that nobody can use it twice whatever fails.
"""

from __future__ import annotations

import hmac
import secrets

from mec_platform.domain.credentials import JoinPermit, Scope
from mec_platform.identity.join_token import SECRET_BYTES, hash_secret
from mec_platform.identity.names import EVERY_GRANT, Grant, Role, client_id_of, name_problem
from mec_platform.registry import events
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.errors import UnknownJoinPermit
from mec_platform.registry.registry import Registry
from mec_platform.registry.state import RegistryState

MEMBER_SCOPES = frozenset({Scope.APP_SUPPORT, Scope.SERVICE_MANAGEMENT})
"""What a member does with the APIs: it registers itself and offers its service."""


class Joining:
    """Permissions to join one platform."""

    def __init__(self, registry: Registry, credentials: Credentials) -> None:
        self._registry = registry
        self._credentials = credentials

    def all(self) -> list[JoinPermit]:
        """Those that can still be used, oldest first."""
        now_ns = self._registry.clock.unix_ns()
        permits = self._registry.state.join_permits.values()
        return sorted(
            (each for each in permits if each.expires_unix_ns > now_ns),
            key=lambda each: (each.created_unix_ns, each.permit_id),
        )

    async def permit(self, name: str, life_s: int, grants: frozenset[Grant] = EVERY_GRANT) -> tuple[JoinPermit, bytes]:
        """Lets a member of that name join once, as what it is granted; returns the secret too, which cannot be read again.

        Raises:
            ValueError: no member can have that name.
        """
        problem = name_problem(Role.MEMBER, name)
        if problem is not None:
            raise ValueError(problem)
        secret = secrets.token_bytes(SECRET_BYTES)
        now_ns = self._registry.clock.unix_ns()
        permit = JoinPermit(
            secret_hash=hash_secret(secret),
            name=name,
            created_unix_ns=now_ns,
            expires_unix_ns=now_ns + life_s * 10**9,
            grants=frozenset(map(str, grants)),
        )
        await self._registry.commit(lambda state: events.JoinPermitted(permit))
        return permit, secret

    async def withdraw(self, permit_id: str) -> None:
        """Raises UnknownJoinPermit."""

        def decide(state: RegistryState) -> events.Event:
            if permit_id not in state.join_permits:
                raise UnknownJoinPermit(permit_id)
            return events.JoinPermitWithdrawn(permit_id)

        await self._registry.commit(decide)

    async def use(self, name: str, secret: bytes) -> tuple[str, str, frozenset[Grant]]:
        """Takes the permission of that secret and name; returns id and secret of the client that the member is now, and what
        it is granted.

        Raises:
            UnknownJoinPermit: there is none that can be used.
        """
        secret_hash = hash_secret(secret)
        client, client_secret = self._credentials.prepare(client_id_of(name), MEMBER_SCOPES)

        granted: frozenset[Grant] = frozenset()

        def decide(state: RegistryState) -> events.Event:
            nonlocal granted
            permit = state.join_permits.get(secret_hash[:16])
            if (
                permit is None
                or not hmac.compare_digest(permit.secret_hash, secret_hash)
                or permit.name != name
                or permit.expires_unix_ns <= self._registry.clock.unix_ns()
            ):
                raise UnknownJoinPermit
            granted = frozenset(map(Grant, permit.grants))
            return events.JoinPermitUsed(permit.permit_id, client)

        await self._registry.commit(decide)
        return client.client_id, client_secret, granted

    def has_joined(self, name: str) -> bool:
        """Whether a member has joined under that name and its client was not deleted since."""
        return client_id_of(name) in self._registry.state.clients
