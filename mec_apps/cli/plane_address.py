"""Where the platform's gRPC port is, and what shows it who calls: clear on loopback, elsewhere mutual TLS with a certificate."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import click
import grpc.aio
from yarl import URL

from mec_apps.cli.requests import platform_channel, platform_grpc_option
from mec_apps.cli.rest_client import access_options
from mec_apps.sdk.session import Access
from mec_platform.identity.grpc_identity import GrpcIdentity, IdentityFiles
from mec_platform.identity.names import server_name
from mec_platform.rpc.endpoints import is_loopback

TLS = "https://"
_GRPC_PORT = 50051

member_grpc_option = click.option(
    "--platform-grpc",
    envvar="MEC_PLATFORM_GRPC",
    help=f"gRPC address of the platform (default: port {_GRPC_PORT} of the host of --platform).",
)


@dataclass(frozen=True, slots=True)
class PlaneAddress:
    """`host:port`, and as whom to call it; in the clear without an identity."""

    address: str
    identity: GrpcIdentity | None


def plane_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that talks to the platform's gRPC port alone; it gets them as one argument `platform_grpc`."""

    @functools.wraps(command)
    def wrapper(*args: Any, platform_grpc: str, access: Access, **kwargs: Any) -> None:
        command(*args, platform_grpc=read_plane_address(platform_grpc, access), **kwargs)

    decorated: Callable[..., None] = platform_grpc_option(access_options(wrapper))
    return decorated


def read_plane_address(text: str, access: Access) -> PlaneAddress:
    """Of `HOST:PORT`, or `https://HOST:PORT` where loopback speaks mutual TLS too.

    Raises:
        IdentityError, PrivateFileError: the certificate cannot be used.
    """
    address, own, ca = plain_address(text), access.certificate, access.ca
    wants = text.startswith(TLS) or not is_loopback(address.rpartition(":")[0].strip("[]"))
    if not wants or own is None or ca is None:
        return PlaneAddress(address, None)
    files = IdentityFiles(certificate=own.certificate, key=own.key, authority=ca)
    return PlaneAddress(address, GrpcIdentity.from_files(files))


def plain_address(text: str) -> str:
    """`HOST:PORT` of either form."""
    return text.removeprefix(TLS)


def member_grpc(text: str | None, platform_url: str) -> str:
    """Where a member finds the platform's gRPC port."""
    if text:
        return plain_address(text)
    host = URL(platform_url).host or "127.0.0.1"
    return f"[{host}]:{_GRPC_PORT}" if ":" in host else f"{host}:{_GRPC_PORT}"


@asynccontextmanager
async def plane_channel(place: PlaneAddress) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the platform. Raises CliError where nothing answers there."""
    credentials = None if place.identity is None else place.identity.channel_credentials()
    async with platform_channel(place.address, credentials, server_name("")) as channel:
        yield channel
