"""A policy as a table of tables, as it stands in a policy file or in a scenario's `[deployment.policy]`.

`KEYS` is the one list of what may be said: where it goes, of what kind it is, and what makes sense. Reading, printing and
comparing policies all go by it. Counterpart: `policy_file` reads files; this module touches none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from math import inf, isfinite
from typing import Any, Literal

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.domain.errors import MendableError

Kind = Literal["whole", "number", "names"]
Value = int | float | frozenset[str]


class PolicyError(MendableError):
    """A policy cannot be used; the message names the file, the key and what to write there."""


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that a policy may say. `target` is where in `ControlSettings` it goes; numbers are in [low, high]."""

    section: str
    name: str
    target: str
    kind: Kind = "number"
    low: float = 0.0
    high: float = inf

    @property
    def path(self) -> str:
        """As people write it: `qos.tpot_ms`."""
        return f"{self.section}.{self.name}" if self.section else self.name


def _change(name: str, kind: Kind = "number", low: float = 0.0, high: float = inf) -> Key:
    return Key("change", name, f"policy.{name}", kind, low, high)


KEYS: tuple[Key, ...] = (
    Key("", "priority", "priority", "whole", -1000, 1000),
    Key("objective", "alpha", "planning.alpha"),
    Key("objective", "beta", "planning.beta"),
    Key("objective", "throughput", "planning.throughput"),
    Key("objective", "gamma_ms", "planning.gamma_ms"),
    Key("qos", "ttft_ms", "policy.qos.ttft_ms"),
    Key("qos", "tpot_ms", "policy.qos.tpot_ms"),
    Key("qos", "tokens_per_s", "policy.qos.tokens_per_s"),
    Key("trust", "first_blocks", "planning.trusted_first_blocks", "whole", 0, 1000),
    Key("trust", "last_blocks", "planning.trusted_last_blocks", "whole", 1, 1000),
    Key("trust", "untrusted_nodes", "policy.distrust.nodes", "names"),
    Key("trust", "untrusted_sites", "policy.distrust.sites", "names"),
    Key("replicas", "min", "policy.replicas.min", "whole", 1, 100),
    Key("replicas", "max", "policy.replicas.max", "whole", 1, 100),
    Key("replicas", "standbys", "policy.replicas.standbys", "whole", 0, 3),
    Key("admission", "max_sessions", "policy.admission.max_sessions", "whole"),
    Key("admission", "queue", "policy.admission.queue", "whole"),
    Key("admission", "kv_tokens", "planning.kv_tokens_reserved", "whole"),
    _change("expected_nodes", "whole", 1, 100_000),
    _change("cooldown_s"),
    _change("cooldown_growth", low=1),
    _change("calm_s"),
    _change("longest_cooldown_s"),
    _change("min_link_bytes_per_s"),
    _change("link_drop_share", high=1),
    _change("slow_node_factor", low=1),
    _change("busy_share", high=1),
    _change("horizon_s", low=0.1),
    _change("margin", high=100),
    _change("triggered_margin", high=100),
    _change("min_gain_share", high=1),
    _change("triggered_min_gain_share", high=1),
    _change("steady_s"),
    _change("trouble_memory_s", low=0.1),
    _change("min_link_confidence", high=1),
    _change("min_forecast_confidence", high=1),
    _change("switch_lead_s"),
    _change("budget_changes", "whole"),
    _change("budget_pause_ms"),
    _change("budget_bytes"),
    _change("budget_period_s", low=1),
    _change("demand_s"),
    _change("relief_s"),
    _change("relief_share", high=1),
    _change("fixed_switch_ms"),
    _change("pause_ms_per_session"),
    _change("assumed_tokens_per_s", low=0.001),
    _change("default_link_bytes_per_s", low=1),
    _change("retry_s", low=0.1),
    _change("longest_retry_s", low=0.1),
)
SECTIONS = tuple(dict.fromkeys(key.section for key in KEYS if key.section))


