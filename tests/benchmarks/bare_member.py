"""What `mec node` and `mec gateway` run, without what belongs to a platform: `python -m tests.benchmarks.bare_member`.

No reports, link probes, heartbeats, or looks at late answers; all else is the product's own. The counterpart of the whole
chain that `steady` holds it against; `BareChain` there plays the control plane.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Self

from mec_apps.cli.main import main
from mec_apps.split_inference.gateway import agent as gateway_agent
from mec_apps.split_inference.node import agent as node_agent


class Idle:
    """Stands for memberships, applications and watches: it takes what they take and does nothing."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        self.expelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None: ...

    async def join(self, wait_s: float) -> None:
        """Belongs to nobody."""

    async def leave(self) -> None:
        """Has not belonged to anybody."""

    async def report_failure(self, member: str, seen: object) -> None:
        """There is nobody to tell."""

    async def offer_service(self, *_arguments: object, **_options: object) -> None:
        """There is nobody to offer it to."""

    def start(self) -> None:
        """Looks at nothing."""

    async def stop(self) -> None:
        """Has not begun."""


def strip(agent: Any, names: tuple[str, ...]) -> None:
    """Has an agent's module use `Idle` for these of its classes. Raises AttributeError where it has none of that name."""
    for name in names:
        getattr(agent, name)
        setattr(agent, name, Idle)


if __name__ == "__main__":
    sys.argv[1:3] = []  # a cluster says `-m mec_apps.cli` behind what runs Python
    strip(node_agent, ("Membership", "MecApplication"))
    strip(gateway_agent, ("Membership", "MecApplication", "StallWatch"))
    main()
