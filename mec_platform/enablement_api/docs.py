"""Serves the OpenAPI document of an application, and Swagger UI over it: no file of theirs comes from another server.

Swagger UI itself is the package `swagger-ui-bundle-v2`; the page and the script that starts it lie in `static`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from swagger_ui_bundle import swagger_ui_path

from mec_platform.enablement_api.openapi import JsonObject, make_document
from mec_platform.enablement_api.operations import JSON, Operation

_OWN: Traversable = files("mec_platform.enablement_api") / "static"
_ASSETS: dict[str, tuple[Traversable, str]] = {
    "swagger-ui.css": (swagger_ui_path, "text/css"),
    "swagger-ui-bundle.js": (swagger_ui_path, "text/javascript"),
    "docs.js": (_OWN, "text/javascript"),
}

_PAGE_HEADERS = {
    # Swagger UI sets style attributes and draws its icons from data URIs; nothing else is let in, nor out.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Documents:
    """The document of `operations`, a live view: it is made when somebody first asks for it, and may grow until then."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = operations
        self._encoded: bytes | None = None

    def operations(self) -> list[Operation]:
        """The document and the page."""
        row = partial(Operation, tag="Platform", scope=None, method="GET")
        return [
            row(
                path="/openapi.json",
                operation_id="getOpenapiDocument",
                summary="Read this document",
                handler=self.get_document,
                answers={HTTPStatus.OK: JsonObject},
            ),
            row(
                path="/docs",
                operation_id="getDocumentation",
                summary="Read this document in a browser, and try out what it describes",
                handler=self.get_page,
                answers={HTTPStatus.OK: str},
                media_type="text/html",
            ),
        ]

    def assets(self) -> list[web.RouteDef]:
        """What the page loads."""
        return [web.get(f"/docs/{name}", _asset_handler(name)) for name in _ASSETS]

    def document(self) -> JsonObject:
        """OpenAPI 3.1, of all operations that have been added so far."""
        return make_document(self._operations, _version())

    async def get_document(self, request: web.Request) -> web.Response:
        """OpenAPI 3.1, in JSON."""
        if self._encoded is None:
            self._encoded = msgspec.json.encode(self.document())
        return web.Response(body=self._encoded, content_type=JSON)

    async def get_page(self, request: web.Request) -> web.Response:
        """Swagger UI."""
        page = (_OWN / "docs.html").read_bytes()
        return web.Response(body=page, content_type="text/html", charset="utf-8", headers=_PAGE_HEADERS)


def _version() -> str:
    try:
        return version("mec-platform")
    except PackageNotFoundError:
        return "from source"


def _asset_handler(name: str) -> Handler:
    folder, content_type = _ASSETS[name]

    async def get_asset(request: web.Request) -> web.Response:
        headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
        content = (folder / name).read_bytes()
        return web.Response(body=content, content_type=content_type, charset="utf-8", headers=headers)

    return get_asset
