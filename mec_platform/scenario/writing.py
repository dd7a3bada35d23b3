"""A scenario as the TOML file that `read_scenario` reads. Says only what differs from what is built in."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from mec_platform.scenario.scenario import GIVEN_TRACE, Scenario


def scenario_toml(scenario: Scenario, folder: Path) -> str:
    """The file's text; paths of traces are relative to `folder`, where it will lie."""
    moved = os.path.relpath(scenario.folder or ".", folder)
    links = tuple(
        replace(link, bandwidth=_moved(link.bandwidth, moved), radio=_moved(link.radio, moved))
        for link in scenario.links
    )
    deployments = tuple(
        replace(spec, demand=replace(spec.demand, trace=_moved(spec.demand.trace, moved)))
        for spec in scenario.deployments
    )
    table = msgspec.to_builtins(replace(scenario, links=links, deployments=deployments, folder=""))
    return "\n".join(_table(table, ())).strip() + "\n"


def policy_toml(policy: Mapping[str, Any]) -> str:
    """A policy table as the policy file that says it of every deployment."""
    return "\n".join(_table({"default": policy}, ())).strip() + "\n"


def _moved(path: str, folder: str) -> str:
    return path if path in ("", GIVEN_TRACE) or os.path.isabs(path) else os.path.normpath(os.path.join(folder, path))


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Plain values first, as TOML wants it; tables and lists of tables after them."""
    inner = []
    for key, value in table.items():
        if isinstance(value, Mapping) or (_is_list(value) and value and isinstance(value[0], Mapping)):
            inner.append((key, value))
        elif value is not None:
            yield f"{key} = {_value(value)}"
    for key, value in inner:
        name = ".".join((*path, key))
        for entry in (value,) if isinstance(value, Mapping) else value:
            lines = list(_table(entry, (*path, key)))
            if not lines and isinstance(value, Mapping):
                continue
            yield from ("", f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]", *lines)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case _ if isinstance(value, Sequence):
            return f"[{', '.join(_value(each) for each in value)}]"
    raise TypeError(f"{value!r} is nothing that a scenario holds")


def _text(value: str) -> str:
    """A basic string: JSON's escapes are all TOML's."""
    return msgspec.json.encode(value).decode()
