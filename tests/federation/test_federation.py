"""Hosts that share services over real gRPC: copies, resumption, partitions, restarts, and who may touch what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.federation.hosts import SHARED, eventually, federation, in_step


async def test_services_of_each_host_are_found_at_the_others_and_go_with_their_owner(tmp_path):
    async with federation(tmp_path, "a", "b", "c") as hosts:
        a, b, c = hosts
        app_id = await a.app()
        service = await a.offer(app_id)
        await b.offer(await b.app(), name="other")
        await eventually(lambda: in_step(hosts) and len(c.services) == 2, *hosts)
        assert b.services[service.service_id].origin == "a"
        await a.host.services.update_service(app_id, service.service_id, replace(SHARED, version="2"))
        await eventually(lambda: b.services[service.service_id].version == "2", *hosts)
        await a.host.applications.remove(app_id)
        await eventually(lambda: in_step(hosts) and len(c.services) == 1, *hosts)
