"""Serves the dashboard: static files that poll one JSON document.

The page in `static/` is its counterpart. It holds no state; `state_source` says what there is to show, in the shape that
`platform_state` documents by example.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc.aio
import msgspec
from aiohttp import web

StateSource = Callable[[], Awaitable[dict[str, Any]]]

_STATIC: Final = Path(__file__).parent / "static"

# Every file is named here: nothing else in the folder is served, and content types do not depend on the host's tables.
_FILES: Final = {
    "": ("index.html", "text/html"),
    "style.css": ("style.css", "text/css"),
    "app.js": ("app.js", "text/javascript"),
    "sections.js": ("sections.js", "text/javascript"),
    "elements.js": ("elements.js", "text/javascript"),
    "quantities.js": ("quantities.js", "text/javascript"),
}

# Nothing comes from or goes to another host, and no text from the platform can become script.
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_log = logging.getLogger(__name__)


def add_dashboard_routes(app: web.Application, state_source: StateSource) -> None:
    """Adds `/dashboard/` (the page) and `/dashboard/state` (what it shows) to `app`.

    Where `state_source` raises a gRPC error, an OSError or a TimeoutError, the platform cannot be reached: the state is
    answered with 503 and the reason, and the page says so.
    """

    async def show_state(_: web.Request) -> web.Response:
        try:
            return _json(await state_source(), 200)
        except (grpc.RpcError, OSError) as error:  # TimeoutError is an OSError
            _log.debug("no state for the dashboard", exc_info=error)
            return _json({"error": _describe(error)}, 503)

    async def redirect_to_page(_: web.Request) -> web.Response:
        raise web.HTTPPermanentRedirect("/dashboard/")

    app.router.add_get("/dashboard", redirect_to_page)
    app.router.add_get("/dashboard/state", show_state)
    for name, (file, content_type) in _FILES.items():
        app.router.add_get(f"/dashboard/{name}", _serve_file((_STATIC / file).read_bytes(), content_type))


def _serve_file(body: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)

    return serve


def _json(document: dict[str, Any], status: int) -> web.Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    body = msgspec.json.encode(document)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _describe(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
