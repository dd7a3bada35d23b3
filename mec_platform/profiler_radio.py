"""The capacity profiler as one application among others that are told of the radio network, composed with what that takes.

It begins when radio information is offered: a host without a RAN has nothing to tell.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from mec_platform.control_plane.monitoring.radio_client import RadioClient
from mec_platform.domain.credentials import Scope
from mec_platform.domain.radio import RadioMeasurement
from mec_platform.peer_access import ClientSecret, Tokens
from mec_platform.registry.clock import SystemClock
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.errors import LogUnavailable, UnknownClient
from mec_platform.tls import TlsFiles

logger = logging.getLogger(__name__)

CLIENT_ID = "capacity-profiler"


@dataclass(frozen=True, slots=True)
class RadioSource:
    """Where MEC 012 is served. `tls` are the files that it is served with, whose certificate counts as known."""

    uri: str
    authenticate: bool
    tls: TlsFiles | None


class ProfilerRadio:
    """Hands what it is told to `take`. `host` tells replicas apart: each has a client of its own."""

    def __init__(self, credentials: Credentials, host: str, take: Callable[[RadioMeasurement], None]) -> None:
        self._credentials = credentials
        self._client_id = f"{CLIENT_ID}@{host}"
        self._take = take
        self._client: RadioClient | None = None

    async def start(self, source: RadioSource) -> None:
        """Subscribes and goes on in the background. Where that cannot be, links have no forecasts, and the log says why."""
        if self._client is not None:
            return
        try:
            https = None if source.tls is None else _https_context(source.tls)
            tokens = Tokens(await self._secret(source.uri), https) if source.authenticate else None
        except (OSError, ssl.SSLError, LogUnavailable) as error:
            logger.error("links have no radio forecasts: the profiler cannot ask for radio information: %s", error)
            return
        self._client = RadioClient(
            source.uri,
            self._take,
            clock=SystemClock(),
            die=Random(),
            tokens=None if tokens is None else tokens.get,
            tls=https,
        )
        await self._client.start()

    async def stop(self) -> None:
        """Ends its subscriptions."""
        if self._client is not None:
            await self._client.stop()

    async def _secret(self, uri: str) -> ClientSecret:
        """A secret for this life of the platform: nobody keeps it."""
        try:
            secret = await self._credentials.renew_secret(self._client_id)
        except UnknownClient:
            _, secret = await self._credentials.create([Scope.RADIO_INFORMATION], self._client_id)
        return ClientSecret(self._client_id, secret, uri.rstrip("/"))


def _https_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(files.certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
