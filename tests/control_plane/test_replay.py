"""Journalled decisions are made again: the same from the same, and others by another policy; on the command line too."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mec_apps.cli.policy import policy
from mec_apps.cli.replay import replay_command
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.decision_codec import DecisionRecord, decode_record, encode_record
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.orchestrator.decisions import DropChain, Reconfigure, Trigger
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.policy_table import read_policy
from mec_platform.control_plane.replay import replay
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.registry.sqlite.event_log import SqliteEventLog

World = SimpleNamespace
SETTINGS = ControlSettings(PlanSettings(kv_tokens_reserved=0, kv_growth_tokens=0, trusted_first_blocks=1))


def a_day(world: World) -> list[DecisionRecord]:
    """A link that fails, a node that is lost and comes back: every decision, as the journal has it."""
    nodes = [world.node(name, memory_bytes=7_000_000) for name in ("a", "b", "c")]
    everyone = ["a", "b", "c", "gateway"]
    records, state, plan = [], PolicyState(), None
    for second in range(40):
        links = world.links(everyone, a__b=20_000.0) if 5 <= second < 20 else world.links(everyone)
        gone = {"b"} if 20 <= second < 30 else set()
        alive = [node for node in nodes if node.name not in gone]
        seen: Snapshot = world.snapshot(alive, now_s=float(second), links=links, plan=plan, lost_nodes=frozenset(gone))
        decision, after = tick(seen, state, SETTINGS)
        record = DecisionRecord(decision, seen, state, SETTINGS)
        records.append(decode_record(encode_record(record)))
        state = after
        if isinstance(decision, Reconfigure):
            plan = decision.plan
    return records


def test_what_was_decided_is_decided_again(world: World) -> None:
    records = a_day(world)
    assert sum(isinstance(record.decision, Reconfigure) for record in records) >= 3
    for record in records:
        again = replay(record)
        assert (again.now, again.difference) == (record.decision, "")


def test_another_policy_decides_otherwise_and_it_is_said_how(world: World) -> None:
    calm = Policies(
        read_policy({"change": {"link_drop_share": 0, "min_link_bytes_per_s": 0, "steady_s": 60}}, SETTINGS)
    )
    differences = {replay(record, calm).difference for record in a_day(world)}
    assert differences >= {"", "re_split -> keep"}


def test_what_was_decided_beside_others_cannot_be_decided_alone(world: World) -> None:
    seen = world.snapshot([world.node("a")], plan=world.plan(1, ("a", 0, 12)))
    gone = DropChain(seen.plan, "gives way to chat (priority 5)", Trigger.GIVES_WAY)
    assert replay(DecisionRecord(gone, seen, PolicyState(), SETTINGS)).now is None


@pytest.fixture
async def state_file(tmp_path: Path, world: World) -> Path:
    path = tmp_path / "state.sqlite"
    log = await SqliteEventLog.open(path)
    for record in a_day(world):
        await Journal(log).decisions.note(record)
    await log.close()
    return path


def test_the_command_shows_what_would_be_other(state_file: Path, tmp_path: Path) -> None:
    same = CliRunner().invoke(replay_command, ["--state", str(state_file)])
    assert same.output.startswith("40 decisions, 0 would be other ones; 0 were made beside")
    calm = tmp_path / "calm.toml"
    calm.write_text("[deployment.model.change]\nlink_drop_share = 0\nmin_link_bytes_per_s = 0\nsteady_s = 60\n")
    done = CliRunner().invoke(replay_command, ["--state", str(state_file), "--policy", str(calm), "--json"])
    found = json.loads(done.stdout)
    assert (found["decisions"], found["differ"]) == (40, len(found["shown"]))
    assert found["differ"] > 0
    assert {"revision", "time", "deployment", "kind", "kind_now", "difference"} <= found["shown"][0].keys()


def test_the_command_says_what_to_name_instead(state_file: Path, tmp_path: Path) -> None:
    missing = CliRunner().invoke(replay_command, ["--state", str(tmp_path / "none.sqlite")])
    assert "there is no such file" in str(missing.exception)
    unknown = CliRunner().invoke(replay_command, ["--state", str(state_file), "--deployment", "chat"])
    assert "no decision about chat is kept; there are decisions about: model" in str(unknown.exception)


def test_a_policy_file_is_checked_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text("[default.change]\ncooldown_s = 10\n[deployment.chat]\npriority = 10\n")
    shown = CliRunner().invoke(policy, ["check", str(path)])
    assert "chat:\n  * priority = 10\n" in shown.output
    assert "  * change.cooldown_s = 10.0\n" in shown.output
    found = json.loads(CliRunner().invoke(policy, ["check", str(path), "--json"]).stdout)
    assert (found["default"]["priority"], found["chat"]["priority"]) == (0, 10)
    path.write_text("[default.change]\ncooldown = 10\n")
    refused = CliRunner().invoke(policy, ["check", str(path)])
    assert str(refused.exception) == f"{path}: default: there is no key change.cooldown; write cooldown_s"
