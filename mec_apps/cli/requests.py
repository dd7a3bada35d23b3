"""What the commands share: common options, one-line errors, calls to the platform, JSON output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import grpc
import grpc.aio
import uvloop
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from mec_platform.domain.errors import MendableError
from mec_platform.rpc.endpoints import open_channel

Result = TypeVar("Result")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class CliError(MendableError):
    """A command that could not do its work; the message says why and what to do."""


platform_grpc_option = click.option(
    "--platform-grpc",
    default="127.0.0.1:50051",
    show_default=True,
    envvar="MEC_PLATFORM_GRPC",
    help="gRPC address of the platform.",
)
deployment_option = click.option(
    "--model", default="", help="The model whose deployment is meant; needed where several are deployed."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a command's coroutine on uvloop; Ctrl-C cancels it, so that nothing is left running."""
    return uvloop.run(work)


@asynccontextmanager
async def platform_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None, expected_name: str = ""
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the platform, over TLS with `credentials`, whose certificate is for `expected_name` or for the host of the
    address. Raises CliError where nothing answers there."""
    async with open_channel(address, credentials, expected_name=expected_name) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), 3)
        except TimeoutError as error:
            how = "in the clear" if credentials is None else "over TLS with these certificates"
            raise CliError(
                f"no platform answers at {address} {how}; start one with `mec serve` or name it with --platform-grpc; where it "
                "speaks mutual TLS, --cert, --key and --ca say who calls (mec certs issue NAME --operator)"
            ) from error
        yield channel


def as_dict(message: Message) -> dict[str, Any]:
    """A message as plain data with the names of the .proto file, defaults included."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, sort_keys=False))
