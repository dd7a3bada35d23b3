"""`mec replay`: decisions of the journal made again, by today's code or another policy; what differs is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.requests import CliError, json_option, print_json, run_async
from mec_apps.cli.state_address import FORMS, EtcdAccess, etcd_options
from mec_apps.cli.tables import print_table
from mec_platform.control_plane.decision_log import NotedDecision, read_decisions
from mec_platform.control_plane.orchestrator.decisions import decision_kind
from mec_platform.control_plane.policy_file import read_policies
from mec_platform.control_plane.replay import Replayed, replay
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.store import open_store


@click.command(name="replay", epilog="Example: mec replay --state ~/mec.sqlite --policy calmer.toml")
@click.option("--state", required=True, help=f"What `mec serve --state` uses: {FORMS}.")
@click.option("--deployment", default="", help="Only decisions about the deployment of this model.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Decide by this policy file instead of the policies that were in force.",
)
@click.option("--all", "show_all", is_flag=True, help="Also decisions that would be the same.")
@etcd_options
@json_option
def replay_command(
    state: str, deployment: str, policy_file: Path | None, show_all: bool, etcd: EtcdAccess, as_json: bool
) -> None:
    """Decide every journalled decision again, and show what would be decided otherwise.

    Nothing is changed. Without --policy a difference comes of a changed program; with it, of the policy.
    """
    place = etcd.place(state)
    if isinstance(place, Path) and not place.is_file():
        raise CliError(f"{place}: there is no such file; name what `mec serve --state` uses")
    policies = None if policy_file is None else read_policies(policy_file)
    noted, unreadable = run_async(_read(place))
    found = [(each, replay(each.record, policies)) for each in noted if deployment in ("", each.record.deployment)]
    if deployment and not found:
        names = ", ".join(sorted({each.record.deployment for each in noted})) or "none"
        raise CliError(f"no decision about {deployment} is kept; there are decisions about: {names}")
    shown = [(each, again) for each, again in found if show_all or again.difference]
    counts = {
        "decisions": len(found),
        "differ": sum(bool(again.difference) for _, again in found),
        "beside_others": sum(again.now is None for _, again in found),
        "unreadable": unreadable,
    }
    if as_json:
        print_json({**counts, "shown": [_as_dict(*each) for each in shown]})
        return
    if shown:
        print_table(
            ("no", "time (UTC)", "deployment", "decision", "other", "reason now"), (_row(*each) for each in shown)
        )
    click.echo(
        f"{counts['decisions']} decisions, {counts['differ']} would be other ones; {counts['beside_others']} were made beside "
        f"other deployments and cannot be made again, {unreadable} entries are of older versions"
    )


async def _read(place: Path | EtcdSettings) -> tuple[list[NotedDecision], int]:
    log = (await open_store(place, "replay")).log
    try:
        return await read_decisions(log)
    finally:
        await log.close()


def _row(noted: NotedDecision, again: Replayed) -> tuple[object, ...]:
    reason = "" if again.now is None else again.now.reason
    return noted.revision, _time(noted), noted.record.deployment, decision_kind(again.then), again.difference, reason


def _as_dict(noted: NotedDecision, again: Replayed) -> dict[str, Any]:
    return {
        "revision": noted.revision,
        "time": _time(noted),
        "deployment": noted.record.deployment,
        "kind": decision_kind(again.then),
        "reason": again.then.reason,
        "kind_now": None if again.now is None else decision_kind(again.now),
        "reason_now": None if again.now is None else again.now.reason,
        "difference": again.difference,
    }


def _time(noted: NotedDecision) -> str:
    return datetime.fromtimestamp(noted.at_unix_ns / 1e9, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
