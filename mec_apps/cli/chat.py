"""`mec chat`: one question to a gateway, the answer as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import click

from mec_apps.cli.requests import CliError, json_option, print_json, run_async
from mec_apps.cli.rest_client import access_options
from mec_apps.sdk.session import Access, make_context


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A question and how to answer it; `base_url` ends in /v1."""

    base_url: str
    question: str
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    access: Access = field(default_factory=Access)


@click.command(epilog='Example: mec chat "What is multi-access edge computing?"')
@click.argument("question")
@click.option(
    "--url", default="http://127.0.0.1:8080/v1", show_default=True, envvar="MEC_GATEWAY_URL", help="The gateway."
)
@click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(0, 2), help="0 is greedy.")
@click.option("--seed", default=0, show_default=True)
@access_options
@json_option
def chat(
    question: str, url: str, max_tokens: int, temperature: float, seed: int, access: Access, as_json: bool
) -> None:
    """Ask a question and stream the answer."""
    run_async(_chat(ChatRequest(url, question, max_tokens, temperature, seed, access), as_json))


async def _chat(request: ChatRequest, as_json: bool) -> None:
    started = time.monotonic()
    pieces = []
    async for piece in stream_chat(request):
        pieces.append(piece)
        if not as_json:
            click.echo(piece, nl=False)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"text": "".join(pieces), "seconds": round(seconds, 3)})
    else:
        click.echo()


async def stream_chat(request: ChatRequest) -> AsyncIterator[str]:
    """The answer's text, piece by piece. Raises CliError with the gateway's words."""
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": request.question}],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "stream": True,
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    try:
        connector = aiohttp.TCPConnector(ssl=make_context(request.access))
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            body["model"] = await _model(http, request.base_url)
            async with http.post(f"{request.base_url}/chat/completions", json=body) as response:
                if response.status != 200:
                    raise CliError(_error_text(await response.text()))
                async for line in response.content:
                    piece = _piece(line)
                    if piece:
                        yield piece
    except aiohttp.InvalidURL as error:
        raise CliError(f"--url {request.base_url!r} is no URL; write it as in http://127.0.0.1:8080/v1") from error
    except aiohttp.ClientSSLError as error:
        raise CliError(
            f"no trust between {request.base_url} and this side: {error}; --ca names the gateway's authority, --cert and --key "
            "a certificate of the same (mec certs issue NAME --operator)"
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise CliError(
            f"no gateway answers at {request.base_url}; start one with `mec gateway` or name it with --url"
        ) from error
    except aiohttp.ClientError as error:
        # TLS 1.3 tells a client without a certificate by ending the connection.
        shows_none = request.base_url.startswith("https:") and request.access.certificate is None
        hint = "; this gateway may ask for a certificate: pass --cert and --key" if shows_none else ""
        raise CliError(f"the answer broke off: {error}{hint}") from error


async def _model(http: aiohttp.ClientSession, base_url: str) -> str:
    async with http.get(f"{base_url}/models") as response:
        models: dict[str, Any] = await response.json()
    return str(models["data"][0]["id"])


def _piece(line: bytes) -> str:
    if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
        return ""
    event = json.loads(line[6:])
    if "error" in event:
        raise CliError(event["error"]["message"])
    choices = event.get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


def _error_text(body: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300]
