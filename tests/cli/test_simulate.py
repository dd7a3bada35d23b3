"""`mec simulate` as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mec_apps.cli.main import cli
from mec_platform.domain.errors import MendableError
from tests.simulation import synthetic_traces


@pytest.fixture
def radio(tmp_path: Path) -> Path:
    return synthetic_traces.write_trace(tmp_path / "fade.txt", 20.0, synthetic_traces.slow_fade)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["simulate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_radio_trace_alone_is_enough(radio: Path):
    result = json.loads(run("--radio", radio, "--policies", "adaptive,static-best,oracle", "--json"))
    assert list(result["policies"]) == ["adaptive", "static-best", "oracle"]
    assert result["duration_s"] == pytest.approx(20.0, abs=0.2)
    assert {each["name"] for each in result["criteria"]} >= {"tpot_adaptive_over_oracle", "trust_violations"}
    assert all(each.keys() == {"name", "value", "bound", "ok"} for each in result["criteria"])


def test_the_table_says_what_was_done_and_why(radio: Path):
    printed = run("--radio", radio, "--policies", "adaptive")
    assert "first plan, on 2 nodes" in printed
    assert "SLO KEPT" in printed


def test_bandwidth_and_arrivals_are_taken_from_files(tmp_path: Path):
    bandwidth, arrivals = tmp_path / "bandwidth.txt", tmp_path / "arrivals.csv"
    bandwidth.write_text("0.0 1.0\n5.0 0.1\n10.0 1.0\n")
    arrivals.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0.0,20,5\n2.0,20,5\n4.0,20,5\n")
    options = ("--bandwidth", bandwidth, "--arrivals", arrivals, "--policies", "even-split", "--duration", 10, "--json")
    result = json.loads(run(*options))
    assert result["policies"]["even-split"]["requests"] == 5
    assert "backhaul" in result["scenario"]


def test_a_figure_is_drawn(radio: Path, tmp_path: Path):
    pytest.importorskip("matplotlib")
    for name in ("run.png", "run.svg"):
        run("--radio", radio, "--policies", "adaptive,even-split", "--figure", tmp_path / name)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "where the layers were" in (tmp_path / "run.svg").read_text() or (tmp_path / "run.svg").stat().st_size > 10_000
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--policies", "best"], "there is no policy 'best'"),
        (["--scenario", "nowhere.toml"], "built in are"),
        (["--scale", "10"], "as in 1000x50"),
        (["--scale", "4x2", "--scenario", "vehicle"], "leave out --scenario"),
        (["--figure", "run.pdf"], "ends in .png or .svg"),
    ],
)
def test_mistakes_are_named_with_what_to_do(options: list[str], says: str):
    with pytest.raises(MendableError, match=says):
        CliRunner().invoke(cli, ["simulate", *options], catch_exceptions=False)


def test_a_trace_that_no_link_takes_is_no_silence(tmp_path: Path, radio: Path):
    scenario = tmp_path / "plain.toml"
    scenario.write_text('[[node]]\nname = "edge-1"\n')
    with pytest.raises(MendableError, match='radio = "-"'):
        CliRunner().invoke(
            cli, ["simulate", "--scenario", str(scenario), "--radio", str(radio)], catch_exceptions=False
        )
