"""`/admin/v1`: clients, signing keys and the audit trail, for operators. Not an ETSI API; its style is that of the others.

Each handler parses, makes one call, and serialises. A secret is in one answer, the one to its making.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import Client, Scope
from mec_platform.enablement_api.exchange import json_response, no_content, read_message, read_value, resource_uri
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.security.key_rotation import KeyRotation
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.event_log import EventLog
from mec_platform.registry.registry import STREAM

ROOT = "/admin/v1"

PAGE = 100

LARGEST_REVISION = 2**63 - 1
"""Revisions have 64 bits with a sign, in the log as elsewhere."""

_CLIENT = f"{ROOT}/clients/{{clientId}}"
_ROW = partial(Operation, tag="Administration", scope=Scope.ADMIN)
_BEFORE = QueryParameter(
    "before",
    Annotated[int, msgspec.Meta(ge=1, le=LARGEST_REVISION)],
    "Only changes of lower revisions: the page after that which `next` names.",
)
_LIMIT = QueryParameter("limit", Annotated[int, msgspec.Meta(ge=1, le=1000)], f"At most so many; {PAGE} where absent.")


class ClientRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an operator says of a client to be. With mutual TLS its id is the name in its certificate."""

    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)]
    client_id: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None


class ClientMessage(msgspec.Struct, frozen=True, rename="camel"):
    """A client as operators see it."""

    client_id: str
    scopes: list[Scope]
    created_unix_s: int


class NewSecret(msgspec.Struct, frozen=True, rename="camel"):
    """A client's id and its new secret, which cannot be read again."""

    client_id: str
    client_secret: str
    scopes: list[Scope]


class KeyMessage(msgspec.Struct, frozen=True, rename="camel"):
    """A signing key; its public part is at /oauth2/jwks."""

    key_id: str
    created_unix_s: int


class AuditEntry(msgspec.Struct, frozen=True, rename="camel"):
    """One change: what happened, to what, through whom, and when."""

    revision: int
    kind: str
    subject: str
    actor: str
    at_unix_ns: int


class AuditPage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Newest first; `next` is there where there are older ones."""

    records: list[AuditEntry]
    next: int | None = None


class SecurityAdministration:
    """Handlers over one platform's credentials and log."""

    def __init__(self, credentials: Credentials, keys: KeyRotation, log: EventLog) -> None:
        self._credentials = credentials
        self._keys = keys
        self._log = log

    def operations(self) -> list[Operation]:
        """Clients, keys, audit."""
        return [*self._of_clients(), *self._of_one_client(), *self._of_the_platform()]

    def _of_clients(self) -> list[Operation]:
        return [
            _ROW(
                method="POST",
                path=f"{ROOT}/clients",
                operation_id="createClient",
                summary="Make credentials for a client",
                handler=self.create_client,
                body=ClientRequest,
                answers={HTTPStatus.CREATED: NewSecret},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
            _ROW(
                method="GET",
                path=f"{ROOT}/clients",
                operation_id="listClients",
                summary="List the clients",
                handler=self.list_clients,
                answers={HTTPStatus.OK: list[ClientMessage]},
            ),
        ]

    def _of_one_client(self) -> list[Operation]:
        return [
            _ROW(
                method="GET",
                path=_CLIENT,
                operation_id="getClient",
                summary="Read a client",
                handler=self.get_client,
                answers={HTTPStatus.OK: ClientMessage},
            ),
            _ROW(
                method="DELETE",
                path=_CLIENT,
                operation_id="deleteClient",
                summary="End a client and its tokens",
                handler=self.delete_client,
                answers={HTTPStatus.NO_CONTENT: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
            _ROW(
                method="POST",
                path=f"{_CLIENT}/secret",
                operation_id="renewClientSecret",
                summary="Give a client a new secret, and end the tokens of the old one",
                handler=self.renew_secret,
                answers={HTTPStatus.OK: NewSecret},
            ),
        ]

    def _of_the_platform(self) -> list[Operation]:
        return [
            _ROW(
                method="POST",
                path=f"{ROOT}/keys/rotate",
                operation_id="rotateSigningKey",
                summary="Sign tokens with a new key; the old one verifies until its tokens have expired",
                handler=self.rotate_key,
                answers={HTTPStatus.OK: KeyMessage},
            ),
            _ROW(
                method="GET",
                path=f"{ROOT}/audit",
                operation_id="listChanges",
                summary="Read who changed what",
                handler=self.list_changes,
                query=(_BEFORE, _LIMIT),
                answers={HTTPStatus.OK: AuditPage},
            ),
        ]

    async def create_client(self, request: web.Request) -> web.Response:
        """POST a client."""
        message = await read_message(request, ClientRequest)
        client, secret = await self._credentials.create(message.scopes, message.client_id)
        location = resource_uri(request, f"{ROOT}/clients/{client.client_id}")
        return _once(NewSecret(client.client_id, secret, sorted(client.scopes)), HTTPStatus.CREATED, location)

    async def list_clients(self, request: web.Request) -> web.Response:
        """GET all clients, oldest first."""
        return json_response([_message(client) for client in self._credentials.all()])

    async def get_client(self, request: web.Request) -> web.Response:
        """GET a client."""
        return json_response(_message(self._credentials.get(request.match_info["clientId"])))

    async def delete_client(self, request: web.Request) -> web.Response:
        """DELETE a client."""
        await self._credentials.remove(request.match_info["clientId"])
        return no_content()

    async def renew_secret(self, request: web.Request) -> web.Response:
        """POST for a new secret."""
        client_id = request.match_info["clientId"]
        secret = await self._credentials.renew_secret(client_id)
        return _once(NewSecret(client_id, secret, sorted(self._credentials.get(client_id).scopes)), HTTPStatus.OK)

    async def rotate_key(self, request: web.Request) -> web.Response:
        """POST for a new signing key."""
        key = await self._keys.rotate()
        return json_response(KeyMessage(key.key_id, key.created_unix_ns // 10**9))

    async def list_changes(self, request: web.Request) -> web.Response:
        """GET a page of the audit trail."""
        limit = read_value(request, _LIMIT) or PAGE
        found = await self._log.history(STREAM, read_value(request, _BEFORE), limit + 1)
        page = [AuditEntry(each.revision, each.kind, each.subject, each.actor, each.at_unix_ns) for each in found]
        following = page[limit - 1].revision if len(page) > limit else None
        return json_response(AuditPage(page[:limit], following))


def _message(client: Client) -> ClientMessage:
    return ClientMessage(client.client_id, sorted(client.scopes), client.created_unix_ns // 10**9)


def _once(message: NewSecret, status: HTTPStatus, location: str | None = None) -> web.Response:
    """An answer that nobody on its way may keep."""
    response = json_response(message, status, location)
    response.headers["Cache-Control"] = "no-store"
    return response
