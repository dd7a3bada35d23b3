"""What all messages about subscriptions share (MEC 009 clauses 6.12 and 6.12a), and the lists of links to them."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from mec_platform.domain.subscriptions import Delivery
from mec_platform.enablement_api.exchange import LinkType
from mec_platform.enablement_api.schema_rules import Rule, at_least_one_of


class WebsockNotifConfig(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """MEC 009 clause 6.12a: the subscriber asks for a WebSocket, the platform answers with where it is."""

    request_websocket_uri: bool | None = None
    websocket_uri: str | None = None


class SubscriptionRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a subscriber wants to be told; attributes that only the platform writes are not read.

    Where a callback and a WebSocket are asked for, the WebSocket is taken: a client that has a use for one cannot be relied
    upon to be reachable.
    """

    callback_reference: str | None = None
    request_test_notification: bool | None = None
    websock_notif_config: WebsockNotifConfig | None = None

    schema_rule: ClassVar[Rule] = at_least_one_of("callbackReference", "websockNotifConfig")

    def __post_init__(self) -> None:
        # Decided while decoding, so that the answer to a request without any target names the message.
        self.to_delivery()

    def to_delivery(self) -> Delivery:
        """Raises ValueError where neither a callback nor a WebSocket is asked for."""
        config = self.websock_notif_config
        websocket = config is not None and config.request_websocket_uri is True
        return Delivery(
            callback_uri=None if websocket else self.callback_reference,
            websocket=websocket,
            requests_test=self.request_test_notification is True,
        )


class SubscriptionLinks(msgspec.Struct, frozen=True):
    """`_links` of a notification: which subscription it belongs to."""

    subscription: LinkType


class SelfLink(msgspec.Struct, frozen=True):
    """`_links` of a resource."""

    self: LinkType


class SubscriptionAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The part of a subscription that the platform answers alike in both APIs; only the chosen way of delivery is there."""

    callback_reference: str | None = None
    request_test_notification: bool = False
    websock_notif_config: WebsockNotifConfig | None = None
    links: SelfLink = msgspec.field(name="_links")


class SubscriptionLink(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An entry of a list. Versions of the standard call the type `rel` or `subscriptionType`: both are there."""

    href: str
    rel: str
    subscription_type: str


class SubscriptionListLinks(msgspec.Struct, frozen=True):
    """`_links` of a list of subscriptions, which is all that it has."""

    self: LinkType
    subscriptions: list[SubscriptionLink]


class SubscriptionLinkList(msgspec.Struct, frozen=True):
    """MEC 011 clauses 7.1.3.3 and 8.1.3.3."""

    links: SubscriptionListLinks = msgspec.field(name="_links")
