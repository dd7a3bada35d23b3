"""How commands reach the platform's REST APIs: their options, and a session whose errors are one line."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from mec_apps.cli.requests import CliError
from mec_apps.sdk.session import Access, ClientCertificate, ClientCredentials, PlatformSession

REQUEST_TIMEOUT_S = 10.0

_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class PlatformAddress:
    """Where a platform is and what to show it."""

    url: str
    access: Access


def rest_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that talks to the platform over REST; it gets them as one argument `platform`."""

    @functools.wraps(command)
    def wrapper(
        *args: Any,
        platform_url: str,
        credentials: Path | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        **kwargs: Any,
    ) -> None:
        access = Access(
            credentials=None if credentials is None else ClientCredentials.read(credentials),
            ca=ca,
            certificate=_pair(cert, key),
        )
        command(*args, platform=PlatformAddress(platform_url, access), **kwargs)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


certificate_options = (
    click.option(
        "--ca", type=_FILE, envvar="MEC_CA", help="Certificate of the authority that signed the platform's (PEM)."
    ),
    click.option("--cert", type=_FILE, envvar="MEC_CERT", help="Own certificate for mutual TLS (PEM)."),
    click.option("--key", type=_FILE, envvar="MEC_KEY", help="Its key."),
)
"""What shows others who this is, over REST and gRPC."""


def access_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that shows a certificate to something else than the platform; it gets them as `access`."""

    @functools.wraps(command)
    def wrapper(*args: Any, ca: Path | None, cert: Path | None, key: Path | None, **kwargs: Any) -> None:
        command(*args, access=Access(ca=ca, certificate=_pair(cert, key)), **kwargs)

    for option in reversed(certificate_options):
        wrapper = option(wrapper)
    return wrapper


def _pair(cert: Path | None, key: Path | None) -> ClientCertificate | None:
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    return ClientCertificate(cert, key) if cert and key else None


_OPTIONS = (
    click.option(
        "--platform",
        "--platform-url",
        "platform_url",
        default="http://127.0.0.1:8081",
        show_default=True,
        envvar="MEC_PLATFORM_URL",
        help="Address of the platform's REST APIs.",
    ),
    click.option(
        "--credentials",
        type=_FILE,
        envvar="MEC_CREDENTIALS",
        show_envvar=True,
        help="JSON file with client_id and client_secret, where the platform asks for them.",
    ),
    *certificate_options,
)


@asynccontextmanager
async def platform_rest(platform: PlatformAddress) -> AsyncIterator[PlatformSession]:
    """A session to the platform. Raises CliError where its address is none, CredentialsError where a file is not usable."""
    try:
        session = PlatformSession(platform.url, REQUEST_TIMEOUT_S, platform.access)
    except ValueError as error:
        raise CliError(f"--platform must look like http://127.0.0.1:8081, not {platform.url!r}") from error
    try:
        yield session
    finally:
        await session.close()


async def call(platform: PlatformAddress, method: str, path: str, message: Any = None) -> Any:
    """One request and its answer as plain data, None where it has no body. Raises the SDK's errors."""
    async with platform_rest(platform) as session:
        body = await session.request(method, path, message)
    return msgspec.json.decode(body) if body else None
