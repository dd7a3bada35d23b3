"""Serves an application so that even what is not HTTP gets problem details: aiohttp answers such requests itself, before
any middleware, in plain text and with a traceback in the log.

The counterpart of `problem_details`, which sees every request that could be parsed.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from mec_platform.enablement_api.problem_details import problem_response

logger = logging.getLogger(__name__)

LONGEST_LINE_BYTES = 16 * 1024
"""Of the request line: room for a target that is told to be too long in the application's own words."""

LONGEST_HEADER_BYTES = 8 * 1024
"""Name and value. Tokens are the longest headers that clients send, and have a tenth of this."""


class EnablementRunner(web.AppRunner):
    """An `AppRunner`; its sites answer garbage with problem details."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, max_line_size=LONGEST_LINE_BYTES, max_field_size=LONGEST_HEADER_BYTES, **options)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ProblemServer(made.request_handler, made.request_factory, self._kwargs)


class _ProblemServer(web.Server):
    def __init__(self, handler: Any, request_factory: Any, options: dict[str, Any]) -> None:
        super().__init__(handler, request_factory=request_factory, **options)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _ProblemProtocol(self, loop=asyncio.get_running_loop(), **self._options)


class _ProblemProtocol(web.RequestHandler):
    """One connection. What it answers here ends it: nobody knows where the next request would begin."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp where it cannot hand a request to the application."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("a request failed before the platform could answer it", exc_info=exc)
            answer = problem_response(
                "/", HTTPStatus(status), "the platform failed to handle this request; its log says why"
            )
        elif isinstance(exc, LineTooLong):
            answer = problem_response("/", *_of_long_line(exc))
        else:
            logger.debug("no HTTP from %s: %s", request.remote, message)
            answer = problem_response("/", HTTPStatus(status), "this is not HTTP/1.1; the connection is closed")
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Called by aiohttp, also for a body that its client has broken: that is answered, and no failure of ours."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            self.log_debug(*args, **kw)
        else:
            super().log_exception(*args, **kw)


def _of_long_line(error: LineTooLong) -> tuple[HTTPStatus, str]:
    """aiohttp reports a long request line and a long header alike; the limit that it names tells them apart."""
    if error.args[1] == LONGEST_HEADER_BYTES:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a header is longer than {LONGEST_HEADER_BYTES} bytes"
    return HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line is longer than {LONGEST_LINE_BYTES} bytes"
