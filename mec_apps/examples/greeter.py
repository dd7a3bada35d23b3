"""The smallest complete MEC application: it offers a greeting over HTTP and greets every other greeter it discovers.

Run it in two terminals beside `mec serve`; the second one is greeted by the first:

    python -m mec_apps.examples.greeter --name alice
    python -m mec_apps.examples.greeter --name bob
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import click
from aiohttp import web

from mec_apps.sdk import MecApplication, MecError, OfferedService
from mec_platform.domain.applications import OperationAction

SERVICE = "greeting"


@asynccontextmanager
async def serve_greeting(name: str) -> AsyncIterator[str]:
    """Answers GET / with a greeting on a free port of this machine; yields the address."""

    async def greet(request: web.Request) -> web.Response:
        return web.Response(text=f"hello from {name}")

    server = web.Application()
    server.router.add_get("/", greet)
    runner = web.AppRunner(server)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


async def greet_others(app: MecApplication, own: OfferedService) -> list[str]:
    """The answers of every other greeter on this MEC host."""
    others = [service for service in await app.discover(name=SERVICE) if service.service_id != own.service_id]
    async with aiohttp.ClientSession() as session:
        answers = []
        for service in others:
            async with session.get(service.uris[0]) as response:
                answers.append(await response.text())
    return answers


async def say_goodbye(name: str, action: OperationAction, within_s: int) -> None:
    """What an application has to do before its end would be done here."""
    click.echo(f"{name} was asked to end within {within_s} s ({action}) and says goodbye")


async def run(platform_url: str, name: str) -> None:
    """Offers the greeting, greets the others once, then stays until it is interrupted or an operator ends it."""
    async with serve_greeting(name) as uri, MecApplication(platform_url, name=name) as app:
        own = await app.offer_service(SERVICE, uri, version="1.0", category="examples")
        for answer in await greet_others(app, own):
            click.echo(answer)
        await app.on_termination(partial(say_goodbye, name))
        click.echo(f"{name} offers {SERVICE!r} at {uri}; Ctrl-C ends it")
        await app.until_ended()


@click.command()
@click.option("--platform", default="http://127.0.0.1:8081", show_default=True, help="Address of the MEC platform.")
@click.option("--name", default="greeter", show_default=True, help="What this greeter calls itself.")
def main(platform: str, name: str) -> None:
    """Offer a greeting and greet the other greeters."""
    try:
        asyncio.run(run(platform, name))
    except MecError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("bye")


if __name__ == "__main__":
    main()
