"""Reads the file that says which hosts there are and where (`mec serve --localities FILE`). Its counterpart is `LocalityTree`.

TOML: one table per area, `[[mec_systems]]`, `[[zone_groups]]`, `[[zones]]`, `[[nfvi_pops]]`, `[[mec_hosts]]`,
`[[nfvi_nodes]]`, each with its `name` and at most one area that it lies in, such as `zone = "harbour"`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mec_platform.domain.locality import WIDENING, Area, LocalityError, LocalityTree, LocalityType

_TABLES = {f"{kind.attribute}s": kind for kind in WIDENING}
_PARENTS = {kind.attribute: kind for kind in WIDENING}


def read_locality_tree(path: Path) -> LocalityTree:
    """Raises LocalityError, which names the file and the entry, where the file cannot be read or makes no tree."""
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise LocalityError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalityError(f"{path} is no TOML file: {error}") from error
    try:
        return LocalityTree.grow(area for name, entries in tables.items() for area in _areas(name, entries))
    except LocalityError as error:
        raise LocalityError(f"{path}: {error}") from error


def _areas(table: str, entries: Any) -> list[Area]:
    if table not in _TABLES:
        raise LocalityError(f"unknown table {table!r}; known: {', '.join(_TABLES)}")
    if not isinstance(entries, list):
        raise LocalityError(f"write [[{table}]], one table for each, not [{table}]")
    return [_area(f"{table}[{number}]", _TABLES[table], entry) for number, entry in enumerate(entries)]


def _area(where: str, kind: LocalityType, entry: Any) -> Area:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise LocalityError(f"{where}: every attribute is a text in quotation marks")
    unknown = [key for key in entry if key != "name" and key not in _PARENTS]
    if unknown:
        raise LocalityError(f"{where}: unknown attribute {unknown[0]!r}; known: name, {', '.join(_PARENTS)}")
    parents = [(_PARENTS[key], value) for key, value in entry.items() if key != "name"]
    if len(parents) > 1:
        raise LocalityError(f"{where}: name the narrowest area that it lies in, not several")
    try:
        return Area(kind, entry.get("name", ""), parents[0] if parents else None)
    except LocalityError as error:
        raise LocalityError(f"{where}: {error}") from error
