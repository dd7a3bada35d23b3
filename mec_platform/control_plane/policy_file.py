"""Policy files: one default policy and what single deployments have otherwise, in TOML.

    [default.objective]
    gamma_ms = 8.0

    [deployment.chat]
    priority = 10
    [deployment.chat.qos]
    tpot_ms = 50

Deployments are called as their models are. `policy_table` says which keys there are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.policy_table import PolicyError, read_policy

LARGEST_POLICY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of every deployment: its own where the file names it, else the default."""

    default: ControlSettings = field(default_factory=ControlSettings)
    by_deployment: Mapping[str, ControlSettings] = field(default_factory=dict)

    def of(self, deployment: str) -> ControlSettings:
        """The settings of the deployment of that name."""
        return self.by_deployment.get(deployment, self.default)


def read_policies(path: Path, base: ControlSettings | None = None) -> Policies:
    """Reads a policy file; what it does not say is as in `base`, or as built in.

    Raises:
        PolicyError: the file cannot be read, or a key of it cannot be used.
    """
    try:
        if path.stat().st_size > LARGEST_POLICY_BYTES:
            raise PolicyError(f"{path}: more than {LARGEST_POLICY_BYTES >> 20} MiB")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"{path}: {error}") from error
    for name in table.keys() - {"default", "deployment"}:
        raise PolicyError(f"{path}: there is no table {name}; write [default.{name}] or [deployment.NAME.{name}]")
    default = read_policy(_table(table.get("default", {}), path, "default"), base, f"{path}: default")
    deployments = _table(table.get("deployment", {}), path, "deployment")
    return Policies(
        default,
        {
            name: read_policy(_table(entry, path, f"deployment.{name}"), default, f"{path}: deployment.{name}")
            for name, entry in deployments.items()
        },
    )


def _table(value: object, path: Path, name: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"{path}: {name} is {value!r}; write it as a table, [{name}.qos] for one")
    return value
