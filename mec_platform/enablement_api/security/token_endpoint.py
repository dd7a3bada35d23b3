"""Where clients get tokens (RFC 6749 section 4.4, client credentials) and others the keys to verify them (RFC 7517, 8414).

Errors have the shape of RFC 6749 section 5.2, which OAuth2 clients expect, not that of problem details.
"""

from __future__ import annotations

import base64
import binascii
import math
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import Client, Scope
from mec_platform.enablement_api.exchange import json_response, resource_uri
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.security.client_check import ClientCheck, TooManyFailures, WrongSecret
from mec_platform.enablement_api.security.forms import FORM, FormError, read_form
from mec_platform.enablement_api.security.peer_certificates import peer_certificate
from mec_platform.enablement_api.security.token_issuer import ForeignCertificate, TokenIssuer
from mec_platform.enablement_api.security.tokens import public_jwk
from mec_platform.registry.credentials import Credentials

TOKEN = "/oauth2/token"
JWKS = "/oauth2/jwks"
METADATA = "/.well-known/oauth-authorization-server"


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 6749 section 4.4.2, as form data; id and secret may come as HTTP Basic credentials instead."""

    grant_type: str
    scope: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


class TokenAnswer(msgspec.Struct, frozen=True):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class TokenError(msgspec.Struct, frozen=True):
    """RFC 6749 section 5.2."""

    error: str
    error_description: str


class KeySet(msgspec.Struct, frozen=True):
    """RFC 7517 section 5."""

    keys: list[dict[str, Any]]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 8414 section 2."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    tls_client_certificate_bound_access_tokens: bool


class _Refused(Exception):
    """RFC 6749 section 5.2. `error` is one of its words; `headers` go with the answer."""

    def __init__(
        self,
        error: str,
        description: str,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        self.error = error
        self.status = status
        self.headers = headers or {}


class TokenEndpoint:
    """Handlers over the clients and keys of one platform."""

    def __init__(self, credentials: Credentials, clients: ClientCheck, issuer: TokenIssuer) -> None:
        self._credentials = credentials
        self._clients = clients
        self._issuer = issuer

    def operations(self) -> list[Operation]:
        """Open to everyone: nobody has a token before."""
        row = partial(Operation, tag="Authorisation", scope=None)
        return [
            row(
                method="POST",
                path=TOKEN,
                operation_id="issueToken",
                summary="Get an access token for client credentials",
                handler=self.issue_token,
                body=TokenRequest,
                body_media_type=FORM,
                answers={
                    HTTPStatus.OK: TokenAnswer,
                    HTTPStatus.BAD_REQUEST: TokenError,
                    HTTPStatus.UNAUTHORIZED: TokenError,
                    HTTPStatus.TOO_MANY_REQUESTS: TokenError,
                },
            ),
            row(
                method="GET",
                path=JWKS,
                operation_id="listSigningKeys",
                summary="Read the public keys that verify access tokens",
                handler=self.list_keys,
                answers={HTTPStatus.OK: KeySet},
            ),
            row(
                method="GET",
                path=METADATA,
                operation_id="getAuthorisationServer",
                summary="Read where and how tokens are issued",
                handler=self.describe,
                answers={HTTPStatus.OK: Metadata},
            ),
        ]

    async def issue_token(self, request: web.Request) -> web.Response:
        """POST client credentials for a token."""
        try:
            answer = await self._issue(request)
        except _Refused as refusal:
            response = json_response(TokenError(refusal.error, str(refusal)), refusal.status)
            response.headers.update(refusal.headers)
        else:
            response = json_response(answer)
        response.headers.update({"Cache-Control": "no-store", "Pragma": "no-cache"})
        return response

    async def list_keys(self, request: web.Request) -> web.Response:
        """GET the public keys."""
        return json_response(KeySet([public_jwk(key) for key in self._credentials.signing_keys()]))

    async def describe(self, request: web.Request) -> web.Response:
        """GET the metadata of the authorisation server."""
        return json_response(
            Metadata(
                issuer=self._issuer.issuer,
                token_endpoint=resource_uri(request, TOKEN),
                jwks_uri=resource_uri(request, JWKS),
                scopes_supported=sorted(Scope),
                response_types_supported=[],
                grant_types_supported=["client_credentials"],
                token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"],
                tls_client_certificate_bound_access_tokens=peer_certificate(request) is not None,
            )
        )

    async def _issue(self, request: web.Request) -> TokenAnswer:
        try:
            form = await read_form(request)
        except FormError as error:
            raise _Refused("invalid_request", str(error)) from error
        if "grant_type" not in form:
            raise _Refused("invalid_request", "grant_type is missing")
        client_id, secret, challenge = _read_client(request, form)
        client = self._authenticate(request, client_id, secret, challenge)
        if form["grant_type"] != "client_credentials":
            raise _Refused("unsupported_grant_type", "grant_type must be client_credentials")
        scopes = _granted(client, form.get("scope", ""))
        try:
            token, life_s = await self._issuer.issue(request, client_id, scopes)
        except ForeignCertificate as error:
            raise _Refused("invalid_client", str(error), HTTPStatus.UNAUTHORIZED, challenge) from error
        return TokenAnswer(token, "Bearer", life_s, " ".join(sorted(scopes)))

    def _authenticate(self, request: web.Request, client_id: str, secret: str, challenge: dict[str, str]) -> Client:
        try:
            return self._clients.check(request, client_id, secret)
        except WrongSecret as error:
            raise _Refused("invalid_client", str(error), HTTPStatus.UNAUTHORIZED, challenge) from error
        except TooManyFailures as error:
            retry = {"Retry-After": str(math.ceil(error.wait_s))}
            raise _Refused("temporarily_unavailable", str(error), HTTPStatus.TOO_MANY_REQUESTS, retry) from error


def _read_client(request: web.Request, form: dict[str, str]) -> tuple[str, str, dict[str, str]]:
    """Id, secret, and what to challenge with where they are wrong: whoever sent Basic credentials may send others."""
    lines = request.headers.getall("Authorization", [])
    in_form = "client_secret" in form
    if not lines:
        if not in_form or "client_id" not in form:
            raise _Refused("invalid_client", "client_id and client_secret are missing", HTTPStatus.UNAUTHORIZED)
        return form["client_id"], form["client_secret"], {}
    challenge = {"WWW-Authenticate": 'Basic realm="mec"'}
    if in_form or len(lines) > 1:
        raise _Refused("invalid_request", "client credentials are there more than once")
    scheme, _, encoded = lines[0].partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        client_id, separator, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not separator:
            raise ValueError("no colon")
    except (ValueError, binascii.Error) as error:
        raise _Refused(
            "invalid_client", "the Authorization header holds no Basic credentials", HTTPStatus.UNAUTHORIZED, challenge
        ) from error
    return unquote_plus(client_id), unquote_plus(secret), challenge


def _granted(client: Client, requested: str) -> frozenset[Scope]:
    """What is asked for, all that the client has where nothing is."""
    names = frozenset(requested.split())
    if not names <= frozenset(scope.value for scope in client.scopes):
        raise _Refused("invalid_scope", "the client has not got every scope that is asked for")
    return frozenset(map(Scope, names)) or client.scopes
