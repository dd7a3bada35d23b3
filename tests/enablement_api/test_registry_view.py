"""The registry as it is read at `/registry/v1`: the same records in three views."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from mec_platform.domain.applications import AppDescription
from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    JsonText,
    ServiceDescription,
    ServiceInfo,
    ServiceState,
)
from mec_platform.registry.events import PeerServicesChanged
from mec_platform.registry.host import HostRegistry
from tests.registry.services import GREETING

ROOT = "/registry/v1"
VIEWS = ("services", "eas_profiles", "service_apis")
NAMES = {"services": "name", "eas_profiles": "easId", "service_apis": "apiName"}
ELSEWHERE = Locality(mec_host="host-2")


async def offer(
    host: HostRegistry, description: ServiceDescription = GREETING, place: Locality | None = None, **app: str
) -> str:
    """The id of a new service of a new application instance, on this host if no other is named."""
    registered = await host.applications.register(AppDescription(name="greeter", **app), locality=place)
    return (await host.services.register_service(registered.app_instance_id, description)).service_id


async def names(client: TestClient, view: str, query: str = "") -> list[str]:
    response = await client.get(f"{ROOT}/{view}{query}")
    assert response.status == 200, await response.text()
    return [each[NAMES[view]] for each in await response.json()]


async def test_the_record_in_full_has_what_mec_011_has_no_attribute_for(client, host, clock):
    service_id = await offer(host, provider="example.com")
    host.services.kpis.update(
        service_id, Kpis(measured_unix_ns=clock.unix_ns(), load=0.25, tokens_per_s=12.5, rtt_ms=3), clock.unix_ns()
    )
    answer = await client.get(f"{ROOT}/services/{service_id}")
    service = host.services.service(service_id)
    assert await answer.json() == {
        "serviceId": service_id,
        "appInstanceId": service.app_instance_id,
        "appProvider": "example.com",
        "registeredRevision": host.registry.state.revision,
        "name": "greeting",
        "version": "1.0",
        "state": "ACTIVE",
        "transport": {
            "id": "grpc",
            "name": "gRPC",
            "type": "RPC",
            "protocol": "gRPC",
            "version": "1",
            "endpoint": {"uris": ["http://127.0.0.1:9000/"]},
            "security": {},
        },
        "serializer": "PROTOBUF3",
        "locality": {"mecHost": "host-1"},
        "scopeOfLocality": "MEC_HOST",
        "consumedLocalOnly": True,
        "isLocal": True,
        "livenessInterval": 10,
        "evictAfterIntervals": 3,
        "capabilities": {
            "model": "smollm2",
            "layers": {"start": 0, "stop": 12},
            "trustLevel": 1,
            "labels": {"rack": "a"},
        },
        "kpis": {
            "measured": {"seconds": 1_700_000_000, "nanoSeconds": 250_000_000},
            "load": 0.25,
            "tokensPerS": 12.5,
            "rttMs": 3.0,
        },
    }


async def test_each_view_lists_what_it_shows_one_by_one(client, host):
    ids = [await offer(host), await offer(host, replace(GREETING, name="other"))]
    for view in VIEWS:
        listed = await (await client.get(f"{ROOT}/{view}")).json()
        single = [await (await client.get(f"{ROOT}/{view}/{each}")).json() for each in ids]
        assert listed == single
        assert [each[NAMES[view]] for each in listed] == ["greeting", "other"]


@pytest.mark.parametrize("view", VIEWS)
async def test_filters_are_values_or_and_attributes_and(client, host, view):
    category = CategoryRef("urn:c", "c", "C", "1")
    await offer(host, replace(GREETING, name="a", category=category))
    await offer(host, replace(GREETING, name="b", capabilities=Capabilities(model="llama")))
    await offer(host, replace(GREETING, name="c", capabilities=None, state=ServiceState.INACTIVE))
    assert await names(client, view, "?ser_name=a&ser_name=c") == ["a", "c"]
    assert await names(client, view, "?ser_category_id=c&ser_category_id=d") == ["a"]
    assert await names(client, view, "?model=llama&model=smollm2") == ["a", "b"]
    assert await names(client, view, "?state=INACTIVE") == ["c"]
    assert await names(client, view, "?model=llama&ser_name=a") == []


@pytest.mark.parametrize("query", ["?state=GONE", "?name=a"])
async def test_filters_that_nothing_could_match_are_refused(client, query):
    for view in VIEWS:
        assert (await client.get(f"{ROOT}/{view}{query}")).status == 400


@pytest.mark.parametrize("view", VIEWS)
async def test_a_service_that_is_kept_to_another_place_is_not_there(client, host, view):
    hidden = await offer(host, place=ELSEWHERE)
    open_to_all = await offer(host, replace(GREETING, name="open", consumed_local_only=False), place=ELSEWHERE)
    assert await names(client, view) == ["open"]
    assert (await client.get(f"{ROOT}/{view}/{hidden}")).status == 404
    assert (await client.get(f"{ROOT}/{view}/{open_to_all}")).status == 200


async def test_whether_a_service_is_local_is_the_consumers_view(client, host):
    service_id = await offer(host, replace(GREETING, consumed_local_only=False), place=ELSEWHERE)
    assert (await (await client.get(f"{ROOT}/services/{service_id}")).json())["isLocal"] is False


@pytest.mark.parametrize("view", VIEWS)
async def test_an_unknown_service_is_a_problem(client, view):
    answer = await client.get(f"{ROOT}/{view}/nobody")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")


async def test_a_service_without_an_eas_profile_is_in_the_other_views_alone(client, host):
    endpoint = EndPoint(alternative=JsonText('{"topic": "greetings"}'))
    transport = replace(GREETING.transport, endpoint=endpoint)
    service_id = await offer(host, replace(GREETING, transport=transport))
    statuses = {view: (await client.get(f"{ROOT}/{view}/{service_id}")).status for view in VIEWS}
    assert statuses == {"services": 200, "eas_profiles": 404, "service_apis": 200}
    assert await names(client, "eas_profiles") == []


@pytest.mark.parametrize("view", VIEWS)
async def test_an_etag_stays_while_what_is_shown_stays(client, host, clock, view):
    service_id = await offer(host)
    service = host.services.service(service_id)

    async def tag() -> str:
        return (await client.get(f"{ROOT}/{view}/{service_id}")).headers["ETag"]

    before = await tag()
    assert await tag() == before
    await host.services.update_service(service.app_instance_id, service_id, replace(GREETING, name="other"))
    renamed = await tag()
    assert renamed != before
    measured = Kpis(measured_unix_ns=clock.unix_ns(), free_memory_bytes=10**9)
    host.services.kpis.update(service_id, measured, clock.unix_ns())
    assert (await tag() != renamed) == (view != "eas_profiles")
    await host.services.update_service(service.app_instance_id, service_id, GREETING)


async def test_the_views_cannot_be_written(client):
    for view in VIEWS:
        assert (await client.post(f"{ROOT}/{view}", json={})).status == 405


@pytest.mark.parametrize("view", VIEWS)
async def test_services_that_another_host_shares_are_shown_without_what_is_known_of_its_applications_here(
    client, host, view
):
    own = await offer(host, provider="example.com")
    app_id = host.services.service(own).app_instance_id
    shared = ServiceInfo(
        **asdict_of(replace(GREETING, consumed_local_only=False, liveness_interval_s=None, evict_after_intervals=None)),
        service_id="shared",
        app_instance_id=app_id,
        locality=ELSEWHERE,
        origin="host-2",
    )
    await host.registry.commit(lambda state: PeerServicesChanged("host-2", PeerCursor("theirs", 1), (shared,)))
    answer = await client.get(f"{ROOT}/{view}/shared")
    assert answer.status == 200
    message = await answer.json()
    assert "example.com" not in message.values()
    if view == "services":
        assert (message["origin"], message["isLocal"]) == ("host-2", False)
        assert "origin" not in await (await client.get(f"{ROOT}/services/{own}")).json()
    assert len(await names(client, view)) == 2


def asdict_of(description: ServiceDescription) -> dict[str, Any]:
    return {each.name: getattr(description, each.name) for each in fields(ServiceDescription)}