def read_policy(
    table: Mapping[str, object], base: ControlSettings | None = None, where: str = "policy"
) -> ControlSettings:
    """The settings that `table` asks for; what it does not say is as in `base`, or as built in.

    Raises:
        PolicyError: a key is unknown, or its value is of the wrong kind or makes no sense; `where` begins the message.
    """
    settings = base or ControlSettings()
    for section, name, value in _entries(table, where):
        settings = _set(settings, _key(section, name, where).target.split("."), _value(section, name, value, where))
    replicas = settings.policy.replicas
    if replicas.min > replicas.max:
        raise PolicyError(
            f"{where}: replicas.min is {replicas.min} and replicas.max {replicas.max}; write a max of {replicas.min} or more"
        )
    return settings


def policy_table(settings: ControlSettings) -> dict[str, Any]:
    """The whole policy as the table that would say it."""
    table: dict[str, Any] = {}
    for key in KEYS:
        value = _get(settings, key)
        place = table.setdefault(key.section, {}) if key.section else table
        place[key.name] = sorted(value) if isinstance(value, frozenset) else value
    return table


@cache
def policy_marks(settings: ControlSettings) -> tuple[tuple[str, str], ...]:
    """What a policy says that is not built in: path and value as text, in the order of `KEYS`."""
    built_in = ControlSettings()
    return tuple((key.path, _text(value)) for key in KEYS if (value := _get(settings, key)) != _get(built_in, key))


def changed_marks(before: tuple[tuple[str, str], ...], after: tuple[tuple[str, str], ...]) -> str:
    """In words what differs between two policies: `qos.tpot_ms 50 -> 30`."""
    old, new, built_in = dict(before), dict(after), ControlSettings()
    usual = {key.path: _text(_get(built_in, key)) for key in KEYS}
    return ", ".join(
        f"{path} {old.get(path, usual[path])} -> {new.get(path, usual[path])}"
        for path in usual
        if old.get(path) != new.get(path)
    )


def _entries(table: Mapping[str, object], where: str) -> Iterator[tuple[str, str, object]]:
    for name, value in table.items():
        if name not in SECTIONS:
            yield "", name, value
        elif isinstance(value, Mapping):
            for inner, entry in value.items():
                yield name, str(inner), entry
        else:
            raise PolicyError(f"{where}: {name} is a table; write [{name}] and its keys below it")


def _key(section: str, name: str, where: str) -> Key:
    found = next((key for key in KEYS if (key.section, key.name) == (section, name)), None)
    if found is not None:
        return found
    names = [key.name for key in KEYS if key.section == section] + ([] if section else list(SECTIONS))
    path = f"{section}.{name}" if section else name
    elsewhere = next((key.path for key in KEYS if key.name == name), None)
    close = [elsewhere] if elsewhere else get_close_matches(name, names, n=1)
    advice = f"write {close[0]}" if close else f"write one of {', '.join(names)}"
    raise PolicyError(f"{where}: there is no key {path}; {advice}")


def _value(section: str, name: str, value: object, where: str) -> Value:
    key = _key(section, name, where)
    if key.kind == "names":
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
            raise PolicyError(f'{where}: {key.path} is {value!r}; write a list of names, as {key.name} = ["edge-3"]')
        return frozenset(value)
    whole = key.kind == "whole"
    fits = isinstance(value, int) if whole else isinstance(value, int | float)
    if isinstance(value, bool) or not fits:
        raise PolicyError(f"{where}: {key.path} is {value!r}; write {_range(key)}")
    assert isinstance(value, int | float)
    if not isfinite(value) or not key.low <= value <= key.high:
        raise PolicyError(f"{where}: {key.path} is {value}; write {_range(key)}")
    return int(value) if whole else float(value)


def _range(key: Key) -> str:
    kind = "a whole number" if key.kind == "whole" else "a number"
    return f"{kind} of {key.low:g} or more" if key.high == inf else f"{kind} from {key.low:g} to {key.high:g}"


def _get(settings: ControlSettings, key: Key) -> Value:
    found: Any = settings
    for name in key.target.split("."):
        found = getattr(found, name)
    value: Value = found
    return value


def _set(settings: Any, path: list[str], value: Value) -> Any:
    name, *rest = path
    return replace(settings, **{name: _set(getattr(settings, name), rest, value) if rest else value})


def _text(value: Value) -> str:
    return "[" + ", ".join(sorted(value)) + "]" if isinstance(value, frozenset) else f"{value:g}"
