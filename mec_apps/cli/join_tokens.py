"""`mec join-token`: let nodes and gateways of other machines become members of a platform."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.requests import CliError, json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options
from mec_platform.private_files import write_private

_TOKENS = "admin/v1/join-tokens"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group("join-token")
def join_token() -> None:
    """Tokens by which nodes and gateways become members: each for one name, once, for a while.

    \b
    export MEC_CREDENTIALS=~/mec.sqlite.operator.json
    mec join-token create edge-1
    mec node --join TOKEN --platform https://mec.example:8081 --host 192.0.2.11      (at the new machine)
    """


def _read_life(context: click.Context, parameter: click.Parameter, text: str) -> int:
    match = re.fullmatch(r"(\d{1,7})([smhd])", text)
    if match is None or not 0 < int(match[1]) * _UNITS[match[2]] <= 30 * _UNITS["d"]:
        raise click.BadParameter("write a number and s, m, h or d, as in 90m; 30 days at most")
    return int(match[1]) * _UNITS[match[2]]


@join_token.command(epilog="Example: mec join-token create edge-1 --ttl 15m")
@click.argument("name")
@click.option("--role", type=click.Choice(["node", "gateway"]), help="What it may be (default: either).")
@click.option("--untrusted", is_flag=True, help="A node that must not see raw tokens and shallow activations.")
@click.option("--ttl", "life_s", default="1h", show_default=True, callback=_read_life, help="How long it is good.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this file, which only its owner can read, instead of printing it (then: --join @FILE).",
)
@rest_options
@json_option
def create(
    name: str,
    role: str | None,
    untrusted: bool,
    life_s: int,
    output: Path | None,
    platform: PlatformAddress,
    as_json: bool,
) -> None:
    """Make a token for the member that will be called NAME. It is shown once.

    Role and trust go into the member's certificate, and into those that follow it; another token changes them.
    """
    if output is not None and output.exists():
        raise CliError(f"{output} exists already and is not overwritten; name another file, or remove it first")
    asked = {"name": name, "role": role, "trusted": not untrusted, "lifeSeconds": life_s}
    made: dict[str, Any] = run_async(call(platform, "POST", _TOKENS, asked))
    if output is not None:
        write_private(output, made.pop("token").encode() + b"\n")
        made["file"] = str(output)
    if as_json:
        print_json(made)
    else:
        click.echo(made.get("token") or f"join token for {name} in {output}")


@join_token.command("list", epilog="Example: mec join-token list --json")
@rest_options
@json_option
def list_command(platform: PlatformAddress, as_json: bool) -> None:
    """List the tokens that can still be used; of the tokens themselves nothing is shown."""
    found = run_async(call(platform, "GET", _TOKENS))
    if as_json:
        print_json(found)
        return
    for each in found:
        until = datetime.fromtimestamp(each["expiresUnixS"], UTC).isoformat(timespec="seconds")
        click.echo(f"{each['tokenId']}  {each['name']}  {' '.join(each['grants'])}  until {until}")


@join_token.command(epilog="Example: mec join-token delete 0123456789abcdef")
@click.argument("token_id")
@rest_options
@json_option
def delete(token_id: str, platform: PlatformAddress, as_json: bool) -> None:
    """Withdraw a token, by the id that `mec join-token list` shows."""
    run_async(call(platform, "DELETE", f"{_TOKENS}/{token_id}"))
    if as_json:
        print_json({"deleted": token_id})
    else:
        click.echo(f"join token {token_id} is good for nothing any more")
