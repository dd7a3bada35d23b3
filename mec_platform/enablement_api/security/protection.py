"""The parts of this folder put together, with one life: `routes` puts them on an application."""

from __future__ import annotations

import logging
from functools import partial

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.security.administration import SecurityAdministration
from mec_platform.enablement_api.security.authentication import Gate, client_address
from mec_platform.enablement_api.security.client_check import ClientCheck
from mec_platform.enablement_api.security.grpc_gate import GrpcGate
from mec_platform.enablement_api.security.key_rotation import KeyRotation
from mec_platform.enablement_api.security.rate_limit import RateLimiter
from mec_platform.enablement_api.security.session import Session
from mec_platform.enablement_api.security.settings import DEFAULT_RATE, SecuritySettings
from mec_platform.enablement_api.security.token_endpoint import TokenEndpoint
from mec_platform.enablement_api.security.token_issuer import TokenIssuer
from mec_platform.enablement_api.security.tokens import TokenCache
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.registry import Registry

logger = logging.getLogger(__name__)

OPEN_PREFIXES = ("/docs/",)
"""What the open page at /docs loads."""


class Protection:
    """Everything about who may use the REST APIs and gRPC `ServiceRegistry` of one platform, as `settings` says.

    Between `start` and `stop` signing keys are looked after; requests can be served without that.
    """

    def __init__(self, registry: Registry, credentials: Credentials, settings: SecuritySettings) -> None:
        self._settings = settings
        self.address_of = address_of = partial(client_address, behind_proxy=settings.behind_proxy)
        self._keys = KeyRotation(
            credentials,
            registry.clock,
            registry.new_id,
            period_s=settings.key_period_s,
            token_life_s=settings.token_life_s,
            leads=lambda: registry.leadership.is_leader,
        )
        issuer = TokenIssuer(
            self._keys, registry.clock, issuer=settings.issuer, life_s=settings.token_life_s, new_id=registry.new_id
        )
        clients = ClientCheck(credentials, registry.clock, address_of)
        self._endpoint = TokenEndpoint(credentials, clients, issuer)
        self._administration = SecurityAdministration(credentials, self._keys, registry.log)
        self._session = Session(clients, issuer, secure=settings.issuer.startswith("https:"))
        tokens = TokenCache(settings.issuer) if settings.authenticate else None
        rate = settings.rate or (DEFAULT_RATE if settings.authenticate else None)
        # One for both, so that a client has one rate and each of its tokens is verified once.
        limiter = None if rate is None else RateLimiter(rate)
        self.grpc_gate = GrpcGate(registry, tokens, limiter)
        self.federation_gate = GrpcGate(registry, tokens, limiter, Scope.FEDERATION)
        self._gate = Gate(
            registry,
            tokens=tokens,
            limiter=limiter,
            address_of=address_of,
            open_prefixes=OPEN_PREFIXES,
        )

    @property
    def metrics_scope(self) -> Scope | None:
        """What /metrics asks for."""
        return Scope.ADMIN if self._settings.authenticate and not self._settings.open_metrics else None

    def check(self, request: web.Request) -> None:
        """For every request, before its handler. Raises the errors of `problem_details`."""
        self._gate.check(request)

    def operations(self) -> list[Operation]:
        """The token endpoint and the administration of clients."""
        return [*self._endpoint.operations(), *self._administration.operations()]

    def add_pages(self, app: web.Application) -> None:
        """The sign-in page, where there is something to sign in to."""
        if self._settings.authenticate:
            self._session.add_routes(app)

    async def start(self) -> None:
        """Begins to look after the signing keys, and says so where nobody is asked who they are. Raises LogUnavailable."""
        if self._settings.authenticate:
            await self._keys.current()
        else:
            logger.warning(
                "authentication is off: whoever reaches the REST port may do everything; see mec serve --auth"
            )
        self._keys.start()

    async def stop(self) -> None:
        """Ends that."""
        await self._keys.stop()
