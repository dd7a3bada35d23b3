"""Where the processes of a testbed run: each member in its namespace and control group, with credentials of its own.

Off loopback the platform asks for tokens over TLS, so every testbed has an authority, a certificate for the platform, and a
client for each member, as an operator would make them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from mec_apps.cli.local_cluster import Premises
from mec_apps.cli.new_secrets import hand_over
from mec_apps.cli.rest_client import PlatformAddress, call
from mec_apps.cli.testbed.network import Network
from mec_apps.cli.testbed.quotas import CpuQuotas
from mec_apps.sdk.session import Access, ClientCredentials
from mec_platform.domain.credentials import Scope
from mec_platform.identity.authority import Purpose, issue, make_authority
from mec_platform.identity.folder import AUTHORITY, certificate_path, key_path, save

PLATFORM = "platform"
GATEWAY = "gateway"
_CERTIFICATE_DAYS = 1


class NamespacedPremises(Premises):
    """`folder` holds the secrets, and goes when the testbed does."""

    def __init__(self, network: Network, quotas: CpuQuotas, limited: Sequence[str], folder: Path) -> None:
        self._network = network
        self._quotas = quotas
        self._limited = frozenset(limited)
        self._folder = folder
        authority = make_authority("testbed authority", time.time())
        save(folder, AUTHORITY, authority, replace=False)
        hosts = [network.address(PLATFORM)]
        pair = issue(authority, Purpose.SERVER, PLATFORM, hosts, time.time(), _CERTIFICATE_DAYS)
        save(folder, PLATFORM, pair, replace=False)

    def command(self, member: str) -> tuple[str, ...]:
        """Into the member's control group where it has one, and into its namespace."""
        into_group = self._quotas.joining(member) if member in self._limited else ()
        # The group first: inside a namespace, /sys shows no control groups.
        return (*into_group, "ip", "netns", "exec", self._network.namespace(member))

    def listening(self, member: str) -> list[str]:
        """On the member's address; the platform over TLS."""
        options = ["--host", self._network.address(member), "--allow-remote"]
        if member == PLATFORM:
            options += ["--tls-cert", str(certificate_path(self._folder, PLATFORM))]
            options += ["--tls-key", str(key_path(self._folder, PLATFORM))]
            options += ["--operator-credentials", str(self._operator)]
        return options

    async def access(self, member: str, platform_url: str) -> list[str]:
        """A client of the member's own, made by the operator."""
        authority, file = certificate_path(self._folder, AUTHORITY), self._folder / f"{member}.json"
        if not file.exists():
            operator = Access(credentials=ClientCredentials.read(self._operator), ca=authority)
            message = {"clientId": member, "scopes": [Scope.APP_SUPPORT.value, Scope.SERVICE_MANAGEMENT.value]}
            hand_over(await call(PlatformAddress(platform_url, operator), "POST", "admin/v1/clients", message), file)
        return ["--credentials", str(file), "--ca", str(authority)]

    @property
    def _operator(self) -> Path:
        return self._folder / "operator.json"
