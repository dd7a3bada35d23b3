"""How much of the platform one client may take up, whatever its rate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """Far beyond what an application needs, far below what would harm the others: memory for all of it is some 100 MB."""

    services_per_app: int = 20_000
    subscriptions_per_app: int = 2_000
    apps_per_client: int = 1_000
    watches_per_client: int = 2_000
