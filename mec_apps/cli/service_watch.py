"""`mec watch --services`: every change of services as it happens, each once, also where the connection is lost meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

import click
import grpc
import grpc.aio

from mec_apps.cli.requests import as_dict, platform_channel
from mec_apps.cli.rest_client import PlatformAddress, platform_rest
from mec_apps.cli.service_filters import ServiceFilters
from mec_apps.cli.services import describe_endpoint, describe_model
from mec_apps.cli.tables import printable
from mec_apps.sdk.errors import PlatformUnreachable
from mec_apps.sdk.session import Access, PlatformSession
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2_grpc

RETRY_S = 0.2
"""Between two tries; while nothing answers, gRPC itself tries less and less often."""

TLS = "https://"

ChangeSet = tuple[int, list[pb.ServiceChange]]
"""A revision and all that it has changed."""


class Remedy(Enum):
    """What to do when a watch has ended."""

    RESUME = auto()
    LIST_AGAIN = auto()
    NEW_TOKEN = auto()
    GIVE_UP = auto()


def decide_remedy(code: grpc.StatusCode, *, heard: bool, resumed: bool) -> Remedy:
    """`heard`: whether anything has come over this connection; `resumed`: whether it began where an earlier one ended."""
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Remedy.RESUME
        case grpc.StatusCode.OUT_OF_RANGE if heard or resumed:
            return Remedy.LIST_AGAIN
        case grpc.StatusCode.UNAUTHENTICATED if heard:
            return Remedy.NEW_TOKEN
    return Remedy.GIVE_UP


async def watch_services(
    address: str, platform: PlatformAddress, wanted: ServiceFilters, after: int | None, as_json: bool
) -> None:
    """Prints changes until it is cancelled. `address` is the registry's, with https:// where it speaks TLS.

    Raises:
        CliError: nothing answers there.
        grpc.aio.AioRpcError: the platform refuses, or no longer has what came after `after`.
    """
    write = write_json if as_json else write_text
    async with platform_rest(platform) as session, _registry(address, platform.access) as stub:
        async for revision, changes in follow(stub, session, wanted, after, lambda text: click.echo(text, err=True)):
            for change in changes:
                click.echo(write(revision, change))


async def follow(
    stub: registry_pb2_grpc.ServiceRegistryAsyncStub,
    session: PlatformSession,
    wanted: ServiceFilters,
    after: int | None,
    note: Callable[[str], None],
) -> AsyncIterator[ChangeSet]:
    """First what is there, unless changes after a revision are asked for, then every change set as it comes.

    Goes on after a lost connection where it was; `note` is told what happens to the connection.

    Raises:
        grpc.aio.AioRpcError: the platform refuses.
        MecError: there is no token to be had.
    """
    seen, resumed, refused = after, False, None
    token = await session.token()
    while True:
        heard, remedy, why = False, Remedy.RESUME, ""
        try:
            token = await session.token(refused=refused)
            refused = None
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            calling = stub.Watch(watch_request(wanted, seen), metadata=metadata, wait_for_ready=True)
            async for revision, changes in change_sets(calling):
                heard, seen = True, revision
                if changes:
                    yield revision, changes
        except PlatformUnreachable:
            pass  # It has been there before, so it is waited for.
        except grpc.aio.AioRpcError as error:
            remedy, why = decide_remedy(error.code(), heard=heard, resumed=resumed), error.details() or ""
            if remedy is Remedy.GIVE_UP:
                raise
        resumed = resumed or heard
        match remedy:
            case Remedy.LIST_AGAIN:
                note(f"{why}; listing again")
                seen, resumed = None, False
            case Remedy.NEW_TOKEN:
                refused = token
            case _:
                note(
                    "the platform is gone; waiting for it"
                    + ("" if seen is None else f", to go on after revision {seen}")
                )
        await asyncio.sleep(RETRY_S)


def watch_request(wanted: ServiceFilters, after: int | None) -> pb.WatchRequest:
    """What to ask for: changes after a revision, or all that is there and then changes."""
    return pb.WatchRequest(
        after_revision=after,
        list_first=after is None,
        names=wanted.names,
        category_ids=wanted.categories,
        models=wanted.models,
        states=[pb.ServiceState.Value(f"SERVICE_STATE_{each}") for each in wanted.states],
    )


async def change_sets(replies: Any) -> AsyncIterator[ChangeSet]:
    """Messages put together to whole change sets: until then there is no revision to resume after."""
    changes: list[pb.ServiceChange] = []
    async for reply in replies:
        changes.extend(reply.changes)
        if not reply.more:
            yield reply.revision, changes
            changes = []


def write_json(revision: int, change: pb.ServiceChange) -> str:
    """One line. Whoever has read all lines of a revision may go on with `--after` it."""
    return json.dumps({"revision": revision, "kind": _kind(change), "service": as_dict(change.service)})


def write_text(revision: int, change: pb.ServiceChange) -> str:
    """One line for people."""
    record, description = change.service, change.service.description
    capabilities, endpoint = description.capabilities, description.transport.endpoint
    layers = None
    if capabilities.HasField("layers"):
        layers = {"start": capabilities.layers.start, "stop": capabilities.layers.stop}
    reached = {
        "uris": endpoint.uris.values,
        "fqdn": endpoint.fqdn.values,
        "addresses": [{"host": each.host, "port": each.port} for each in endpoint.addresses.values],
    }
    facts: Iterable[str] = (
        f"{revision:8}",
        f"{_kind(change):18}",
        record.service_id,
        f"{description.name} {description.version}".rstrip(),
        pb.ServiceState.Name(description.state).removeprefix("SERVICE_STATE_"),
        describe_model(capabilities.model, layers),
        describe_endpoint(reached),
    )
    return printable("  ".join(each for each in facts if each))


def _kind(change: pb.ServiceChange) -> str:
    return pb.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_")


@asynccontextmanager
async def _registry(address: str, access: Access) -> AsyncIterator[registry_pb2_grpc.ServiceRegistryAsyncStub]:
    credentials = _credentials(access) if address.startswith(TLS) else None
    async with platform_channel(address.removeprefix(TLS), credentials) as channel:
        yield registry_pb2_grpc.ServiceRegistryStub(channel)


def _credentials(access: Access) -> grpc.ChannelCredentials:
    def content(file: Path | None) -> bytes | None:
        return None if file is None else file.read_bytes()

    own = access.certificate
    return grpc.ssl_channel_credentials(
        content(access.ca), content(own.key if own else None), content(own.certificate if own else None)
    )
