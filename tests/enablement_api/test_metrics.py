"""What /metrics says."""

from __future__ import annotations

from urllib.parse import urlsplit

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
