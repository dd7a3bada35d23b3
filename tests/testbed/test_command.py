"""`mec testbed` says what is wrong before it makes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mec_apps.cli.testbed import command

ONE_NODE = '[[node]]\nname = "edge"\n[[gateway]]\nname = "gateway"\n'


@pytest.mark.parametrize(
    ("scenario", "arguments", "words"),
    [
        (ONE_NODE.replace("edge", "edge$(reboot)"), [], "is no name"),
        (ONE_NODE.replace('"edge"', '"edge"\ncount = 500'), [], "500 nodes, a testbed has 198 at most"),
        (ONE_NODE.replace('"gateway"', '"door"'), [], "one gateway, called gateway"),
        (ONE_NODE + '[[event]]\nat_s = 1\nnode = "edge"\ntrusted = false\n', [], "mec simulate"),
        (ONE_NODE.replace('"edge"', '"edge"\njoins_s = 5'), [], "there from the start"),
        (ONE_NODE + '[[deployment]]\nname = "m"\ndemand = {per_s = 0}\n', [], "no requests"),
        (ONE_NODE + '[[deployment]]\nname = "m"\ndemand = {per_s = 9, answer_tokens = 4000}\n', [], "keep 2048"),
        (ONE_NODE, ["--figure", "/nowhere/site.png"], "there is no folder /nowhere"),
        (ONE_NODE, ["--figure", "site.doc"], "ends in .png or .svg"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words(
    tmp_path: Path, scenario: str, arguments: list[str], words: str
) -> None:
    path = tmp_path / "site.toml"
    path.write_text(scenario)
    done = CliRunner().invoke(command.testbed, ["run", "--scenario", str(path), *arguments])
    assert done.exit_code != 0
    assert words in str(done.exception) + done.output
