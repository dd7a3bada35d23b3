"""Renders a model's chat template, a Jinja program that came with the weights, in a sandbox.

The names that templates may use are those that published ones are written for: `messages`, `add_generation_prompt`,
`bos_token`, `eos_token`, `tools` and `documents` (always none), `raise_exception`, `strftime_now`, the filter `tojson`,
`break` and `continue`, and `generation` blocks. What it may reach is plain values, and what it may write is bounded; how
long it computes is not, so a template deserves the trust that one has in the model's source.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mec_platform.domain.errors import MendableError

# For models without a template, which were not trained on conversations either: a script that they can go on with.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}Assistant:"
)

# Twice the text of a million tokens, the longest contexts there are, at four characters a token.
_MAX_CHARS = 8_000_000

_RUN_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)


class ChatTemplateError(MendableError, ValueError):
    """The chat template is broken, or refuses this conversation (its own words are in the message)."""


class ChatTemplate:
    """A compiled template; an empty source stands for `PLAIN_TEMPLATE`."""

    def __init__(self, source: str, bos_token: str, eos_token: str, now: Callable[[], datetime]) -> None:
        """Compiles with the whitespace rules that published templates are written for; raises ChatTemplateError."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "tools": None,
            "documents": None,
            "raise_exception": _refuse_conversation,
            "strftime_now": lambda form: now().strftime(form),
        }
        try:
            self._template = environment.from_string(source if source.strip() else PLAIN_TEMPLATE)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ChatTemplateError(f"the model's chat template is broken: {error}") from error

    def render(self, turns: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation, each turn with its `role` and `content`.

        Raises:
            ChatTemplateError: the template fails, refuses, or writes too much.
        """
        parts: list[str] = []
        chars = 0
        for part in self._generate(turns, add_generation_prompt):
            chars += len(part)
            if chars > _MAX_CHARS:
                raise ChatTemplateError(
                    f"the model's chat template writes more than {_MAX_CHARS} characters; send a shorter conversation"
                )
            parts.append(part)
        return "".join(parts)

    def _generate(self, turns: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> Iterator[str]:
        try:
            yield from self._template.generate(messages=turns, add_generation_prompt=add_generation_prompt)
        except _RUN_ERRORS as error:
            raise ChatTemplateError(f"the model's chat template cannot format these messages: {error}") from error


class _GenerationBlock(Extension):
    """`{% generation %}` marks what a model is trained to write; here its body is written as it is."""

    tags = {"generation"}  # noqa: RUF012 - the base class's form

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse_conversation(message: str) -> NoReturn:
    """`raise_exception` of a template."""
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """JSON as it is, where Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
