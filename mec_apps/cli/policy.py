"""`mec policy`: policy files are checked before a platform reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.requests import json_option, print_json
from mec_platform.control_plane.policy_file import read_policies
from mec_platform.control_plane.policy_table import policy_marks, policy_table


@click.group()
def policy() -> None:
    """Policies of deployments: targets, limits, and when to change a plan."""


@policy.command(epilog="Example: mec policy check policies.toml --deployment chat")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--deployment", default="", help="Only the policy of the deployment of this model.")
@json_option
def check(file: Path, deployment: str, as_json: bool) -> None:
    """Say whether FILE can be used, and what it comes to: every value in force, those that it sets marked with *."""
    policies = read_policies(file)
    names = [deployment] if deployment else ["", *policies.by_deployment]
    chosen = {name: policies.of(name) for name in names}
    if as_json:
        print_json({name or "default": policy_table(settings) for name, settings in chosen.items()})
        return
    for name, settings in chosen.items():
        click.echo(f"{name or 'default'}:")
        said = {path for path, _ in policy_marks(settings)}
        for path, value in _flat(policy_table(settings)):
            click.echo(f"  {'*' if path in said else ' '} {path} = {value}")


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
