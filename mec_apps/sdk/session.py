"""Requests to one platform: connections, TLS, access tokens, and errors that say what to do.

`mp1` puts the standard's calls on it. It knows no resource but the token endpoint.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from mec_apps.sdk.errors import (
    CredentialsError,
    NotAuthorised,
    NotRegistered,
    PlatformUnreachable,
    PlatformUntrusted,
    RequestRefused,
    UnexpectedAnswer,
)
from mec_platform.private_files import PrivateFileError, read_private

TOKEN_PATH = "oauth2/token"

HEARTBEAT_S = 30.0
"""How often a WebSocket is tried on which nothing comes."""

RENEW_AT = 0.8
"""Part of a token's life after which the next request gets a new one first."""


class _CredentialsFile(msgspec.Struct):
    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What an application proves itself with; an operator makes them with `mec client create`."""

    client_id: str
    client_secret: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> ClientCredentials:
        """The credentials in a JSON file, as `mec` writes it.

        Raises:
            CredentialsError: it cannot be read, others can read it too, or it holds something else.
        """
        try:
            content = msgspec.json.decode(read_private(path), type=_CredentialsFile)
        except PrivateFileError as error:
            raise CredentialsError(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CredentialsError(f"{path} is no JSON with client_id and client_secret: {error}") from error
        return cls(content.client_id, content.client_secret)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """PEM files for mutual TLS; `mec certs issue CLIENT_ID --client` makes them."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What to show a platform, and whom to take for it; nothing where it asks for nothing.

    `ca` is a PEM file of authorities to trust instead of the system's.
    """

    credentials: ClientCredentials | None = None
    ca: Path | None = None
    certificate: ClientCertificate | None = None


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float


class PlatformSession:
    """One HTTP session to one platform. With `credentials` every request carries a token, obtained when first needed,
    renewed before it expires, and once more where the platform accepts it no longer.

    Raises:
        ValueError: `platform_url` is no http or https address.
        CredentialsError: a certificate file cannot be used.
    """

    def __init__(self, platform_url: str, request_timeout_s: float, access: Access) -> None:
        url = URL(platform_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"platform_url must look like http://127.0.0.1:8081, not {platform_url!r}")
        self.platform = url
        self._credentials = access.credentials
        self._token = ""
        self._renew_at_s = 0.0
        self._renewing = asyncio.Lock()
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=make_context(access)),
            timeout=aiohttp.ClientTimeout(total=request_timeout_s),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self.http.close()

    async def request(self, method: str, reference: str, message: Any = None) -> bytes:
        """The body of the platform's answer to one request; `reference` is relative to the platform's address.

        Raises:
            PlatformUnreachable, PlatformUntrusted, RequestRefused and its kinds.
        """
        url = self.resolve(reference)
        # Links may lead elsewhere; a token is for the platform alone.
        token = await self.token() if url.origin() == self.platform.origin() else ""
        status, body = await self._send(method, url, token, json=message)
        if status == 401 and token:
            status, body = await self._send(method, url, await self.token(refused=token), json=message)
        if status >= 400:
            raise _refusal(f"{method} {url.path}", status, body, self._credentials)
        return body

    async def connect(self, reference: str) -> aiohttp.ClientWebSocketResponse:
        """Opens a WebSocket of the platform; whoever reads it has to answer its pings.

        Raises:
            PlatformUnreachable, PlatformUntrusted, RequestRefused and its kinds.
        """
        url = self.resolve(reference)
        own = (url.host, url.port) == (self.platform.host, self.platform.port)
        token = await self.token() if own else ""
        try:
            return await self._connect(url, token)
        except NotAuthorised as error:
            if not token or error.status != 401:
                raise
        return await self._connect(url, await self.token(refused=token))

    async def _connect(self, url: URL, token: str) -> aiohttp.ClientWebSocketResponse:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return await self.http.ws_connect(url, headers=headers, heartbeat=HEARTBEAT_S, autoping=False)
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(f"the WebSocket {url.path}", error.status, b"", self._credentials) from error
        except aiohttp.ClientSSLError as error:
            raise PlatformUntrusted(str(self.platform), str(error)) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PlatformUnreachable(str(self.platform), str(error) or type(error).__name__) from error

    def resolve(self, reference: str) -> URL:
        """The absolute address of a resource of the platform."""
        return (self.platform / "").join(URL(reference))

    async def token(self, refused: str | None = None) -> str:
        """The token to send, another one than `refused`; empty without credentials."""
        if self._credentials is None:
            return ""
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if now >= self._renew_at_s or self._token == refused:
                issued = await self._obtain_token(self._credentials)
                self._token, self._renew_at_s = issued.access_token, now + issued.expires_in * RENEW_AT
            return self._token

    async def _obtain_token(self, credentials: ClientCredentials) -> _Token:
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
        url = self.resolve(TOKEN_PATH)
        status, body = await self._send("POST", url, "", data=form)
        if status == 404:
            raise UnexpectedAnswer(str(url), "it issues no tokens; a platform without authentication needs none")
        if status >= 400:
            raise NotAuthorised(f"a token for client {credentials.client_id}", status, _oauth_error(body))
        try:
            return msgspec.json.decode(body, type=_Token)
        except msgspec.DecodeError as error:
            raise UnexpectedAnswer(str(url), str(error)) from error

    async def _send(self, method: str, url: URL, token: str, **content: Any) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # A token must not follow a redirection to another host.
            async with self.http.request(method, url, headers=headers, allow_redirects=False, **content) as response:
                return response.status, await response.read()
        except aiohttp.ClientSSLError as error:
            raise PlatformUntrusted(str(self.platform), str(error)) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise PlatformUnreachable(str(self.platform), reason) from error


def problem_detail(body: bytes) -> str:
    """What a problem+json body says to a person."""
    return _text(body, "detail") or "no reason given"


def _oauth_error(body: bytes) -> str:
    return _text(body, "error_description") or _text(body, "error") or "no reason given"


def _text(body: bytes, name: str) -> str:
    try:
        content: Mapping[str, Any] = json.loads(body)
    except ValueError:
        return ""
    return str(content.get(name, "")) if isinstance(content, dict) else ""


def _refusal(request: str, status: int, body: bytes, credentials: ClientCredentials | None) -> RequestRefused:
    detail = problem_detail(body)
    if status == 401 and credentials is None:
        detail += "; this platform asks for credentials: `mec client create` makes some"
    kind = {401: NotAuthorised, 403: NotAuthorised, 404: NotRegistered}.get(status, RequestRefused)
    return kind(request, status, detail)


def make_context(access: Access) -> ssl.SSLContext | bool:
    """For HTTPS as `access` says; True for what the system trusts. Raises CredentialsError where a file cannot be used."""
    if access.ca is None and access.certificate is None:
        return True
    try:
        context = ssl.create_default_context(cafile=access.ca)
    except (OSError, ssl.SSLError) as error:
        raise CredentialsError(f"{access.ca} holds no certificate of an authority: {error}") from error
    own = access.certificate
    if own is not None:
        try:
            context.load_cert_chain(own.certificate, own.key)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(
                f"cannot use the certificate {own.certificate} with the key {own.key}: {error}"
            ) from error
    return context
