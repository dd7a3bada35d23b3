"""Announces the end of subscriptions that have an expiryDeadline, and ends them then (ETSI GS MEC 012 clause 6.4.10).

The shell around `ClientSubscriptions.expire`, which decides; the waiting is that of `deadlines`.
"""

from __future__ import annotations

from mec_platform.registry import effects as to_do
from mec_platform.registry.client_subscriptions import ClientSubscriptions
from mec_platform.registry.deadlines import Deadlines
from mec_platform.registry.registry import Registry


class Expiries:
    """Waits from its making on, as `terminations` does."""

    def __init__(self, registry: Registry, subscriptions: ClientSubscriptions) -> None:
        self._deadlines = Deadlines("expiry of subscriptions", registry.clock, subscriptions.expire)
        registry.add_listener(self._note)

    async def stop(self) -> None:
        """Waits for no deadline any more; they are kept in the registry's state."""
        await self._deadlines.stop()

    def _note(self, effect: to_do.Effect) -> None:
        match effect:
            case to_do.AwaitExpiry(subscription_id, at_unix_ns):
                self._deadlines.expect(subscription_id, at_unix_ns)
            case to_do.ForgetExpiry(subscription_id):
                self._deadlines.forget(subscription_id)
