"""The subscription resources of `/rni/v2` (ETSI GS MEC 012 clauses 7.7 and 7.8) and their WebSockets.

They belong to the client whose token made them; where authentication is off, to everybody. Creating a subscription never contacts
its callback. Counterparts: `registry.client_subscriptions` keeps them, `feed` finds what they are told.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.services import JsonText
from mec_platform.domain.subscriptions import Subscription, Topic
from mec_platform.enablement_api.exchange import (
    LinkType,
    base_uri,
    check_if_match,
    entity_tag,
    json_response,
    no_content,
    read_message,
    read_value,
    resource_uri,
)
from mec_platform.enablement_api.notifications.messages import RADIO_INFORMATION_ROOT, subscription_path
from mec_platform.enablement_api.notifications.notifier import Notifier
from mec_platform.enablement_api.notifications.resources import WEBSOCKETS_ROOT, delivery_answer
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.problem_details import BadRequest, Conflict, Forbidden
from mec_platform.enablement_api.radio_information.notification_messages import ExpiryNotification, RadioNotification
from mec_platform.enablement_api.radio_information.subscription_messages import (
    RadioSubscription,
    RadioSubscriptionRequest,
    app_instance_of,
    make_answer,
    topic_of_request,
    with_defaults,
)
from mec_platform.enablement_api.radio_information.values import from_unix_ns
from mec_platform.enablement_api.security.callers import CALLER, owner_of
from mec_platform.registry.host import HostRegistry

SUBSCRIPTIONS = f"{RADIO_INFORMATION_ROOT}/subscriptions"
_SUBSCRIPTION = f"{SUBSCRIPTIONS}/{{subscriptionId}}"
_ROW = partial(Operation, tag="Radio network information", scope=Scope.RADIO_INFORMATION)


class SubscriptionType(StrEnum):
    """How a query names the types (clause 7.7.3.1)."""

    CELL_CHANGE = "cell_change"
    BEARER_ESTABLISHMENT = "rab_est"
    BEARER_MODIFICATION = "rab_mod"
    BEARER_RELEASE = "rab_rel"
    MEASUREMENT = "meas_rep_ue"
    NR_MEASUREMENT = "nr_meas_rep_ue"
    TIMING_ADVANCE = "timing_advance_ue"
    CARRIER_AGGREGATION = "ca_reconf"
    S1_BEARER = "s1_bearer"


_TYPE = QueryParameter("subscription_type", SubscriptionType, "Subscriptions of this type.")


class RadioSubscriptionLink(msgspec.Struct, frozen=True, rename="camel"):
    """An entry of the list."""

    href: str
    subscription_type: Topic


class RadioSubscriptionListLinks(msgspec.Struct, frozen=True):
    """`_links` of the list."""

    self: LinkType
    subscription: list[RadioSubscriptionLink]


class RadioSubscriptionLinkList(msgspec.Struct, frozen=True):
    """Clause 6.3.10."""

    links: RadioSubscriptionListLinks = msgspec.field(name="_links")


class RadioSubscriptions:
    """Handlers over one host's registry."""

    def __init__(self, host: HostRegistry, notifier: Notifier) -> None:
        self._host = host
        self._subscriptions = host.client_subscriptions
        self._notifier = notifier

    def operations(self) -> list[Operation]:
        """List, create, read, replace, end; and the WebSocket."""
        return [
            _ROW(
                method="GET",
                path=SUBSCRIPTIONS,
                operation_id="listRadioSubscriptions",
                summary="List one's own subscriptions",
                handler=self.list_subscriptions,
                query=(_TYPE,),
                answers={HTTPStatus.OK: RadioSubscriptionLinkList},
            ),
            _ROW(
                method="POST",
                path=SUBSCRIPTIONS,
                operation_id="createRadioSubscription",
                summary="Subscribe to what happens in the radio network",
                handler=self.subscribe,
                body=RadioSubscriptionRequest,
                answers={HTTPStatus.CREATED: RadioSubscription},
                errors=frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT}),
                etag=True,
                notification=RadioNotification | ExpiryNotification,
            ),
            _ROW(
                method="GET",
                path=_SUBSCRIPTION,
                operation_id="getRadioSubscription",
                summary="Read a subscription",
                handler=self.get_subscription,
                answers={HTTPStatus.OK: RadioSubscription},
                etag=True,
            ),
            _ROW(
                method="PUT",
                path=_SUBSCRIPTION,
                operation_id="replaceRadioSubscription",
                summary="Replace a subscription by another of its type, such as one that lasts longer",
                handler=self.replace,
                body=RadioSubscriptionRequest,
                answers={HTTPStatus.OK: RadioSubscription},
                errors=frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT}),
                etag=True,
            ),
            _ROW(
                method="DELETE",
                path=_SUBSCRIPTION,
                operation_id="deleteRadioSubscription",
                summary="End a subscription; what waits for it is dropped",
                handler=self.unsubscribe,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
            _ROW(
                method="GET",
                path=f"{WEBSOCKETS_ROOT}{_SUBSCRIPTION}",
                operation_id="connectRadioSubscription",
                summary="Open the WebSocket of a subscription that asked for one",
                handler=self.connect,
                answers={HTTPStatus.SWITCHING_PROTOCOLS: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
        ]

    async def list_subscriptions(self, request: web.Request) -> web.Response:
        """Links to the caller's subscriptions (clause 7.7.3.1)."""
        wanted = read_value(request, _TYPE)
        links = [
            RadioSubscriptionLink(resource_uri(request, subscription_path(each)), each.topic)
            for each in self._subscriptions.of(owner_of(request))
            if wanted is None or each.topic is Topic[wanted.name]
        ]
        own = LinkType(resource_uri(request, request.path))
        return json_response(RadioSubscriptionLinkList(RadioSubscriptionListLinks(own, links)))

    async def subscribe(self, request: web.Request) -> web.Response:
        """POST (clause 7.7.3.4). Callbacks and WebSockets are as in MEC 011's subscriptions. With `expiryDeadline` an
        ExpiryNotification comes some time before, and then the subscription is gone. Measurements come about once a second for each
        UE, and sooner where much has changed.
        """
        message = await _read_request(request)
        subscription = await self._subscriptions.subscribe(self._read(request, message, ""))
        location = resource_uri(request, subscription_path(subscription))
        return self._respond(request, subscription, HTTPStatus.CREATED, location)

    async def get_subscription(self, request: web.Request) -> web.Response:
        """GET (clause 7.8.3.1): the subscription as it was made."""
        return self._respond(request, self._find(request))

    async def replace(self, request: web.Request) -> web.Response:
        """PUT (clause 7.8.3.2). What waits to be delivered stays."""
        found = self._find(request)
        message = await _read_request(request)
        wanted = self._read(request, message, found.subscription_id)

        def check(before: Subscription) -> None:
            check_if_match(request, entity_tag(self._answer(request, before)))

        if wanted.topic is not found.topic:
            raise BadRequest(f"subscriptionType must stay {found.topic}; another type is another subscription")
        replaced = await self._subscriptions.replace(_seen_by(request), wanted, check)
        return self._respond(request, replaced)

    async def unsubscribe(self, request: web.Request) -> web.Response:
        """DELETE (clause 7.8.3.5). What has not been delivered yet never will be."""
        await self._subscriptions.unsubscribe(_seen_by(request), request.match_info["subscriptionId"])
        return no_content()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Frames are the JSON of notifications, as over the WebSockets of MEC 011's subscriptions."""
        subscription = self._find(request)
        if not subscription.delivery.websocket:
            raise Conflict("this subscription's notifications are posted: it did not ask for a WebSocket")
        return await self._notifier.sockets.serve(request, subscription.subscription_id)

    def _find(self, request: web.Request) -> Subscription:
        return self._subscriptions.get(_seen_by(request), request.match_info["subscriptionId"])

    def _read(self, request: web.Request, message: RadioSubscriptionRequest, subscription_id: str) -> Subscription:
        """Raises BadRequest, Forbidden, CallbackMalformed, CallbackNotAllowed."""
        message = with_defaults(message)
        deadline = message.expiry_deadline
        try:
            expiry = None if deadline is None else self._subscriptions.expiry_at(deadline.unix_ns)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        delivery = message.to_delivery()
        if delivery.callback_uri is not None:
            self._notifier.policy.check_uri(delivery.callback_uri)
        return Subscription(
            subscription_id=subscription_id,
            app_instance_id=self._app_instance(request, message),
            topic=topic_of_request(message),
            delivery=delivery,
            criteria_text=JsonText(msgspec.json.encode(message).decode()),
            platform_uri=base_uri(request),
            owner=owner_of(request),
            expiry=expiry,
        )

    def _app_instance(self, request: web.Request, message: RadioSubscriptionRequest) -> str:
        """The instance that the subscription ends with: the one that its criteria name, where it is registered here. An id that
        this host does not know is a name like any other."""
        named = app_instance_of(message)
        app = self._host.applications.find(named)
        if app is None:
            return ""
        caller = request.get(CALLER)
        if caller is not None and app.owner != caller.client_id and Scope.ADMIN not in caller.scopes:
            raise Forbidden(f"application instance {named!r} belongs to another client")
        return named

    def _respond(
        self,
        request: web.Request,
        subscription: Subscription,
        status: HTTPStatus = HTTPStatus.OK,
        location: str | None = None,
    ) -> web.Response:
        answer = self._answer(request, subscription)
        return json_response(answer, status, location, entity_tag(answer))

    def _answer(self, request: web.Request, subscription: Subscription) -> RadioSubscription:
        expiry = subscription.expiry
        shared = delivery_answer(request, subscription)
        if expiry is not None:
            shared["expiry_deadline"] = from_unix_ns(expiry.deadline_unix_ns)
        return make_answer(read_subscription(subscription), shared)


def read_subscription(subscription: Subscription) -> RadioSubscriptionRequest:
    """The request that a subscription was made by."""
    assert subscription.criteria_text is not None
    message: RadioSubscriptionRequest = msgspec.json.decode(subscription.criteria_text, type=RadioSubscriptionRequest)
    return message


async def _read_request(request: web.Request) -> RadioSubscriptionRequest:
    kinds: Any = RadioSubscriptionRequest
    message: RadioSubscriptionRequest = await read_message(request, kinds)
    return message


def _seen_by(request: web.Request) -> str | None:
    """Whose subscriptions this caller sees: its own, and administrators those of all."""
    caller = request.get(CALLER)
    return None if caller is not None and Scope.ADMIN in caller.scopes else owner_of(request)
