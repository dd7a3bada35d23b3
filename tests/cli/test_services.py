"""`mec services`: a table of what is offered, by filters, or as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from mec_apps.cli.services import describe, describe_age
from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.services import CategoryRef, EndPoint, HostPort, ServiceState
from tests.cli.platforms import host_of, offer, run, running_platform
from tests.registry.services import GREETING

RECORD = {
    "serviceId": "id-1",
    "locality": {"mecHost": "host-1"},
    "name": "faces",
    "version": "2",
    "state": "SUSPENDED",
    "transport": {"endpoint": {"addresses": [{"host": "192.0.2.1", "port": 80}, {"host": "192.0.2.2", "port": 81}]}},
}


@pytest.fixture
async def platform(tmp_path):
    async with running_platform(tmp_path) as platform:
        yield platform


async def test_the_table_says_what_services_can_do_and_how_they_are_doing(platform):
    measured = Kpis(measured_unix_ns=time.time_ns(), load=0.25, tokens_per_s=41.26)
    service_id = await offer(platform)
    assert host_of(platform).services.kpis.update(service_id, measured, measured.measured_unix_ns)
    shown = await run("services", "--platform", platform.rest_uri)
    assert shown.exit_code == 0, shown.output
    headings, row = shown.output.splitlines()
    for heading in (
        "id",
        "name",
        "version",
        "state",
        "model",
        "host",
        "trust",
        "load",
        "tokens/s",
        "measured",
        "reached at",
    ):
        assert heading.upper() in headings
    assert row.startswith(service_id)
    for word in ("greeting", "1.0", "ACTIVE", "smollm2 [0, 12)", "25%", "41.3", "s ago", "http://127.0.0.1:9000/"):
        assert word in row


async def test_filters_narrow_the_table(platform):
    category = CategoryRef("urn:c", "c", "C", "1")
    await offer(platform, name="a", category=category)
    await offer(platform, name="b", capabilities=Capabilities(model="llama", layers=LayerRange(0, 1)))
    await offer(platform, name="c", state=ServiceState.INACTIVE)

    async def names(*filters: str) -> list[str]:
        shown = await run("services", "--platform", platform.rest_uri, "--json", *filters)
        assert shown.exit_code == 0, shown.output
        return [each["name"] for each in json.loads(shown.output)]

    assert await names() == ["a", "b", "c"]
    assert await names("--name", "a", "--name", "c") == ["a", "c"]
    assert await names("--category", "c") == ["a"]
    assert await names("--model", "llama") == ["b"]
    assert await names("--state", "inactive") == ["c"]
    assert await names("--name", "a & b = c") == []


async def test_nothing_found_is_said(platform):
    shown = await run("services", "--platform", platform.rest_uri)
    assert (shown.exit_code, shown.output) == (0, "no services\n")


def test_a_service_that_says_nothing_has_empty_cells():
    assert describe(RECORD, 0.0) == (
        "id-1", "faces", "2", "SUSPENDED", "", "host-1", "", "", "", "", "192.0.2.1:80 192.0.2.2:81",
    )  # fmt: skip


def test_a_service_without_load_or_speed_still_says_when_it_measured():
    row = describe({**RECORD, "kpis": {"measured": {"seconds": 100, "nanoSeconds": 0}}}, 130.0)
    assert row[7:10] == ("", "", "30 s ago")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s ago"), (119.9, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago")]
)
def test_ages_are_told_in_the_unit_that_suits(seconds, text):
    assert describe_age(seconds) == text


async def test_every_kind_of_endpoint_is_shown(platform):
    endpoints = (EndPoint(fqdn=("a.example.com", "b.example.com")), EndPoint(addresses=(HostPort("192.0.2.1", 80),)))
    for endpoint in endpoints:
        await offer(platform, transport=replace(GREETING.transport, endpoint=endpoint))
    shown = await run("services", "--platform", platform.rest_uri)
    assert "a.example.com b.example.com" in shown.output
    assert "192.0.2.1:80" in shown.output


async def test_a_name_cannot_write_rows_of_its_own(platform):
    await offer(platform, name="\x1b[2Jfaces\nfake")
    shown = await run("services", "--platform", platform.rest_uri)
    assert len(shown.output.splitlines()) == 2
    assert "\x1b" not in shown.output
