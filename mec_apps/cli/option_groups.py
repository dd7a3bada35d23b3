"""Commands with many options, in groups: each is a section of the help, and one argument of the command's function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import click

Command: TypeAlias = Callable[..., None]


class GroupedOption(click.Option):
    """An option that knows the section in which the help shows it."""

    def __init__(self, *args: Any, group: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """Shows its options by group, those of no group last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click for --help."""
        sections: dict[str, list[tuple[str, str]]] = {}
        last: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                rows = sections.setdefault(parameter.group, []) if isinstance(parameter, GroupedOption) else last
                rows.append(record)
        for title, rows in [*sections.items(), ("Other options", last)]:
            with formatter.section(title):
                formatter.write_dl(rows)


def option_group(
    argument: str, make: Callable[..., Any], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """A decorator that adds these options and hands what `make`, whose parameters are named like them, makes of them
    to the command as `argument`."""
    names = tuple(inspect.signature(make).parameters)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collect(**values: Any) -> None:
            own = {name: values.pop(name) for name in names}
            command(**{argument: make(**own)}, **values)

        decorated: Command = collect
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def options_of(group: str) -> Callable[..., Callable[[Command], Command]]:
    """`click.option` for the options of one group."""
    return functools.partial(click.option, cls=GroupedOption, group=group)
