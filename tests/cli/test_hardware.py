"""`mec node --show-hardware` on this machine."""

from __future__ import annotations

import json

from click.testing import CliRunner

from compiler.targets.choice import detect_local_target
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
