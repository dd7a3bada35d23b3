"""`mec serve --radio-trace` and `mec radio`: a platform that replays a trace, and says that it does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from mec_apps.cli.serve.command import serve
from mec_platform.application import Platform
from mec_platform.radio.replay import ReplaySettings
from mec_platform.radio_access import PLATFORM_APP, RadioSettings
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import radio_pb2 as pb
from mec_platform.rpc.v1 import radio_pb2_grpc
from mec_platform.traces.lines import TraceError
from tests.cli.platforms import host_of, run, running_platform

LINES = "sent received delay x y heading velocity cell sinr rsrp\n" + "".join(
    f"{1000 + 50 * number} 0 20 1 1 0 0 5C4225714 23 -77\n" for number in range(20)
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "drive.txt"
    path.write_text(LINES)
    return path


async def until_offered(platform: Platform) -> None:
    """Radio information is registered as a service with the first report."""
    offered = asyncio.Event()
    state = host_of(platform).registry
    state.add_listener(lambda _: state.state.services_with(("name", "rni")) and offered.set())
    if not state.state.services_with(("name", "rni")):
        async with asyncio.timeout(30):
            await offered.wait()


async def test_a_replayed_trace_is_shown_as_one_and_offered_as_a_service(tmp_path, trace):
    radio = RadioSettings({"10.0.0.7": trace}, ReplaySettings(speed=10))
    async with running_platform(tmp_path, radio=radio) as platform:
        await until_offered(platform)
        shown = await run("radio", "--platform", platform.rest_uri)
        assert shown.exit_code == 0, shown.output
        row = shown.output.splitlines()[1].split()
        assert row[:6] == ["10.0.0.7", "5C4225714", "001-01", "-77", "23", "20"]
        assert "replay of drive.txt" in shown.output
        (ue,) = json.loads((await run("radio", "--json", "--platform", platform.rest_uri)).output)
        assert (ue["ue"], ue["source"], ue["technology"]) == ("10.0.0.7", "replay of drive.txt", "NR")
        (service,) = json.loads((await run("services", "--json", "--platform", platform.rest_uri)).output)
        assert (service["name"], service["appInstanceId"]) == ("rni", PLATFORM_APP)
        assert service["transport"]["endpoint"]["uris"] == [f"{platform.rest_uri}/rni/v2"]


async def test_a_ran_reports_over_grpc_and_a_restart_offers_the_same_service_again(tmp_path):
    report = pb.RadioReport(
        ue=pb.RadioUe(name="car"),
        cell=pb.RadioCell(mcc="001", mnc="01", cell_id="5C4225714"),
        attached=pb.UeAttached(),
    )
    offered = []
    for _ in range(2):
        async with running_platform(tmp_path) as platform:
            assert "no UEs" in (await run("radio", "--platform", platform.rest_uri)).output
            async with open_channel(platform.grpc_address) as channel:
                call = radio_pb2_grpc.RadioAccessStub(channel).ReportRadio(
                    iter([pb.RadioReports(source="a RAN", reports=[report])])
                )
                assert [reply.taken async for reply in call] == [1]
                assert await call.code() is grpc.StatusCode.OK
            await until_offered(platform)
            offered += host_of(platform).registry.state.services_with(("name", "rni"))
            assert "a RAN" in (await run("radio", "--platform", platform.rest_uri)).output
    assert offered[0] == offered[1]


async def test_a_trace_that_cannot_be_read_is_named_before_anything_is_served(tmp_path):
    with pytest.raises(TraceError, match=r"nowhere\.txt"):
        async with running_platform(tmp_path, radio=RadioSettings({"car": tmp_path / "nowhere.txt"})):
            pass


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--radio-trace", "car"), "is not like 10.0.0.7=trace.txt"),
        (("--radio-trace", "=trace.txt"), "is no UE"),
        (("--radio-trace", "car=a.txt", "--radio-trace", "car=b.txt"), "car has a trace already"),
        (("--radio-plmn", "1-01"), "is not like 001-01"),
        (("--radio-speed", "0"), "0.01"),
    ],
)
def test_options_that_say_nothing_are_refused(arguments, complaint):
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
