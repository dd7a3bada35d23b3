"""Name look-ups for callbacks: every address is held against the policy before a connection to it can be opened."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

from mec_platform.enablement_api.notifications.targets import CallbackNotAllowed, CallbackPolicy, read_address

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses as text. Raises OSError where the name leads nowhere."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """Asks the machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class CheckedResolver(AbstractResolver):
    """Gives aiohttp's connector the addresses that it will connect to, so there is no second look-up to lie to.

    One forbidden address among several spoils the name: which of them would be taken is chance.
    """

    def __init__(self, policy: CallbackPolicy, look_up: LookUp = look_up) -> None:
        self._policy = policy
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises CallbackNotAllowed; OSError where the name leads nowhere."""
        results = []
        for text in await self._look_up(host, port):
            address = read_address(text)
            if address is None:
                raise CallbackNotAllowed(f"{host} was resolved to {text!r}, which is no address")
            self._policy.check_address(host, port, address)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=text,
                    port=port,
                    family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    proto=0,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not results:
            raise OSError(f"{host} has no address")
        return results

    async def close(self) -> None:
        """Holds nothing."""
