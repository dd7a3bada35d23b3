"""How an administrator's browser gets at pages that are no API, such as the dashboard: sign in once, then a cookie.

The cookie holds an access token. `authentication` takes it for reading pages only, never for an API, so that no other site
can make a browser change anything.
"""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.security.client_check import ClientCheck, TooManyFailures, WrongSecret
from mec_platform.enablement_api.security.forms import FormError, read_form
from mec_platform.enablement_api.security.token_issuer import ForeignCertificate, TokenIssuer

SESSION = "/session"
SESSION_END = "/session/end"
SESSION_PATHS = frozenset({SESSION, SESSION_END})
SESSION_COOKIE = "mec_session"
AFTERWARDS = "/dashboard/"

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>MEC platform: sign in</title>
<style>body{{font:16px system-ui;max-width:22rem;margin:15vh auto;padding:0 1rem}}
label,input,button{{display:block;width:100%;margin:.4rem 0;font:inherit;box-sizing:border-box}}</style>
<h1>MEC platform</h1><p role="alert">{reason}</p>
<form method="post" action="/session">
<label>Client id <input name="client_id" autocomplete="username" required></label>
<label>Secret <input name="client_secret" type="password" autocomplete="current-password" required></label>
<button>Sign in</button></form></html>
"""


def sign_in_redirect(request: web.Request) -> None:
    """Sends a browser that wants to show a page to where it can sign in; does nothing for other clients.

    Raises:
        HTTPSeeOther: it is a browser.
    """
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        raise web.HTTPSeeOther(SESSION)


class Session:
    """The page and its form. `secure`: the platform is reached over TLS, and the cookie must not go over anything else."""

    def __init__(self, clients: ClientCheck, issuer: TokenIssuer, *, secure: bool) -> None:
        self._clients = clients
        self._issuer = issuer
        self._secure = secure

    def add_routes(self, app: web.Application) -> None:
        """These are pages for browsers, no operations."""
        app.router.add_get(SESSION, self.show)
        app.router.add_post(SESSION, self.begin)
        app.router.add_post(SESSION_END, self.end)

    async def show(self, request: web.Request) -> web.Response:
        """The form."""
        return _page("")

    async def begin(self, request: web.Request) -> web.Response:
        """Checks id and secret, and sets the cookie."""
        try:
            form = await read_form(request)
            client = self._clients.check(request, form.get("client_id", ""), form.get("client_secret", ""))
        except (FormError, WrongSecret) as error:
            return _page(str(error), HTTPStatus.UNAUTHORIZED)
        except TooManyFailures as error:
            return _page(str(error), HTTPStatus.TOO_MANY_REQUESTS)
        if Scope.ADMIN not in client.scopes:
            return _page(f"this client has not got the scope {Scope.ADMIN}", HTTPStatus.FORBIDDEN)
        try:
            token, life_s = await self._issuer.issue(request, client.client_id, frozenset({Scope.ADMIN}))
        except ForeignCertificate as error:
            return _page(str(error), HTTPStatus.UNAUTHORIZED)
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={**_HEADERS, "Location": AFTERWARDS})
        response.set_cookie(
            SESSION_COOKIE, token, max_age=life_s, httponly=True, secure=self._secure, samesite="Strict", path="/"
        )
        return response

    async def end(self, request: web.Request) -> web.Response:
        """Takes the cookie back."""
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={**_HEADERS, "Location": SESSION})
        response.del_cookie(SESSION_COOKIE, path="/")
        return response


def _page(reason: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(
        status=status,
        text=_PAGE.format(reason=escape(reason)),
        content_type="text/html",
        charset="utf-8",
        headers=_HEADERS,
    )
