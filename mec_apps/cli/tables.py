"""Tables on the terminal, as wide as what is in them: ids are whole, because other commands take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 10_000
"""Wider than any line; a terminal that is narrower breaks lines, as it does for everything else."""


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows under headings."""
    print_made(make_table(headings, rows))


def print_made(table: Table) -> None:
    """Prints a table that was made by `make_table`."""
    Console(width=_WIDE).print(table)


def make_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Rows under headings. What others chose is neither read as markup nor moves the terminal's cursor."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading.upper())
    for row in rows:
        table.add_row(*(Text(printable(str(each))) for each in row))
    return table


def printable(text: str) -> str:
    """What strangers have chosen, without what would move a terminal's cursor or begin a line."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
