"""The platform's time and its sources over Mp1."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.enablement_api.app_support.timing import HostTime
from mec_platform.enablement_api.routes import make_enablement_app
from mec_platform.host_time.clock_status import ClockReading
from mec_platform.host_time.time_sources import NtpAuthentication, NtpServer, PtpMaster, TimeSources
from tests.conformance.answers import AnswerChecker

TIMING = "/mec_app_support/v2/timing"

NOW = {"seconds": 1_700_000_000, "nanoSeconds": 250_000_000}
SOURCES = TimeSources(
    (
        NtpServer(address="ntp.example.com", authentication=NtpAuthentication.SYMMETRIC_KEY, key_number=17),
        NtpServer(address="2001:db8::1", min_poll=4, max_poll=9),
    ),
    (PtpMaster("192.0.2.7", 16),),
)


async def test_names_the_time_servers_best_first(host):
    app = make_enablement_app(host, host_time=HostTime(SOURCES))
    checker = AnswerChecker(app)
    async with TestClient(TestServer(app)) as client:
        response = await client.get(f"{TIMING}/timing_caps")
        assert response.status == 200
        assert await response.json() == {
            "timeStamp": NOW,
            "ntpServers": [
                {
                    "ntpServerAddrType": "DNS_NAME",
                    "ntpServerAddr": "ntp.example.com",
                    "minPollingInterval": 6,
                    "maxPollingInterval": 10,
                    "localPriority": 1,
                    "authenticationOption": "SYMMETRIC_KEY",
                    "authenticationKeyNum": 17,
                },
                {
                    "ntpServerAddrType": "IP_ADDRESS",
                    "ntpServerAddr": "2001:db8::1",
                    "minPollingInterval": 4,
                    "maxPollingInterval": 9,
                    "localPriority": 2,
                    "authenticationOption": "NONE",
                    "authenticationKeyNum": 0,
                },
            ],
            "ptpMasters": [{"ptpMasterIpAddress": "192.0.2.7", "ptpMasterLocalPriority": 1, "delayReqMaxRate": 16}],
        }
    assert checker.complaints == []


async def test_a_host_that_knows_no_time_servers_names_none(client):
    response = await client.get(f"{TIMING}/timing_caps")
    assert (response.status, await response.json()) == (200, {"timeStamp": NOW, "ntpServers": [], "ptpMasters": []})


@pytest.mark.parametrize(
    ("reading", "status"),
    [
        (ClockReading(state=0, status=1, max_error_us=25_000, estimated_error_us=300), "TRACEABLE"),
        (ClockReading(state=5, status=0x40, max_error_us=16_000_000, estimated_error_us=16_000_000), "NONTRACEABLE"),
        (None, "NONTRACEABLE"),
    ],
)
async def test_tells_the_time_and_whether_it_is_locked_to_utc(host, reading, status):
    app = make_enablement_app(host, host_time=HostTime(read_clock=lambda: reading))
    async with TestClient(TestServer(app)) as client:
        response = await client.get(f"{TIMING}/current_time")
        assert (response.status, await response.json()) == (200, NOW | {"timeSourceStatus": status})


@pytest.mark.parametrize("resource", ["timing_caps", "current_time"])
async def test_time_is_read_only(client, resource):
    response = await client.put(f"{TIMING}/{resource}", json={})
    assert (response.status, response.content_type) == (405, "application/problem+json")
