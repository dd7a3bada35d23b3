"""An application that runs as the instance that an operator has made for it."""

from __future__ import annotations

import pytest

from mec_apps.sdk import MecApplication, NotRegistered
from mec_platform.domain.applications import AppDescription, AppState, OperationAction
from mec_platform.domain.services import ServiceQuery


async def test_it_is_ready_while_it_runs_and_stays_with_its_services_withdrawn(platform):
    await platform.host.applications.register(AppDescription(name="made"), app_instance_id="greeter-1")
    async with MecApplication(platform.url, name="greeter", app_instance_id="greeter-1") as app:
        assert app.app_instance_id == "greeter-1"
        await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        assert platform.host.applications.get("greeter-1").state is AppState.READY
    assert [each.app_instance_id for each in platform.host.applications.all()] == ["greeter-1"]
    assert platform.host.services.services(ServiceQuery()) == []


async def test_it_leaves_quietly_once_it_has_been_ended(platform, caplog):
    await platform.host.applications.register(AppDescription(name="made"), app_instance_id="greeter-1")

    async def end(action: OperationAction, within_s: int) -> None:
        pass

    async with MecApplication(platform.url, name="greeter", app_instance_id="greeter-1") as app:
        await app.offer_service("greeting", "http://127.0.0.1:9000/", version="1.0")
        await app.on_termination(end)
        await platform.host.applications.request_end("greeter-1", OperationAction.TERMINATING, 30)
        await app.until_ended()
    assert platform.host.applications.get("greeter-1").state is AppState.TERMINATED
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


async def test_an_instance_that_nobody_made_is_not_registered(platform):
    with pytest.raises(NotRegistered):
        async with MecApplication(platform.url, name="greeter", app_instance_id="greeter-1"):
            pass
