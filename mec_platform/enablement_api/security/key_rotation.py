"""Signing keys over time: each signs for a period, verifies until its last token has expired, and is then removed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mec_platform.background import BackgroundTasks
from mec_platform.domain.credentials import SigningKey
from mec_platform.enablement_api.security.tokens import generate_key
from mec_platform.registry.clock import Clock
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.errors import LogUnavailable

logger = logging.getLogger(__name__)

CHECK_S = 60.0
"""How often the age of the keys is looked at: nothing compared with their periods."""


class KeyRotation:
    """Between `start` and `stop` keys are replaced in time; `current` and `rotate` work without that too."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        new_id: Callable[[], str],
        *,
        period_s: int,
        token_life_s: int,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._credentials = credentials
        self._new_id = new_id
        self._clock = clock
        self._period_s = period_s
        self._token_life_s = token_life_s
        self._leads = leads
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins to look after the keys."""
        self._tasks.start("signing key rotation", self._keep_rotating())

    async def stop(self) -> None:
        """Ends that; the keys stay."""
        await self._tasks.stop()

    async def current(self) -> SigningKey:
        """The key that signs now; the first one is made when it is first needed. Raises LogUnavailable."""
        keys = self._credentials.signing_keys()
        return keys[-1] if keys else await self.rotate()

    async def rotate(self) -> SigningKey:
        """A new key signs from now on. Raises LogUnavailable."""
        keys = self._credentials.signing_keys()
        # The youngest key signs, so it must be younger than the others even where the clock was set back.
        youngest_ns = keys[-1].created_unix_ns if keys else 0
        key = generate_key(self._new_id(), max(self._clock.unix_ns(), youngest_ns + 1))
        await self._credentials.add_key(key)
        logger.info("tokens are signed with %s from now on", key.key_id)
        return key

    async def look_after_keys(self) -> None:
        """Replaces the signing key where it is due, and removes those that no valid token needs. Raises LogUnavailable."""
        keys = self._credentials.signing_keys()
        if keys and keys[-1].created_unix_ns + self._period_s * 10**9 <= self._clock.unix_ns():
            await self.rotate()
        for key_id in await self._credentials.remove_outlived_keys(self._token_life_s):
            logger.info("%s verifies no tokens any more", key_id)

    async def _keep_rotating(self) -> None:
        while True:
            try:
                if self._leads():  # Replicas share their keys.
                    await self.look_after_keys()
            except LogUnavailable as error:
                logger.warning("signing keys are not looked after for now: %s", error)
            await self._clock.sleep(CHECK_S)
