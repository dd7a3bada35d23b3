"""`mec serve --seed` and `mec app` as an operator uses them: real processes, one platform that asks for tokens."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mec_apps.sdk import ClientCredentials, MecApplication
from mec_platform.domain.applications import OperationAction
from tests.integration.test_command_line import Ended, check_one_line, mec

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

SEEDS = '[[apps]]\nappInstanceId = "seeded-1"\nappName = "seeded"\ncredentialsFile = "seeded-1.json"\n'

Operator = Callable[..., Awaitable[Ended]]


@asynccontextmanager
async def serve(folder: Path) -> AsyncIterator[str]:
    """A platform with authentication whose state, seeds and operator's credentials lie in the folder; yields its address."""
    options = {"--state": folder / "state.sqlite", "--seed": folder / "apps.toml", "--auth": "on"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mec_apps.cli", "serve", "--rest-port", "0", "--grpc-port", "0"),
        *(str(word) for option in options.items() for word in option),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first_line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        # "platform ready: rest http://127.0.0.1:8081, grpc ..."
        yield first_line.partition("rest ")[2].partition(",")[0]
    finally:
        process.terminate()
        await process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "apps.toml").write_text(SEEDS)
    return tmp_path


def operator_of(folder: Path, rest: str) -> Operator:
    """`mec app ...` as the platform's operator types it."""

    async def run(*arguments: object) -> Ended:
        return await mec("app", *arguments, "--platform", rest, "--credentials", folder / "state.sqlite.operator.json")

    return run


async def read(ended: Ended) -> Any:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


async def test_an_operator_makes_an_instance_that_says_goodbye_when_it_is_terminated(folder: Path) -> None:
    async with serve(folder) as rest:
        app = operator_of(folder, rest)
        secret = folder / "greeter-1.json"
        made = await app("create", "--name", "greeter", "--id", "greeter-1", "--output", secret)
        assert made.code == 0
        assert json.loads(secret.read_text())["client_secret"] not in made.out
        asked: list[tuple[OperationAction, int]] = []

        async def say_goodbye(action: OperationAction, within_s: int) -> None:
            asked.append((action, within_s))

        credentials = ClientCredentials.read(secret)
        async with MecApplication(
            rest, name="greeter", app_instance_id="greeter-1", credentials=credentials
        ) as greeter:
            await greeter.on_termination(say_goodbye)
            await greeter.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
            (ready,) = await read(await app("list", "--state", "READY", "--json"))
            assert (ready["appInstanceId"], ready["services"]) == ("greeter-1", 1)
            ended = await app("terminate", "greeter-1", "--grace-s", 30)
            assert ended.out == "greeter-1 is TERMINATING within 30 s\n"
            await asyncio.wait_for(greeter.until_ended(), 30)
        assert asked == [(OperationAction.TERMINATING, 30)]
        shown = await read(await app("show", "greeter-1"))
        assert (shown["operationalState"], shown["services"]) == ("TERMINATED", 0)
        assert (await app("delete", "greeter-1")).out == "application instance greeter-1 is gone\n"
        check_one_line(await app("show", "greeter-1"), "greeter-1")


async def test_seeds_are_there_from_the_start_and_stay_what_they_were(folder: Path) -> None:
    async with serve(folder) as rest:
        app = operator_of(folder, rest)
        assert "seeded-1" in (await app("list")).out
        assert (await app("stop", "seeded-1", "--now")).out == "seeded-1 is STOPPED\n"
    async with serve(folder) as rest:
        app = operator_of(folder, rest)
        assert (await read(await app("show", "seeded-1")))["operationalState"] == "STOPPED"
        assert (await app("start", "seeded-1")).out == "seeded-1 is NOT_READY\n"
        check_one_line(await app("delete", "seeded-1"), "terminate it first")


async def test_what_an_operator_gets_wrong_is_one_line(folder: Path) -> None:
    async with serve(folder) as rest:
        app = operator_of(folder, rest)
        check_one_line(await app("create"), "--name", "--descriptor")
        broken = folder / "broken.json"
        broken.write_text('{"appName": ')
        check_one_line(await app("create", "--descriptor", broken), "broken.json", "JSON")
        broken.write_text('{"appName": "x", "dnsRule": []}')
        check_one_line(await app("create", "--descriptor", broken), "dnsRule")
        check_one_line(await app("create", "--name", "x", "--output", broken), "broken.json", "not overwritten")
        assert len(await read(await app("list", "--json"))) == 1
        nowhere = folder / "missing" / "x.json"
        check_one_line(
            await app("create", "--name", "x", "--id", "x-1", "--output", nowhere),
            str(nowhere),
            "mec client secret x-1",
        )


async def test_a_file_of_seeds_that_makes_no_instances_ends_the_platform_with_one_line(folder: Path) -> None:
    (folder / "apps.toml").write_text('[[apps]]\nappName = "x"\n')
    ended = await mec("serve", "--rest-port", 0, "--grpc-port", 0, "--seed", folder / "apps.toml")
    check_one_line(ended, "apps.toml", "appInstanceId")
