"""Data types that several APIs write alike (most of ETSI GS MEC 011 clause 8.1.5); translated to and from domain values."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from mec_platform.domain.locality import Locality
from mec_platform.domain.services import CategoryRef, EndPoint, HostPort, JsonText, check_endpoint
from mec_platform.enablement_api.schema_rules import Rule, exactly_one_of

JsonObject = dict[str, Any]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class CategoryRefMessage(msgspec.Struct, frozen=True):
    """CategoryRef, clause 8.1.5.2."""

    href: str
    id: str
    name: str
    version: str


class LocalityMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The areas that an application instance lies in; absent what is not known."""

    mec_host: str
    mec_system: str = ""
    nfvi_pop: str = ""
    zone: str = ""
    zone_group: str = ""
    nfvi_node: str = ""


class AddressMessage(msgspec.Struct, frozen=True):
    """An entry of EndPointInfo.addresses."""

    host: NonEmpty
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class EndPointMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """EndPointInfo, clause 8.1.5.3: exactly one attribute."""

    schema_rule: ClassVar[Rule] = exactly_one_of("uris", "fqdn", "addresses", "alternative")

    uris: list[str] | None = None
    fqdn: list[str] | None = None
    addresses: list[AddressMessage] | None = None
    alternative: JsonObject | None = None

    def __post_init__(self) -> None:
        # Validated while decoding, so that the error names the attribute that holds the endpoint.
        check_endpoint(self)


def to_json_text(value: JsonObject | None) -> JsonText | None:
    """Free-form JSON for the domain, which does not look into it."""
    return None if value is None else JsonText(msgspec.json.encode(value).decode())


def from_json_text(text: JsonText | None) -> JsonObject | None:
    """The opposite of `to_json_text`."""
    return None if text is None else msgspec.json.decode(text, type=JsonObject)


def to_endpoint(message: EndPointMessage) -> EndPoint:
    """Raises ValueError where not exactly one attribute is present."""
    return EndPoint(
        uris=None if message.uris is None else tuple(message.uris),
        fqdn=None if message.fqdn is None else tuple(message.fqdn),
        addresses=None if message.addresses is None else tuple(HostPort(a.host, a.port) for a in message.addresses),
        alternative=to_json_text(message.alternative),
    )


def from_endpoint(endpoint: EndPoint) -> EndPointMessage:
    """The opposite of `to_endpoint`."""
    addresses = endpoint.addresses
    return EndPointMessage(
        uris=None if endpoint.uris is None else list(endpoint.uris),
        fqdn=None if endpoint.fqdn is None else list(endpoint.fqdn),
        addresses=None if addresses is None else [AddressMessage(each.host, each.port) for each in addresses],
        alternative=from_json_text(endpoint.alternative),
    )


def from_locality(place: Locality) -> LocalityMessage:
    """A place with the names that it has."""
    return LocalityMessage(**{name: getattr(place, name) for name in LocalityMessage.__struct_fields__})


def to_category(message: CategoryRefMessage | None) -> CategoryRef | None:
    """The domain's category, where there is one."""
    return None if message is None else CategoryRef(message.href, message.id, message.name, message.version)


def from_category(category: CategoryRef | None) -> CategoryRefMessage | None:
    """The opposite of `to_category`."""
    return None if category is None else CategoryRefMessage(category.href, category.id, category.name, category.version)
