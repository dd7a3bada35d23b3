"""Secrets that the platform shows once: commands print them, or keep them in a file that only its owner can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from mec_apps.cli.requests import CliError
from mec_platform.private_files import PrivateFileError, write_private


def _check_absent(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.exists():
        # Before there is a secret: it could be written nowhere.
        raise CliError(f"{path} exists already and is not overwritten; name another file, or remove it first")
    return path


secret_output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_check_absent,
    help="Write id and secret to this file, which only its owner can read, instead of printing them.",
)


def hand_over(answer: Mapping[str, str], output: Path | None) -> dict[str, str]:
    """What a command shows of new credentials: themselves, or the file that they are in from now on.

    Raises:
        CliError: the file cannot be written; the secret in it is lost, and another one can be had.
    """
    credentials = {"client_id": answer["clientId"], "client_secret": answer["clientSecret"]}
    if output is None:
        return credentials
    try:
        write_private(output, json.dumps(credentials, indent=2).encode() + b"\n")
    except PrivateFileError as error:
        client_id = credentials["client_id"]
        raise CliError(
            f"{error}; then run: mec client secret {client_id} --output FILE, for its secret is lost"
        ) from error
    return {"client_id": credentials["client_id"], "file": str(output)}
