"""Which services a command is about, as its options say it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from mec_platform.domain.services import ServiceState


@dataclass(frozen=True, slots=True)
class ServiceFilters:
    """Attributes AND, values of one attribute OR, empty matches all."""

    names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    states: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.names, self.categories, self.models, self.states))

    def query(self) -> list[tuple[str, str]]:
        """As query parameters of `/registry/v1`."""
        named = {"ser_name": self.names, "ser_category_id": self.categories, "model": self.models, "state": self.states}
        return [(name, value) for name, values in named.items() for value in values]


def filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options `--name`, `--category` and `--state`, each repeatable; the command gets them as one argument `wanted`."""

    @functools.wraps(command)
    def wrapper(
        *args: Any, names: tuple[str, ...], categories: tuple[str, ...], states: tuple[str, ...], **kwargs: Any
    ) -> None:
        command(*args, wanted=ServiceFilters(names=names, categories=categories, states=states), **kwargs)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


_OPTIONS = (
    click.option("--name", "names", multiple=True, help="Only services of this name (repeatable)."),
    click.option("--category", "categories", multiple=True, help="Only services of this category's id (repeatable)."),
    click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([each.value for each in ServiceState], case_sensitive=False),
        help="Only services in this state (repeatable).",
    ),
)
