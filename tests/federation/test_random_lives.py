"""Three real hosts that live through random changes, cuts, silences, restarts and compactions, and agree in the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from mec_platform.domain.services import ServiceState
from tests.federation.hosts import SETTINGS, SHARED, Host, eventually, federation, in_step

STEPS = 60
LIKELY = {
    "offer": 5,
    "update": 5,
    "remove": 3,
    "leave": 1,
    "cut": 2,
    "heal": 3,
    "restart": 1,
    "compact": 1,
    "lose": 0.3,
}


async def take_step(host: Host, step: str, die: Random, apps: dict[str, list[str]], number: int) -> None:
    services, known = host.host.services, apps[host.name]
    own = sorted(host.own(), key=lambda each: each.service_id)
    service = die.choice(own) if own else None
    described = replace(
        SHARED,
        version=str(number),
        state=die.choice(list(ServiceState)),
        consumed_local_only=die.random() < 0.2,
    )
    match step:
        case "offer":
            if not known or die.random() < 0.2:
                known.append(await host.app())
            await asyncio.gather(*(host.offer(die.choice(known), described) for _ in range(die.randint(1, 5))))
        case "update" if service is not None:
            await services.update_service(service.app_instance_id, service.service_id, described)
        case "remove" if service is not None:
            await services.remove_service(service.app_instance_id, service.service_id)
        case "leave" if known:
            await host.host.applications.remove(known.pop(die.randrange(len(known))))
        case "cut":
            host.wire.cut()
        case "heal":
            host.wire.heal()
        case "restart":
            await host.restart()
        case "compact":
            await host.host.registry.compact()
        case "lose":
            await host.stop()
            host.state = f"{host.state}.{number}"
            known.clear()
            await host.start()


@pytest.mark.parametrize("seed", range(4))
async def test_hosts_agree_whatever_has_happened_and_nothing_that_was_removed_is_there(tmp_path, seed):
    die = Random(seed)
    settings = replace(SETTINGS, suspend_after_s=0.1)
    async with federation(tmp_path, "a", "b", "c", settings=settings) as hosts:
        apps: dict[str, list[str]] = {host.name: [] for host in hosts}
        ever: set[str] = set()
        for number in range(STEPS):
            (step,) = die.choices(list(LIKELY), list(LIKELY.values()))
            await take_step(die.choice(hosts), step, die, apps, number)
            ever |= {each.service_id for host in hosts for each in host.own()}
            # Some steps meet what the links are doing, some come behind it.
            for _ in range(die.choice([0, 0, 1, 30, 300])):
                await asyncio.sleep(0)
        for host in hosts:
            host.wire.heal()
        await eventually(lambda: in_step(hosts), *hosts)
        living = {each.service_id for host in hosts for each in host.own()}
        assert ever - living
        assert all(set(host.services) <= living for host in hosts)
        assert all(not host.link(other).refused for host in hosts for other in host.peers)
