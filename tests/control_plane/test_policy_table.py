"""Policies as data: what a table says, what it leaves as it is, and how a mistake is answered."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.policy_file import read_policies
from mec_platform.control_plane.policy_table import (
    KEYS,
    Key,
    PolicyError,
    changed_marks,
    policy_marks,
    policy_table,
    read_policy,
)

FILE = """
[default]
priority = 1
[default.objective]
gamma_ms = 8
[default.change]
cooldown_s = 10
[deployment.chat]
priority = 10
[deployment.chat.qos]
tpot_ms = 50
[deployment.chat.trust]
untrusted_sites = ["roadside"]
[deployment."org/model-1b".replicas]
max = 3
"""


def test_a_deployment_has_the_default_policy_and_what_is_said_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(FILE)
    policies = read_policies(path)
    chat, other = policies.of("chat"), policies.of("org/model-1b")
    assert (chat.priority, chat.planning.gamma_ms, chat.policy.cooldown_s, chat.policy.qos.tpot_ms) == (10, 8, 10, 50)
    assert chat.policy.distrust.sites == frozenset({"roadside"})
    assert (other.priority, other.policy.replicas.max, other.policy.qos.tpot_ms) == (1, 3, 0)
    assert policies.of("unheard of") == policies.default


def test_what_a_file_leaves_out_is_as_the_base_has_it() -> None:
    base = ControlSettings(policy=PolicySettings(expected_nodes=3), priority=2)
    found = read_policy({"qos": {"tpot_ms": 20}}, base)
    assert (found.policy.expected_nodes, found.priority, found.policy.qos.tpot_ms) == (3, 2, 20)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"objective": {"alhpa": 1}}, "policy: there is no key objective.alhpa; write alpha"),
        ({"tpot_ms": 5}, "policy: there is no key tpot_ms; write qos.tpot_ms"),
        ({"qos": {"tpot_ms": "fast"}}, "policy: qos.tpot_ms is 'fast'; write a number of 0 or more"),
        ({"qos": {"tpot_ms": True}}, "policy: qos.tpot_ms is True; write a number of 0 or more"),
        ({"qos": {"tpot_ms": float("nan")}}, "policy: qos.tpot_ms is nan; write a number of 0 or more"),
        ({"qos": 5}, "policy: qos is a table; write [qos] and its keys below it"),
        ({"priority": 1.5}, "policy: priority is 1.5; write a whole number from -1000 to 1000"),
        ({"change": {"cooldown_growth": 0.5}}, "policy: change.cooldown_growth is 0.5; write a number of 1 or more"),
        ({"replicas": {"min": 3, "max": 2}}, "policy: replicas.min is 3 and replicas.max 2; write a max of 3 or more"),
        (
            {"trust": {"untrusted_nodes": "edge-3"}},
            "policy: trust.untrusted_nodes is 'edge-3'; write a list of names, as untrusted_nodes = [\"edge-3\"]",
        ),
        (
            {"admission": {"zzz": 1}},
            "policy: there is no key admission.zzz; write one of max_sessions, queue, kv_tokens",
        ),
    ],
)
def test_a_mistake_is_answered_with_the_key_and_what_to_write(table: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_policy(table)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[default", "Expected ']' at the end of a table declaration"),
        ("[defaults.qos]\ntpot_ms = 1", "there is no table defaults; write [default.defaults]"),
        ("deployment = 3", "deployment is 3; write it as a table"),
        ("[deployment.chat]\nqos = 4", "deployment.chat: qos is a table"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(PolicyError) as refused:
        read_policies(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml"):
        read_policies(tmp_path / "none.toml")


def test_every_threshold_of_the_orchestrator_can_be_said() -> None:
    said = {key.target.removeprefix("policy.") for key in KEYS}
    grouped = {"qos", "replicas", "admission", "distrust"}
    assert {field.name for field in fields(PolicySettings)} - grouped <= said


def values_of(key: Key) -> st.SearchStrategy[object]:
    if key.kind == "names":
        return st.lists(st.text("abc-1", min_size=1), max_size=3, unique=True).map(sorted)
    high = min(key.high, 1e9)
    return st.integers(int(key.low), int(high)) if key.kind == "whole" else st.floats(key.low, high)


@given(data=st.data())
@settings(derandomize=True, max_examples=60)
def test_a_policy_that_is_printed_reads_back_as_itself(data: st.DataObject) -> None:
    table: dict[str, dict[str, object]] = {}
    for key in data.draw(st.lists(st.sampled_from([key for key in KEYS if key.section]), unique=True)):
        table.setdefault(key.section, {})[key.name] = data.draw(values_of(key))
    table["replicas"] = {"max": 100}
    found = read_policy(table)
    assert read_policy(policy_table(found)) == found


def test_two_policies_differ_in_words() -> None:
    before = ControlSettings()
    after = read_policy({"qos": {"tpot_ms": 30}, "trust": {"untrusted_nodes": ["b", "a"]}})
    assert policy_marks(before) == ()
    assert (
        changed_marks(policy_marks(before), policy_marks(after))
        == "qos.tpot_ms 0 -> 30, trust.untrusted_nodes [] -> [a, b]"
    )
    assert changed_marks(policy_marks(after), policy_marks(replace(before, priority=2))).startswith("priority 0 -> 2")
