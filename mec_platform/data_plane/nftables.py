"""Traffic rules enforced by the kernel: the shell around `nft_ruleset`. Runs `nft`, and `ip` where a rule names a MAC address.

It touches the tables called `mec` alone. They stay when the platform ends, so traffic is treated the same during a restart.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence

from mec_platform.data_plane.nft_ruleset import Link, check_interface, compile_ruleset
from mec_platform.data_plane.port import DataPlaneError, DataPlaneRules, Refusal, RuleKind
from mec_platform.domain.rules import InterfaceType

_TIMEOUT_S = 60
"""The kernel takes a second for a thousand rules, ten and more where each has sets of addresses, protocols and ports."""


class NftablesDataPlane:
    """Implements `DataPlane` for traffic rules, about packets that arrive at these interfaces: all that carry users' traffic,
    towards the users and towards the network. `prefix` begins every command, such as `ip netns exec NAME`.

    Raises:
        DataPlaneError: no interface, or a name that none can have.
    """

    name = "nftables"
    enforces = frozenset({RuleKind.TRAFFIC})

    def __init__(self, interfaces: Sequence[str], prefix: Sequence[str] = ()) -> None:
        try:
            self._interfaces = tuple(dict.fromkeys(check_interface(name) for name in interfaces))
        except ValueError as error:
            raise DataPlaneError(f"{error}; name those that carry users' traffic: nftables:eth1,eth2") from error
        self._prefix = tuple(prefix)
        self._tables: frozenset[str] = frozenset()

    def apply(self, rules: DataPlaneRules) -> tuple[Refusal, ...]:
        """Replaces all tables of ours in one transaction of the kernel.

        Raises:
            DataPlaneError: nft is not there or may not change rules, or refuses these; the kernel keeps the last ones.
        """
        ruleset = compile_ruleset(rules, self._interfaces, self._read_links() if _names_mac(rules) else ())
        self._run(["nft", "-f", "-"], ruleset.script)
        self._tables = ruleset.tables
        return ruleset.refusals

    def is_intact(self) -> bool:
        """Whether our tables are there: what restarts a firewall likes to flush all of them. Raises DataPlaneError."""
        present = set(self._run(["nft", "list", "tables"]).splitlines())
        return all(f"table {table}" in present for table in self._tables)

    def _read_links(self) -> list[Link]:
        links = json.loads(self._run(["ip", "-json", "link"]))
        return [Link(link["ifname"], link.get("address", "")) for link in links]

    def _run(self, command: Sequence[str], script: str = "") -> str:
        try:
            done = subprocess.run(
                [*self._prefix, *command],
                input=script,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=True,
                # Where nft and ip lie is not on the path of every user who may run them.
                env=os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            raise DataPlaneError(
                f"{error.filename} is not installed; install the packages nftables and iproute2"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DataPlaneError(
                f"{command[0]} did not answer within {_TIMEOUT_S} s; see what else changes rules"
            ) from error
        except subprocess.CalledProcessError as error:
            said = (error.stderr.strip() or f"it ended with code {error.returncode}").splitlines()[0]
            raise DataPlaneError(
                f"{command[0]} refuses: {said}; the platform must run as root or with the capability NET_ADMIN"
            ) from error
        except OSError as error:
            raise DataPlaneError(f"{command[0]} cannot be run: {error.strerror}") from error
        return done.stdout


def _names_mac(rules: DataPlaneRules) -> bool:
    return any(
        destination.type is InterfaceType.MAC for each in rules.traffic for destination in each.rule.destinations
    )
