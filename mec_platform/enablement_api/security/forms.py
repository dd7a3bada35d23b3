"""Form data in request bodies (application/x-www-form-urlencoded), read strictly: each parameter once."""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import web

FORM = "application/x-www-form-urlencoded"
MOST_PARAMETERS = 20


class FormError(Exception):
    """The body is no form, or an ambiguous one."""


async def read_form(request: web.Request) -> dict[str, str]:
    """The parameters by name. Raises FormError."""
    if request.content_type != FORM:
        raise FormError(f"the body must be {FORM}")
    try:
        text = (await request.read()).decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS, errors="strict")
    except (ValueError, web.RequestPayloadError, ConnectionError) as error:
        raise FormError("the body is no form data") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise FormError("a parameter is there more than once")
    return form
