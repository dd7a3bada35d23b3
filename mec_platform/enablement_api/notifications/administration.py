"""`/admin/v1`: notifications that could not be delivered, for operators: what they say, trying them again, dropping them."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.subscriptions import DeadLetter, Subscription, Topic
from mec_platform.enablement_api.exchange import json_response, no_content, read_value
from mec_platform.enablement_api.notifications.messages import (
    NotificationMessage,
    make_message,
)
from mec_platform.enablement_api.notifications.transmission import message_id, target_of
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.security.administration import ROOT
from mec_platform.registry.subscriptions import Subscriptions

_SUBSCRIPTION = f"{ROOT}/subscriptions/{{subscriptionId}}"
_ROW = partial(Operation, tag="Administration", scope=Scope.ADMIN)
_FILTER = QueryParameter("subscriptionId", str, "Only those of this subscription.")


class DeadLetterMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A notification that was given up: to whom, why, when, and what it says.

    Of a callback only its origin is shown: path and query may be a secret between subscriber and platform.
    """

    notification_id: str
    subscription_id: str
    subscription_type: Topic
    app_instance_id: str
    target: str
    reason: str
    given_up_unix_s: int
    notification: NotificationMessage


class DeadLetterAdministration:
    """Handlers over the outboxes of all subscriptions."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def operations(self) -> list[Operation]:
        """List, try again, drop."""
        return [
            _ROW(
                method="GET",
                path=f"{ROOT}/dead_letters",
                operation_id="listDeadLetters",
                summary="List notifications that could not be delivered",
                handler=self.list_dead_letters,
                query=(_FILTER,),
                answers={HTTPStatus.OK: list[DeadLetterMessage]},
            ),
            _ROW(
                method="POST",
                path=f"{_SUBSCRIPTION}/retry",
                operation_id="retryDeadLetters",
                summary="Try a subscription's dead letters again",
                handler=self.retry,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
            _ROW(
                method="DELETE",
                path=f"{_SUBSCRIPTION}/dead_letters",
                operation_id="dropDeadLetters",
                summary="Forget a subscription's dead letters",
                handler=self.drop,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
        ]

    async def list_dead_letters(self, request: web.Request) -> web.Response:
        """By subscription, oldest first. The last hundred of each subscription are kept."""
        wanted = read_value(request, _FILTER)
        found = []
        for letter in self._subscriptions.dead_letters():
            subscription = self._subscriptions.find(letter.notification.subscription_id)
            if subscription is not None and wanted in (None, subscription.subscription_id):
                found.append(_message(subscription, letter))
        return json_response(found)

    async def retry(self, request: web.Request) -> web.Response:
        """They go before what waits, in their old order and with their old ids."""
        await self._subscriptions.revive(request.match_info["subscriptionId"])
        return no_content()

    async def drop(self, request: web.Request) -> web.Response:
        """What waits is not touched."""
        await self._subscriptions.drop_dead_letters(request.match_info["subscriptionId"])
        return no_content()


def _message(subscription: Subscription, letter: DeadLetter) -> DeadLetterMessage:
    return DeadLetterMessage(
        notification_id=message_id(letter.notification),
        subscription_id=subscription.subscription_id,
        subscription_type=subscription.topic,
        app_instance_id=subscription.app_instance_id,
        target=target_of(subscription),
        reason=letter.reason,
        given_up_unix_s=letter.at_unix_ns // 10**9,
        notification=make_message(subscription, letter.notification),
    )
