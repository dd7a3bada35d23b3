"""The subscription resources of both APIs (ETSI GS MEC 011 clauses 7.2.3, 7.2.4, 8.2.8 and 8.2.9) and their WebSockets.

The APIs differ in what is subscribed to: that is a `SubscriptionApi`, one value beside the messages of each. Creating a
subscription never contacts its callback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.subscriptions import Subscription, Topic
from mec_platform.enablement_api.exchange import (
    LinkType,
    base_uri,
    json_response,
    no_content,
    read_message,
    resource_uri,
)
from mec_platform.enablement_api.notifications.messages import ROOTS, subscription_path
from mec_platform.enablement_api.notifications.notifier import Notifier
from mec_platform.enablement_api.notifications.subscription_messages import (
    SelfLink,
    SubscriptionLink,
    SubscriptionLinkList,
    SubscriptionListLinks,
    SubscriptionRequest,
    WebsockNotifConfig,
)
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.problem_details import Conflict
from mec_platform.registry.subscriptions import Subscriptions

WEBSOCKETS_ROOT = "/websockets"
"""Outside of the APIs' own roots, whose resources are the standard's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionApi:
    """What one API adds. `noun` is part of operation ids; `read` makes a subscription of a request, `write` the answer."""

    topic: Topic
    scope: Scope
    tag: str
    noun: str
    request: type[SubscriptionRequest]
    answer: Any
    notification: Any
    read: Callable[[Any, str, str], Subscription]
    write: Callable[[Subscription, dict[str, Any]], Any]


class SubscriptionResources:
    """Handlers over the subscriptions to one topic."""

    def __init__(self, api: SubscriptionApi, subscriptions: Subscriptions, notifier: Notifier) -> None:
        self._api = api
        self._subscriptions = subscriptions
        self._notifier = notifier

    def operations(self) -> list[Operation]:
        """List, create, read, end; and the WebSocket."""
        api = self._api
        row = partial(Operation, tag=api.tag, scope=api.scope)
        subscriptions = f"{ROOTS[api.topic]}/applications/{{appInstanceId}}/subscriptions"
        return [
            row(
                method="GET",
                path=subscriptions,
                operation_id=f"list{api.noun}Subscriptions",
                summary="List an application instance's subscriptions",
                handler=self.list_subscriptions,
                answers={HTTPStatus.OK: SubscriptionLinkList},
            ),
            row(
                method="POST",
                path=subscriptions,
                operation_id=f"create{api.noun}Subscription",
                summary="Subscribe to notifications",
                handler=self.subscribe,
                body=api.request,
                answers={HTTPStatus.CREATED: api.answer},
                errors=frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT}),
                notification=api.notification,
            ),
            row(
                method="GET",
                path=f"{subscriptions}/{{subscriptionId}}",
                operation_id=f"get{api.noun}Subscription",
                summary="Read a subscription",
                handler=self.get_subscription,
                answers={HTTPStatus.OK: api.answer},
            ),
            row(
                method="DELETE",
                path=f"{subscriptions}/{{subscriptionId}}",
                operation_id=f"delete{api.noun}Subscription",
                summary="End a subscription; what waits for it is dropped",
                handler=self.unsubscribe,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
            row(
                method="GET",
                path=f"{WEBSOCKETS_ROOT}{subscriptions}/{{subscriptionId}}",
                operation_id=f"connect{api.noun}Subscription",
                summary="Open the WebSocket of a subscription that asked for one",
                handler=self.connect,
                answers={HTTPStatus.SWITCHING_PROTOCOLS: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
        ]

    async def list_subscriptions(self, request: web.Request) -> web.Response:
        """Links to the subscriptions of this application instance in this API."""
        found = self._subscriptions.of(request.match_info["appInstanceId"], self._api.topic)
        links = [
            SubscriptionLink(href=_uri(request, each), rel=each.topic, subscription_type=each.topic) for each in found
        ]
        own = LinkType(resource_uri(request, request.path))
        return json_response(SubscriptionLinkList(SubscriptionListLinks(own, links)))

    async def subscribe(self, request: web.Request) -> web.Response:
        """The callback is not contacted. It must be http or https, without credentials, and lead to where the operator lets
        notifications go. With `websockNotifConfig` the answer says where to connect instead; with
        `requestTestNotification` a TestNotification is the first thing that is delivered.
        """
        app_instance_id = request.match_info["appInstanceId"]
        # Before the body is looked at: for an unknown application nothing that could be sent would be right.
        self._subscriptions.of(app_instance_id, self._api.topic)
        message = await read_message(request, self._api.request)
        wanted = self._api.read(message, app_instance_id, base_uri(request))
        if wanted.delivery.callback_uri is not None:
            self._notifier.policy.check_uri(wanted.delivery.callback_uri)
        subscription = await self._subscriptions.subscribe(wanted)
        return json_response(self._answer(request, subscription), HTTPStatus.CREATED, _uri(request, subscription))

    async def get_subscription(self, request: web.Request) -> web.Response:
        """The subscription as it was made."""
        return json_response(self._answer(request, self._find(request)))

    async def unsubscribe(self, request: web.Request) -> web.Response:
        """What has not been delivered yet never will be."""
        ids = request.match_info
        await self._subscriptions.unsubscribe(ids["appInstanceId"], self._api.topic, ids["subscriptionId"])
        return no_content()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Frames are the JSON of notifications; what waited comes first. Answer pings: a notification counts as delivered
        when the pong behind it has come. A newer connection replaces an older one.
        """
        subscription = self._find(request)
        if not subscription.delivery.websocket:
            raise Conflict("this subscription's notifications are posted: it did not ask for a WebSocket")
        return await self._notifier.sockets.serve(request, subscription.subscription_id)

    def _find(self, request: web.Request) -> Subscription:
        ids = request.match_info
        return self._subscriptions.get(ids["appInstanceId"], self._api.topic, ids["subscriptionId"])

    def _answer(self, request: web.Request, subscription: Subscription) -> Any:
        return self._api.write(subscription, delivery_answer(request, subscription))


def delivery_answer(request: web.Request, subscription: Subscription) -> dict[str, Any]:
    """The attributes of `SubscriptionAnswer`: how this subscription is delivered, and where it is."""
    delivery = subscription.delivery
    websocket = None
    if delivery.websocket:
        http_uri = resource_uri(request, f"{WEBSOCKETS_ROOT}{subscription_path(subscription)}")
        websocket = WebsockNotifConfig(websocket_uri=http_uri.replace("http", "ws", 1))
    return {
        "callback_reference": delivery.callback_uri,
        "request_test_notification": delivery.requests_test,
        "websock_notif_config": websocket,
        "links": SelfLink(LinkType(_uri(request, subscription))),
    }


def _uri(request: web.Request, subscription: Subscription) -> str:
    return resource_uri(request, subscription_path(subscription))
