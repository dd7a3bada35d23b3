"""Benchmarks that need an edge run from the command line and print what their reader is promised."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def bench(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "mec_apps.cli", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--llama-bench", "/nowhere/llama-bench"], "does not exist"),
        (["--llama-bench", sys.executable], "needs --llama-model"),
        (["--llama-model", __file__], "needs --llama-bench"),
    ],
)
def test_decode_says_what_of_llama_cpp_is_missing(arguments: list[str], reason: str) -> None:
    command = [sys.executable, "-m", "mec_apps.cli", "bench", "decode", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def check_shape(result: dict[str, Any], name: str) -> None:
    assert result.keys() == {"bench", "machine", "metrics", "criteria"}
    assert result["bench"] == name
    assert {"cpu", "cores", "python"} <= result["machine"].keys()
    assert all(isinstance(value, int | float) for value in result["metrics"].values())
    assert result["criteria"]
    for criterion in result["criteria"]:
        assert criterion.keys() == {"name", "value", "bound", "ok"}
        assert isinstance(criterion["ok"], bool)


@pytest.mark.thorough
def test_reconfigure_counts_every_token_and_finds_none_lost() -> None:
    result = bench("reconfigure", "--count", "4", "--kills", "1", "--aborts", "1", "--seed", "0")
    assert result.pop("failures") == {}
    check_shape(result, "reconfigure")
    metrics = result["metrics"]
    assert (metrics["reconfigurations"], metrics["kills"], metrics["aborted"], metrics["identical"]) == (4, 1, 1, 4)
    assert metrics["tokens_lost"] == 0
    assert 0 < metrics["killed_replay_ms_max"] < metrics["killed_next_token_ms_max"]
    judged = {criterion["name"]: criterion["ok"] for criterion in result["criteria"]}
    assert all(judged[name] for name in ("tokens_lost", "tokens_repeated", "failed", "identical", "sessions_moved"))
    # How long these take depends on what else the machine does.
    assert {"pause_seen_ms_p50", "pause_seen_ms_p99", "throughput_while_copying"} <= judged.keys()
    assert {"killed_detected_ms_max", "killed_next_token_less_replay_ms_max"} <= judged.keys()


@pytest.mark.thorough
def test_steady_holds_a_watched_chain_against_a_bare_one():
    result = bench("steady", "--turns", "2")
    check_shape(result, "steady")
    metrics = result["metrics"]
    assert metrics["turns"] == 2
    for name in ("watched_tokens_per_s", "bare_tokens_per_s", "bare_cpu_ms_per_token", "platform_cpu_ms_per_s"):
        assert metrics[name] > 0
    assert 0 < metrics["idle_cpu_share_of_busiest_member"] < 1


@pytest.mark.thorough
def test_split_measures_every_number_of_stages() -> None:
    result = bench("split", "--stages", "1,2", "--tokens", "16")
    check_shape(result, "split")
    for stages in (1, 2):
        assert result["metrics"][f"stages_{stages}_tokens_per_s"] > 0
        assert result["metrics"][f"stages_{stages}_compute_ms_per_token"] > 0
    assert [criterion["name"] for criterion in result["criteria"]] == ["stages_1_hop_ms_p50", "stages_2_hop_ms_p50"]


@pytest.mark.thorough
def test_no_notification_is_lost_when_the_platform_is_killed():
    metrics = bench("notifications", "--quick")["metrics"]
    assert metrics["notification_missing"] == metrics["notification_beside_dead_target_missing"] == 0
    assert metrics["notified_changes"] > 0
    assert metrics["notifications_lost_by_kills"] == 0


@pytest.mark.thorough
def test_the_api_loses_nothing_when_the_platform_is_killed_and_is_compared_with_a_server_that_does_nothing():
    result = bench("api", "--quick")
    check_shape(result, "api")
    metrics = result["metrics"]
    assert [criterion["name"] for criterion in result["criteria"]] == [
        "get_of_empty_get",
        "list_p99_ms",
        "registrations_of_empty_post",
        "lost",
        "notifications_lost",
    ]
    for name in ("get", "empty_get", "list", "empty_list", "registrations", "empty_post"):
        assert metrics[f"{name}_per_s"] > 0
        assert 0 < metrics[f"{name}_p50_ms"] <= metrics[f"{name}_p99_ms"]
    assert metrics["kills"] == 5
    assert metrics["acknowledged"] > 0
    assert metrics["lost"] == metrics["notifications_lost"] == 0


@pytest.mark.thorough
def test_the_registry_loses_nothing_when_platforms_are_killed_and_is_compared_with_grpc_and_etcd():
    result = bench("registry", "--quick")
    check_shape(result, "registry")
    metrics, criteria = result["metrics"], {each["name"]: each for each in result["criteria"]}
    assert metrics["federation_lost"] == metrics["federation_resurrected"] == 0
    names = ["empty", "get", "discover", "discover_open", "registrations", "bulk_registrations"]
    stores = ["sqlite"]
    if metrics["etcd_measured"]:
        names += ["etcd_puts", "etcd_registrations"]
        stores += ["etcd"]
    assert {"discover_p50_ms", "discover_p99_ms", "get_of_empty", "watch_p99_ms", "expiry_s"} <= criteria.keys()
    assert {"renewals_cpu_percent", "start_10000_s", "start_10000_mib"} <= criteria.keys()
    assert ("bulk_registrations_of_etcd_puts" in criteria) == bool(metrics["etcd_measured"])
    for name in names:
        assert metrics[f"{name}_per_s"] > 0
        assert 0 < metrics[f"{name}_p50_ms"] <= metrics[f"{name}_p99_ms"]
    assert metrics["kills"] == 5
    for store in stores:
        assert metrics[f"{store}_acknowledged"] > 0
        for what in ("lost", "doubled", "watch_complaints"):
            assert criteria[f"{store}_{what}"]["value"] == 0
    assert metrics["renewals_appended"] == 0
