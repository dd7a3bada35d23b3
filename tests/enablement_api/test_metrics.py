"""What /metrics says."""

from __future__ import annotations

from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from mec_platform.enablement_api.metrics import CallMetrics
from mec_platform.rpc.v1 import registry_pb2 as pb
from tests.registry import grpc_serving
from tests.registry.services import GREETING, make_app, until

SERVICES = "/mec_service_mgmt/v1"


async def exposed(client) -> dict[str, float]:
    response = await client.get("/metrics")
    assert response.status == 200
    assert response.content_type == "text/plain"
    lines = [line for line in (await response.text()).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_counts_services_by_state_and_their_changes(client, service, clock, host):
    samples = await exposed(client)
    assert samples['mec_services{state="ACTIVE"}'] == 1
    assert samples['mec_services{state="SUSPENDED"}'] == 0
    assert samples["mec_app_instances"] == 1
    assert samples['mec_service_changes_total{change="ADDED"}'] == 1
    clock.now_s += 100
    await host.services.suspend_overdue()
    samples = await exposed(client)
    assert samples['mec_services{state="SUSPENDED"}'] == 1
    assert samples['mec_service_changes_total{change="STATE_CHANGED"}'] == 1


async def test_counts_and_times_requests_by_route_and_not_by_id(client, service):
    path = urlsplit(service["_links"]["self"]["href"]).path
    await client.get(path)
    await client.get(f"{path}x")
    samples = await exposed(client)
    route = f'method="GET",route="{SERVICES}/applications/{{appInstanceId}}/services/{{serviceId}}"'
    assert samples[f'mec_http_requests_total{{{route},status="200"}}'] == 1
    assert samples[f'mec_http_requests_total{{{route},status="404"}}'] == 1
    assert samples[f"mec_http_request_seconds_count{{{route}}}"] == 2


async def test_unknown_paths_share_one_series(client):
    for number in range(3):
        await client.get(f"/nowhere/{number}")
    samples = await exposed(client)
    assert samples['mec_http_requests_total{method="other",route="unknown",status="404"}'] == 3


async def test_says_how_heartbeats_and_watches_are(client, host, clock):
    app_id = await make_app(host)
    services = [await host.services.register_service(app_id, GREETING) for _ in range(12)]
    await host.services.renew([services[0].service_id])
    clock.now_s += 10.5
    await host.services.renew(each.service_id for each in services[2:])
    await host.services.suspend_overdue()
    clock.now_s += 9
    await host.services.renew(each.service_id for each in services[2:])
    clock.now_s += 9
    await host.services.renew(each.service_id for each in services[2:])
    clock.now_s += 12
    await host.services.suspend_overdue()
    with host.changes.watch(0):
        samples = await exposed(client)
    assert samples["mec_registry_revision"] == host.registry.state.revision
    assert samples["mec_registry_renewals_total"] == 31
    assert samples["mec_registry_expiries_total"] == 2
    assert samples["mec_registry_evictions_total"] == 0
    assert samples["mec_registry_mass_expiry_protection"] == 1
    assert samples["mec_registry_watchers"] == 1
    assert samples["mec_registry_watch_lag"] == 14
    assert samples["mec_registry_changes_kept"] == 14
    assert samples["mec_registry_compacted_revision"] == 0
    await host.services.renew(each.service_id for each in services[2:])
    await host.services.suspend_overdue()
    samples = await exposed(client)
    assert samples["mec_registry_mass_expiry_protection"] == 0
    assert samples["mec_registry_evictions_total"] == 2


async def test_counts_grpc_calls_by_method_and_code_and_times_those_that_do_not_last(client, host):
    calls = CallMetrics(collectors := CollectorRegistry())
    async with grpc_serving.serving(host, note=calls.note) as stub:
        await stub.Discover(pb.DiscoverRequest())
        await grpc_serving.refusal_of(stub.Get(pb.GetRequest(service_id="x")))
        watch = stub.Watch(pb.WatchRequest())
        await watch.read()
        watch.cancel()
        await until(lambda: collectors.get_sample_value("mec_grpc_calls_total", CANCELLED) == 1)
    for method, code, timed in (("Discover", "OK", 1), ("Get", "NOT_FOUND", 1), ("Watch", "CANCELLED", None)):
        assert collectors.get_sample_value("mec_grpc_calls_total", {"method": method, "code": code}) == 1
        assert collectors.get_sample_value("mec_grpc_call_seconds_count", {"method": method}) == timed


CANCELLED = {"method": "Watch", "code": "CANCELLED"}
