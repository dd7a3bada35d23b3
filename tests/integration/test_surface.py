"""What operators and other programs see of a running edge: metrics, discovery, health, reflection, what nodes load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mec_platform.rpc.v1 import registry_pb2, registry_pb2_grpc
from tests.integration.edge import Edge

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

PLATFORM_SERVICES = {
    f"mec_platform.rpc.v1.{name}"
    for name in (
        "ServiceRegistry",
        "Federation",
        "CapacityProfiler",
        "AdaptiveOrchestrator",
        "SplitRevision",
        "ReconfigurationBroadcast",
        "ContentStore",
    )
}


def mapped_files(process: int) -> set[str]:
    """Names of the files that a process has mapped, its libraries among them."""
    maps = Path(f"/proc/{process}/maps").read_text(encoding="utf-8")
    return {Path(line.split()[-1]).name for line in maps.splitlines()}


async def metrics(url: str) -> dict[str, float]:
    """Samples without labels, by name."""
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    samples = [line.split() for line in lines if line and not line.startswith("#") and "{" not in line]
    return {name: float(value) for name, value, *_ in samples}


@pytest.mark.parametrize("node", ["edge-1", "edge-2", "edge-3"])
async def test_a_node_loads_neither_the_compiler_nor_torch(edge: Edge, node: str) -> None:
    process = (await edge.describe(node)).process_id
    assert process == edge.cluster.facts[node]["pid"]
    mapped = mapped_files(process)
    assert "libtvm_runtime.so" in mapped
    assert not {name for name in mapped if name.startswith(("libtvm_compiler", "libtorch", "libc10", "libtvm.so"))}


@pytest.mark.parametrize("member", ["platform", "gateway"])
async def test_platform_and_gateway_do_not_load_tvm_at_all(edge: Edge, member: str) -> None:
    mapped = mapped_files(edge.cluster.facts[member]["pid"])
    assert any(name.startswith("libc.") for name in mapped)
    assert not {name for name in mapped if name.startswith(("libtvm", "libtorch", "libc10"))}


async def test_every_process_shows_metrics_and_they_agree_on_the_plan(edge: Edge) -> None:
    epoch = await edge.epoch()
    await edge.answer(5)
    assert (await metrics(f"{edge.cluster.platform_url}/metrics"))["mec_plan_epoch"] == epoch
    gateway = edge.cluster.openai_url.removesuffix("/v1")
    assert (await metrics(f"{gateway}/metrics"))["mec_gateway_plan_epoch"] == epoch
    # Nodes learn of a commit and let go of what older plans held a moment after it is recorded.
    async with asyncio.timeout(30):
        while await _epochs_and_layers(edge) != ({epoch}, 30):
            pass


async def _epochs_and_layers(edge: Edge) -> tuple[set[float], float]:
    seen = [await metrics(edge.cluster.facts[node]["metrics"]) for node in edge.nodes]
    return {each["mec_node_committed_epoch"] for each in seen}, sum(each["mec_node_layers"] for each in seen)


async def test_a_node_counts_the_rows_that_it_runs(edge: Edge) -> None:
    before = await metrics(edge.cluster.facts["edge-2"]["metrics"])
    await edge.answer(8)
    after = await metrics(edge.cluster.facts["edge-2"]["metrics"])
    assert after["mec_node_rows_total"] >= before["mec_node_rows_total"] + 8
    assert after["mec_node_frames_total"] == before["mec_node_frames_total"] + 8
    assert after["mec_node_kv_pages"] > 0


@pytest.mark.parametrize(("name", "count"), [("edge-node", 3), ("lfm-inference", 1)])
async def test_nodes_and_gateway_are_found_through_mp1_by_their_service_name(edge: Edge, name: str, count: int) -> None:
    url = f"{edge.cluster.platform_url}/mec_service_mgmt/v1/services"
    async with aiohttp.ClientSession() as http, http.get(url, params={"ser_name": name}) as response:
        assert response.status == 200
        found = await response.json()
    assert [service["serName"] for service in found] == [name] * count
    assert {service["state"] for service in found} == {"ACTIVE"}
    uris = {uri for service in found for uri in service["transportInfo"]["endpoint"]["uris"]}
    assert len(uris) == count
    if name == "lfm-inference":
        assert uris == {edge.cluster.openai_url}


async def test_nodes_and_gateway_are_found_through_grpc(edge: Edge) -> None:
    stub = registry_pb2_grpc.ServiceRegistryStub(edge.cluster.platform)
    everything = await stub.Discover(registry_pb2.DiscoveryQuery())
    names = sorted(each.service.description.name for each in everything.candidates)
    assert names == ["edge-node"] * 3 + ["lfm-inference"]
    nodes = await stub.Discover(registry_pb2.DiscoveryQuery(names=["edge-node"]))
    expected = {f"grpc://{edge.cluster.facts[node]['grpc']}" for node in edge.nodes}
    found = [each.service.description.transport.endpoint for each in nodes.candidates]
    assert {uri for endpoint in found for uri in endpoint.uris.values} == expected


@pytest.mark.parametrize(
    ("member", "services"),
    [
        ("platform", PLATFORM_SERVICES),
        ("gateway", {"mec_platform.rpc.v1.Inference"}),
        ("edge-1", {f"mec_platform.rpc.v1.{name}" for name in ("EdgeNode", "DataPlane", "ContentStore")}),
    ],
)
async def test_health_and_reflection_answer_for_every_service(edge: Edge, member: str, services: set[str]) -> None:
    async with grpc.aio.insecure_channel(edge.cluster.facts[member]["grpc"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", *sorted(services)):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        async for reply in reflection.ServerReflectionInfo(iter([question])):
            listed = {service.name for service in reply.list_services_response.service}
    assert services <= listed


async def test_the_dashboard_page_is_served(edge: Edge) -> None:
    async with aiohttp.ClientSession() as http, http.get(edge.cluster.dashboard_url) as response:
        assert response.status == 200
        assert "text/html" in response.headers["Content-Type"]
