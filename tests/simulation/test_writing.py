"""Scenarios written to files are the scenarios that are read from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.policy_file import read_policies
from mec_platform.control_plane.policy_table import policy_table, read_policy
from mec_platform.scenario.scenario import read_scenario
from mec_platform.scenario.writing import policy_toml, scenario_toml
from mec_platform.simulation.loading import BUILT_IN, find_scenario

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("name", [*BUILT_IN, *map(str, SCENARIOS)])
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    scenario = find_scenario(name)
    path = tmp_path / "again.toml"
    path.write_text(scenario_toml(scenario, tmp_path))
    assert replace(read_scenario(path), folder=scenario.folder) == scenario


def test_traces_are_found_from_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    path = tmp_path / "here" / "site.toml"
    path.write_text(
        'title = "a \\"quoted\\" title"\n[[node]]\nname = "edge"\n'
        '[[link]]\nsource = "gateway"\ntarget = "edge"\nbandwidth = "rates.txt"\n'
    )
    text = scenario_toml(read_scenario(path), tmp_path / "there")
    written = tmp_path / "there" / "site.toml"
    written.write_text(text)
    again = read_scenario(written)
    assert again.title == 'a "quoted" title'
    assert (tmp_path / "there" / again.links[0].bandwidth).resolve() == (tmp_path / "here" / "rates.txt").resolve()


def test_a_policy_is_written_as_the_file_that_says_it(tmp_path: Path) -> None:
    settings = read_policy(
        {"change": {"cooldown_s": 3}, "trust": {"untrusted_nodes": ["edge-9"]}, "qos": {"tpot_ms": 50}}
    )
    path = tmp_path / "policy.toml"
    path.write_text(policy_toml(policy_table(settings)))
    assert read_policies(path, ControlSettings()).of("any") == settings
