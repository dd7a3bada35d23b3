"""How members join: `/admin/v1/join-tokens` for operators, and `/join/v1` for newcomers, who have a join token and nothing else.

A newcomer reads the authority's certificate without trusting anybody, holds it against the fingerprint in its token, and from
then on trusts that authority alone. No answer and no log repeats a token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import JoinPermit, Scope
from mec_platform.enablement_api.exchange import json_response, no_content, read_message
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.problem_details import BadRequest, Forbidden
from mec_platform.identity.authority import LARGEST_REQUEST_BYTES, RequestRefused, requested_key
from mec_platform.identity.join_token import JoinToken, JoinTokenError, decode_join_token
from mec_platform.identity.member_authority import MemberAuthority
from mec_platform.identity.names import Grant
from mec_platform.registry.errors import UnknownJoinPermit
from mec_platform.registry.joining import Joining

AUTHORITY_PATH = "/join/v1/authority"
CERTIFICATES_PATH = "/join/v1/certificates"
_TOKENS = "/admin/v1/join-tokens"
LONGEST_LIFE_S = 30 * 86_400
LIFE_S = 3600

_log = logging.getLogger(__name__)
_ADMIN = partial(Operation, tag="Administration", scope=Scope.ADMIN)
_OPEN = partial(Operation, tag="Joining", scope=None)


class JoinTokenRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an operator says of a member to be: a node or a gateway, or either where that is left open; trusted if a node."""

    name: str
    role: Literal["node", "gateway"] | None = None
    trusted: bool = True
    life_seconds: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_LIFE_S)] = LIFE_S


class JoinTokenMessage(msgspec.Struct, frozen=True, rename="camel"):
    """A token as operators see it afterwards."""

    token_id: str
    name: str
    expires_unix_s: int
    grants: list[str]


class NewJoinToken(msgspec.Struct, frozen=True, rename="camel"):
    """A token, which cannot be read again."""

    token_id: str
    name: str
    token: str
    expires_unix_s: int


class AuthorityMessage(msgspec.Struct, frozen=True, rename="camel"):
    """The certificate of the authority of this platform and all its members."""

    certificate_pem: str


class JoinRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A token and a request for a certificate (PKCS #10, PEM)."""

    token: Annotated[str, msgspec.Meta(max_length=512)]
    request_pem: Annotated[str, msgspec.Meta(max_length=LARGEST_REQUEST_BYTES)]


class Joined(msgspec.Struct, frozen=True, rename="camel"):
    """What a member has from then on: its certificate, and credentials for the APIs."""

    name: str
    certificate_pem: str
    authority_pem: str
    client_id: str
    client_secret: str


class JoiningApi:
    """Handlers over one platform's permissions and its authority. `address_of` tells from where a request comes."""

    def __init__(self, joining: Joining, authority: MemberAuthority, address_of: Callable[[web.Request], str]) -> None:
        self._joining = joining
        self._authority = authority
        self._address_of = address_of

    def operations(self) -> list[Operation]:
        """Tokens, authority, certificates."""
        return [
            _ADMIN(
                method="POST",
                path=_TOKENS,
                operation_id="createJoinToken",
                summary="Let a member join once",
                handler=self.create,
                body=JoinTokenRequest,
                answers={HTTPStatus.CREATED: NewJoinToken},
            ),
            _ADMIN(
                method="GET",
                path=_TOKENS,
                operation_id="listJoinTokens",
                summary="List the join tokens that can still be used",
                handler=self.list,
                answers={HTTPStatus.OK: list[JoinTokenMessage]},
            ),
            _ADMIN(
                method="DELETE",
                path=f"{_TOKENS}/{{tokenId}}",
                operation_id="deleteJoinToken",
                summary="Withdraw a join token",
                handler=self.delete,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
            _OPEN(
                method="GET",
                path=AUTHORITY_PATH,
                operation_id="getAuthority",
                summary="Read the certificate of the authority of platform and members",
                handler=self.authority,
                answers={HTTPStatus.OK: AuthorityMessage},
            ),
            _OPEN(
                method="POST",
                path=CERTIFICATES_PATH,
                operation_id="join",
                summary="Become a member: get a certificate for a join token",
                handler=self.join,
                body=JoinRequest,
                answers={HTTPStatus.CREATED: Joined},
                errors=frozenset({HTTPStatus.FORBIDDEN}),
            ),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """POST a permission."""
        message = await read_message(request, JoinTokenRequest)
        try:
            permit, secret = await self._joining.permit(message.name, message.life_seconds, _grants(message))
        except ValueError as error:
            raise BadRequest(str(error)) from error
        token = JoinToken(permit.name, secret, self._authority.fingerprint).encode()
        shown = _message(permit)
        return _once(NewJoinToken(shown.token_id, shown.name, token, shown.expires_unix_s))

    async def list(self, request: web.Request) -> web.Response:
        """GET all permissions."""
        return json_response([_message(permit) for permit in self._joining.all()])

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE a permission."""
        await self._joining.withdraw(request.match_info["tokenId"])
        return no_content()

    async def authority(self, request: web.Request) -> web.Response:
        """GET the authority's certificate."""
        return json_response(AuthorityMessage(self._authority.certificate_pem.decode()))

    async def join(self, request: web.Request) -> web.Response:
        """POST a token and a request for a certificate."""
        message = await read_message(request, JoinRequest)
        request_pem = message.request_pem.encode()
        try:
            token = decode_join_token(message.token)
            # Before the token is used up: a newcomer may mend its request.
            requested_key(request_pem)
            client_id, secret, grants = await self._joining.use(token.name, token.secret)
        except (JoinTokenError, RequestRefused) as error:
            raise BadRequest(str(error)) from error
        except UnknownJoinPermit as error:
            _log.warning("somebody at %s may not join", self._address_of(request))
            raise Forbidden(str(error)) from error
        # A member serves where it comes from; other hosts it could name to pass for somebody else.
        certificate = self._authority.sign_member(token.name, [self._address_of(request)], request_pem, grants)
        _log.warning("member %s has joined from %s", token.name, self._address_of(request))
        return _once(
            Joined(token.name, certificate.decode(), self._authority.certificate_pem.decode(), client_id, secret)
        )


def _message(permit: JoinPermit) -> JoinTokenMessage:
    return JoinTokenMessage(
        permit.permit_id, permit.name, permit.expires_unix_ns // 10**9, grants=sorted(permit.grants)
    )


def _grants(message: JoinTokenRequest) -> frozenset[Grant]:
    """What the member is to be granted."""
    roles = {Grant.NODE, Grant.GATEWAY} if message.role is None else {Grant(message.role)}
    return frozenset(roles | ({Grant.TRUSTED} if message.trusted else set()))


def _once(message: NewJoinToken | Joined) -> web.Response:
    """An answer that nobody on its way may keep."""
    response = json_response(message, HTTPStatus.CREATED)
    response.headers["Cache-Control"] = "no-store"
    return response
