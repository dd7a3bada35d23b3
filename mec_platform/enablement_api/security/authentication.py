"""The gate in front of every handler: who asks, how often, whether its token permits it, whether the resource is its own.

It goes by the rows of `operations` and knows no path. Its counterparts are `token_endpoint`, where tokens come from, and
`callers`, which tells handlers who asks. Where authentication is off it notes who is asked for, and counts requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.operations import Operation, operation_of
from mec_platform.enablement_api.problem_details import Forbidden, TooManyRequests, Unauthenticated
from mec_platform.enablement_api.security.bearer import NoToken, read_grant
from mec_platform.enablement_api.security.callers import CALLER, Caller
from mec_platform.enablement_api.security.peer_certificates import peer_certificate
from mec_platform.enablement_api.security.rate_limit import RateLimiter
from mec_platform.enablement_api.security.session import SESSION_COOKIE, SESSION_PATHS, sign_in_redirect
from mec_platform.enablement_api.security.tokens import Grant, InvalidToken, TokenCache
from mec_platform.registry.actor import ANONYMOUS, current_actor
from mec_platform.registry.errors import UnknownAppInstance
from mec_platform.registry.registry import Registry

REALM = 'Bearer realm="mec"'


class Gate:
    """Decides about each request, before its handler sees it. Without `tokens` everybody may do everything.

    `open_prefixes` begin the paths of pages, as against operations, that are open to everyone.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        tokens: TokenCache | None,
        limiter: RateLimiter | None,
        address_of: Callable[[web.Request], str],
        open_prefixes: tuple[str, ...] = (),
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._limiter = limiter
        self._address_of = address_of
        self._open_prefixes = open_prefixes

    def check(self, request: web.Request) -> None:
        """Notes who asks; raises what `problem_details` has an answer for where the request may not be made.

        A redirection to the sign-in page is raised too, for browsers.
        """
        current_actor.set(ANONYMOUS)
        if self._tokens is None:
            self._count(request, None)
            return
        operation = operation_of(request)
        resource = request.match_info.route.resource
        if resource is None or (operation is not None and operation.scope is None):
            self._count(request, None)
        elif operation is not None:
            self._check_operation(request, operation)
        elif resource.canonical in SESSION_PATHS or resource.canonical.startswith(self._open_prefixes):
            self._count(request, None)
        else:
            self._check_page(request)

    def _check_operation(self, request: web.Request, operation: Operation) -> None:
        assert operation.scope is not None
        caller = self._authenticate(request, request.headers.getall("Authorization", []))
        if operation.scope not in caller.scopes:
            raise Forbidden(
                f"the token lacks the scope {operation.scope}",
                f'{REALM}, error="insufficient_scope", scope="{operation.scope}"',
            )
        app_instance_id = request.match_info.get("appInstanceId")
        if app_instance_id is None or Scope.ADMIN in caller.scopes:
            return
        app = self._registry.state.apps.get(app_instance_id)
        if app is None:
            raise UnknownAppInstance(app_instance_id)
        if app.owner != caller.client_id:
            raise Forbidden(f"application instance {app_instance_id!r} belongs to another client")

    def _check_page(self, request: web.Request) -> None:
        """A resource that is no operation, such as the dashboard: for administrators, who may come with a session cookie.

        The cookie opens reading only: another site's form can make a browser send it.
        """
        lines = request.headers.getall("Authorization", [])
        cookie = request.cookies.get(SESSION_COOKIE, "")
        if not lines and cookie and request.method in ("GET", "HEAD"):
            lines = [f"Bearer {cookie}"]
        try:
            caller = self._authenticate(request, lines)
        except Unauthenticated:
            sign_in_redirect(request)
            raise
        if Scope.ADMIN not in caller.scopes:
            raise Forbidden(f"this is for tokens with the scope {Scope.ADMIN}")

    def _authenticate(self, request: web.Request, lines: list[str]) -> Caller:
        try:
            grant = self._read_grant(request, lines)
        except Unauthenticated:
            self._count(request, None)
            raise
        caller = request[CALLER] = Caller(grant.client_id, grant.scopes)
        current_actor.set(caller.client_id)
        self._count(request, caller)
        return caller

    def _read_grant(self, request: web.Request, lines: list[str]) -> Grant:
        assert self._tokens is not None
        now_s = self._registry.clock.unix_ns() / 1e9
        try:
            return read_grant(lines, peer_certificate(request), self._tokens, self._registry.state, now_s)
        except NoToken as error:
            raise Unauthenticated(str(error), REALM) from error
        except InvalidToken as error:
            challenge = f'{REALM}, error="invalid_token", error_description="{error}"'
            raise Unauthenticated(str(error), challenge) from error

    def _count(self, request: web.Request, caller: Caller | None) -> None:
        if self._limiter is None:
            return
        name = f"client {caller.client_id}" if caller else f"address {self._address_of(request)}"
        wait_s = self._limiter.take(name, self._registry.clock.monotonic_s())
        if wait_s > 0:
            raise TooManyRequests("too many requests; slow down", math.ceil(wait_s))


def client_address(request: web.Request, behind_proxy: bool) -> str:
    """Where a request comes from. Behind a proxy that is what the proxy has added last, all else can be made up."""
    if behind_proxy:
        forwarded = request.headers.getall("X-Forwarded-For", [])
        if forwarded:
            return forwarded[-1].rpartition(",")[2].strip()
    return request.remote or "unknown"
