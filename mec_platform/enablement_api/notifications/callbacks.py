"""One attempt to post a notification to its callback. Retries, order and limits are `delivery`'s affair.

It must not follow redirects, connect to what the policy forbids, or read more of an answer than it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

import aiohttp

from mec_platform.enablement_api.notifications.backoff import read_retry_after_s
from mec_platform.enablement_api.notifications.outcome import Delivered, Failed, Outcome, Rejected
from mec_platform.enablement_api.notifications.resolver import CheckedResolver, LookUp, look_up
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.targets import CallbackError, CallbackPolicy

ID_HEADER = "X-MEC-Notification-Id"
"""Names a notification: its subscription and its sequence. A repetition carries the same, so receivers can drop it."""

LARGEST_ANSWER_BYTES = 4096
"""Read so that the connection can be used again; whoever sends more loses the connection, nothing else."""

_TEMPORARY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})

Sign: TypeAlias = Callable[[str, bytes], Mapping[str, str]]
"""Notification id and body to the headers that prove who sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notification as it goes over the wire; `id` is the same in every attempt."""

    id: str
    body: bytes


class CallbackSender:
    """Connections to callback targets, kept alive per host. `close` when done.

    `unix_s` gives Unix time, for dates in `Retry-After`.
    """

    def __init__(
        self,
        policy: CallbackPolicy,
        settings: DeliverySettings,
        unix_s: Callable[[], float],
        *,
        sign: Sign | None = None,
        look_up: LookUp = look_up,
    ) -> None:
        self._policy = policy
        self._unix_s = unix_s
        self._sign = sign
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(policy, look_up), limit=settings.in_flight, keepalive_timeout=60
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.attempt_timeout_s, sock_connect=settings.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
            headers={"Content-Type": "application/json", "User-Agent": "mec-platform"},
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def send(self, uri: str, message: Message) -> Outcome:
        """Posts once and waits for the answer's status."""
        try:
            # Every time: the policy may have become stricter, and an address needs no look-up that would check it.
            url = self._policy.check_uri(uri)
            headers = {ID_HEADER: message.id}
            if self._sign is not None:
                headers |= self._sign(message.id, message.body)
            async with self._session.post(url, data=message.body, headers=headers, allow_redirects=False) as response:
                outcome = self._judge(response)
                await _finish(response)
                return outcome
        except CallbackError as error:
            return Rejected(str(error))
        except TimeoutError:
            return Failed("the target did not answer in time", unreachable=True)
        except aiohttp.ClientConnectionError as error:
            return Failed(f"no connection to the target: {_cause(error)}", unreachable=True)
        except (aiohttp.ClientError, ValueError) as error:
            return Failed(f"the target's answer cannot be read: {_cause(error)}")

    def _judge(self, response: aiohttp.ClientResponse) -> Outcome:
        status = response.status
        if 200 <= status < 300:
            return Delivered()
        if 300 <= status < 400:
            return Rejected(f"the target redirects (status {status}); redirects are not followed")
        if status == HTTPStatus.GONE:
            return Rejected("the target says that it is gone for good (status 410)")
        if status < 500 and status not in _TEMPORARY:
            return Rejected(f"the target refuses notifications (status {status})")
        return Failed(
            f"the target answers with status {status}",
            asked_s=read_retry_after_s(response.headers.get("Retry-After"), self._unix_s()),
        )


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Makes the connection usable again, unless that would mean to read a large or slow answer."""
    try:
        left = LARGEST_ANSWER_BYTES
        while left > 0 and not response.content.at_eof():
            left -= len(await response.content.read(left))
    except (aiohttp.ClientError, TimeoutError):
        # The status has been seen; what else the target wanted to say does not matter.
        response.close()
    if not response.content.at_eof():
        response.close()


def _cause(error: Exception) -> str:
    """One line without the URI, whose path and query may be a secret between subscriber and platform."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientOSError) and error.strerror:
        return error.strerror
    return type(error).__name__
