"""How this platform reaches another one: a channel in the clear or over TLS, and access tokens of the other's making.

Implements `registry.federation.peers.PeerAccess`. Each platform knows its own clients only, so a host has credentials with
each of its peers; they are made there with `mec client create NAME --scope mec_federation`, NAME being that of the
host that follows.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import msgspec

from mec_platform.domain.errors import MendableError
from mec_platform.private_files import read_private
from mec_platform.rpc.endpoints import open_channel

RECONNECT_MS = 1_000
"""Attempts to connect are so far apart at most, and none takes longer: when a network is whole again, peers meet in seconds."""

TOKEN_TIMEOUT_S = 5.0

RENEW_AT = 0.8
"""Part of a token's life after which the next call gets a new one first."""


class PeerAccessError(MendableError):
    """A peer's files cannot be used, or it gives no token; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """What this host is known by to a peer, and where that gives tokens for it: its REST address."""

    client_id: str
    client_secret: str = field(repr=False)
    platform_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTls:
    """PEM files: the authority that signed the peer's certificate, and this host's own for mutual TLS."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


class _SecretFile(msgspec.Struct):
    client_id: str
    client_secret: str


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float


def read_client_secret(path: Path, platform_url: str) -> ClientSecret:
    """What `mec client create` has written. Raises PeerAccessError, and PrivateFileError where others can read it."""
    try:
        content = msgspec.json.decode(read_private(path), type=_SecretFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerAccessError(f"{path} is no JSON with client_id and client_secret: {error}") from error
    return ClientSecret(content.client_id, content.client_secret, platform_url.rstrip("/"))


class Tokens:
    """Access tokens of one client, obtained when they are needed and kept while they are good; `https` is for an https address."""

    def __init__(self, secret: ClientSecret, https: ssl.SSLContext | None = None) -> None:
        self._secret = secret
        self._https = https
        self._token = ""
        self._renew_at_s = 0.0

    async def get(self, *, renew: bool = False) -> str:
        """A token that is valid for some time yet. Raises PeerAccessError where the platform gives none."""
        now_s = asyncio.get_running_loop().time()
        if renew or now_s >= self._renew_at_s:
            issued = await self._obtain()
            self._token, self._renew_at_s = issued.access_token, now_s + issued.expires_in * RENEW_AT
        return self._token

    async def _obtain(self) -> _Token:
        secret = self._secret
        form = {
            "grant_type": "client_credentials",
            "client_id": secret.client_id,
            "client_secret": secret.client_secret,
        }
        url = f"{secret.platform_url}/oauth2/token"
        connector = aiohttp.TCPConnector(ssl=self._https or True)
        timeout = aiohttp.ClientTimeout(total=TOKEN_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(url, data=form, allow_redirects=False) as answer,
            ):
                body = await answer.read()
                if answer.status != 200:
                    raise PeerAccessError(f"{url} gives client {secret.client_id!r} no token: HTTP {answer.status}")
                return msgspec.json.decode(body, type=_Token)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            raise PeerAccessError(f"no token from {url}: {str(error) or type(error).__name__}") from error


class GrpcPeerAccess:
    """To the peer at `address`; without `tls` in the clear, without `secret` without tokens.

    Raises:
        PeerAccessError: a file cannot be read.
    """

    def __init__(self, address: str, *, tls: PeerTls | None = None, secret: ClientSecret | None = None) -> None:
        self.address = address
        self._credentials = None if tls is None else _channel_credentials(tls)
        https = None if tls is None else _https_context(tls)
        self._tokens = None if secret is None else Tokens(secret, https)

    def open_channel(self) -> grpc.aio.Channel:
        """A new channel, which its user closes."""
        return open_channel(self.address, self._credentials, reconnect_ms=RECONNECT_MS)

    async def metadata(self, *, renew: bool) -> tuple[tuple[str, str], ...]:
        """What goes with a call. Raises PeerAccessError where the peer gives no token."""
        if self._tokens is None:
            return ()
        return (("authorization", f"Bearer {await self._tokens.get(renew=renew)}"),)


def _channel_credentials(tls: PeerTls) -> grpc.ChannelCredentials:
    key, certificate = (None if path is None else _read(path) for path in (tls.key, tls.certificate))
    return grpc.ssl_channel_credentials(_read(tls.ca), key, certificate)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PeerAccessError(f"cannot read {path}: {error.strerror}") from error


def _https_context(tls: PeerTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise PeerAccessError(f"cannot use {tls.ca} or {tls.certificate}: {error}") from error
    return context
