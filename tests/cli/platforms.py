"""A whole platform in this process, and commands run beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mec_apps.cli.main import cli
from mec_platform.application import Platform, PlatformSettings
from mec_platform.domain.applications import AppDescription
from mec_platform.domain.services import ServiceDescription
from mec_platform.registry.host import HostRegistry
from tests.registry.services import GREETING


@asynccontextmanager
async def running_platform(folder: Path, **settings: Any) -> AsyncIterator[Platform]:
    """A platform that keeps everything in a folder."""
    chosen = PlatformSettings(
        rest_port=0, grpc_port=0, state=folder / "mec.sqlite", store_dir=folder / "store", manual=True
    )
    platform = Platform(replace(chosen, **settings))
    await platform.start()
    try:
        yield platform
    finally:
        await platform.stop()


def host_of(platform: Platform) -> HostRegistry:
    """The registry of a platform that runs in this process."""
    return platform._host


async def offer(platform: Platform, description: ServiceDescription = GREETING, **changes: Any) -> str:
    """The id of a new service of a new application instance."""
    host = host_of(platform)
    app = await host.applications.register(AppDescription(name="greeter", provider="example.com"))
    service = await host.services.register_service(app.app_instance_id, replace(description, **changes))
    return service.service_id


async def withdraw(platform: Platform, service_id: str) -> None:
    services = host_of(platform).services
    await services.remove_service(services.service(service_id).app_instance_id, service_id)


async def run(*arguments: str) -> Result:
    """A command that ends by itself; the platform goes on answering meanwhile."""
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments)
