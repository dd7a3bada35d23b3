"""`mec node --show-hardware` on this machine, and the target table as it is listed."""

from __future__ import annotations

import json

from click.testing import CliRunner

from compiler.targets.choice import TARGETS, detect_local_target
from mec_apps.cli.main import cli


def test_the_machine_and_its_target_are_printed() -> None:
    done = CliRunner().invoke(cli, ["node", "--show-hardware"])
    assert done.exit_code == 0
    assert f"target     {detect_local_target()}: " in done.output
    assert "because    " in done.output


def test_the_same_as_json() -> None:
    shown = json.loads(CliRunner().invoke(cli, ["node", "--show-hardware", "--json"]).output)
    assert shown["target"]["name"] == detect_local_target()
    assert set(shown["target"]["features"]) <= set(shown["features"])
    assert shown["cores"] >= shown["available_cores"] >= 1


def test_every_target_is_listed() -> None:
    listed = json.loads(CliRunner().invoke(cli, ["compile", "--list-targets", "--json"]).output)
    assert [row["name"] for row in listed] == [row.name for row in TARGETS]
    assert "neoverse-n1" in CliRunner().invoke(cli, ["compile", "--list-targets"]).output
