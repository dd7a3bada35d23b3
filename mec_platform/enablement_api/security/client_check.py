"""Whether somebody knows a client's secret, with a limit on how often that may be tried. Answers are the caller's affair."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from mec_platform.domain.credentials import Client
from mec_platform.enablement_api.security.rate_limit import Rate, RateLimiter
from mec_platform.registry.clock import Clock
from mec_platform.registry.credentials import Credentials

FAILURES_PER_ADDRESS = Rate(per_s=0.2, burst=10)

FAILURES_PER_CLIENT = Rate(per_s=1, burst=50)
"""More than for an address: strangers who fail in a client's name must not easily keep the client itself out."""


class WrongSecret(Exception):
    """Id or secret is wrong; which of them is not said."""


class TooManyFailures(Exception):
    """No further attempt is looked at before `wait_s` have passed."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many attempts have failed; wait before the next one")
        self.wait_s = wait_s


class ClientCheck:
    """One for all places where secrets are shown, so that their failures add up. `address_of` tells from where."""

    def __init__(self, credentials: Credentials, clock: Clock, address_of: Callable[[web.Request], str]) -> None:
        self._credentials = credentials
        self._clock = clock
        self._address_of = address_of
        self._by_address = RateLimiter(FAILURES_PER_ADDRESS)
        self._by_client = RateLimiter(FAILURES_PER_CLIENT)

    def check(self, request: web.Request, client_id: str, secret: str) -> Client:
        """The client that has this id and this secret. Raises WrongSecret, TooManyFailures."""
        address, now_s = self._address_of(request), self._clock.monotonic_s()
        wait_s = max(self._by_address.wait_s(address, now_s), self._by_client.wait_s(client_id, now_s))
        if wait_s > 0:
            raise TooManyFailures(wait_s)
        client = self._credentials.find(client_id, secret)
        if client is None:
            self._by_address.take(address, now_s)
            self._by_client.take(client_id, now_s)
            raise WrongSecret("client id or secret is wrong")
        return client
