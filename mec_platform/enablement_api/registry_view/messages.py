"""Two data types of 3GPP as the platform fills them: EASProfile (TS 29.558) and ServiceAPIDescription (TS 29.222).

Attributes are named and typed as in the OpenAPI files of V18.4.0 of both. Each says what of a service's record it shows, and
`LEFT_OUT` says of all others why they are not shown: a record has nothing for them, and nothing is made up. The OpenAPI
document and `MAPPING.md` (see `mapping`) are made from here; `projections` fills the types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from mec_platform.enablement_api.schema_rules import Rule, exactly_one_of

MEMORY_PATTERN = r"^\d+(\.\d+)? (KB|MB|GB|TB|PB|EB|ZB|YB)$"


def shows(what: str, pattern: str | None = None) -> msgspec.Meta:
    """What of a record an attribute shows."""
    return msgspec.Meta(description=what, pattern=pattern)


class EasEndPoint(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """EndPoint (TS 29.558): exactly one attribute."""

    schema_rule: ClassVar[Rule] = exactly_one_of("uri", "fqdn", "ipv4Addrs", "ipv6Addrs")

    uri: Annotated[str | None, shows("the first of the endpoint's `uris`")] = None
    fqdn: Annotated[str | None, shows("the endpoint's first `fqdn`, or host of `addresses`, with a dot in it")] = None
    ipv4_addrs: Annotated[list[str] | None, shows("IPv4 hosts of the endpoint's `addresses`, without ports")] = None
    ipv6_addrs: Annotated[list[str] | None, shows("IPv6 hosts of `addresses`, where none is IPv4")] = None


class EasProfile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """EASProfile (TS 29.558), of a service. Services that are reached in a way that EndPoint cannot say have none."""

    eas_id: Annotated[str, shows("`name`: instances of one application server share their id (TS 23.558)")]
    end_pt: Annotated[EasEndPoint, shows("`transport.endpoint`")]
    prov_id: Annotated[str | None, shows("`appProvider` of the application instance")] = None
    flex_eas_type: Annotated[str | None, shows("`category.id`")] = None
    eas_feats: Annotated[list[str] | None, shows("`capabilities`, one text `name=value` for each that is there")] = None
    avl_rep: Annotated[int | None, shows("`livenessInterval`: the heartbeat period, in seconds")] = None
    status: Annotated[str, shows("`state`")]


class ApiStatus(msgspec.Struct, frozen=True, rename="camel"):
    """ApiStatus (TS 29.222)."""

    aef_ids: Annotated[list[str], shows("`appInstanceId` while `state` is ACTIVE, else none")]


class ApiVersion(msgspec.Struct, frozen=True, rename="camel"):
    """Version (TS 29.222)."""

    api_version: Annotated[str, shows("`version`")]


class InterfaceDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """InterfaceDescription (TS 29.222): exactly one kind of address."""

    schema_rule: ClassVar[Rule] = exactly_one_of("ipv4Addr", "ipv6Addr", "fqdn")

    ipv4_addr: Annotated[str | None, shows("IPv4 host of an entry of `uris` or `addresses`")] = None
    ipv6_addr: Annotated[str | None, shows("IPv6 host of such an entry")] = None
    fqdn: Annotated[str | None, shows("host with a dot in it, of such an entry; an entry of `fqdn`")] = None
    port: Annotated[int | None, shows("port of such an entry, where it names one")] = None


class AefLocation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """AefLocation (TS 29.222)."""

    dc_id: Annotated[str, shows("`locality.nfviPop`")]


class ApiServiceKpis(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """ServiceKpis (TS 29.222)."""

    aval_mem: Annotated[str, shows("`kpis.freeMemoryBytes`, in thousands of bytes", MEMORY_PATTERN)]


class AefProfile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """AefProfile (TS 29.222): the application instance, as the one that exposes the API."""

    aef_id: Annotated[str, shows("`appInstanceId`")]
    versions: Annotated[list[ApiVersion], shows("one")]
    protocol: Annotated[
        str | None,
        shows("HTTP_1_1, HTTP_2, MQTT or WEBSOCKET, where `transport` says so (gRPC is HTTP_2)"),
    ] = None
    data_format: Annotated[str, shows("`serializer`")]
    security_methods: Annotated[list[str] | None, shows("OAUTH where `transport.security` has it")] = None
    interface_descriptions: Annotated[list[InterfaceDescription], shows("`transport.endpoint`, its addresses")]
    aef_location: Annotated[AefLocation | None, shows("`locality`")] = None
    service_kpis: Annotated[ApiServiceKpis | None, shows("`kpis`")] = None


class ServiceApiDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """ServiceAPIDescription (TS 29.222), of a service."""

    api_name: Annotated[str, shows("`name`")]
    api_id: Annotated[str, shows("`serviceId`")]
    api_status: Annotated[ApiStatus, shows("`state`")]
    aef_profiles: Annotated[
        list[AefProfile] | None, shows("one; none where no address of the service can be written in it")
    ] = None
    description: Annotated[str | None, shows("`transport.description`")] = None
    service_api_category: Annotated[str | None, shows("`category.id`")] = msgspec.field(
        default=None, name="serviceAPICategory"
    )


LEFT_OUT: Mapping[type[msgspec.Struct], Mapping[str, str]] = {
    EasProfile: {
        "easBdlInfos, svcContSuppExt1": "the registry knows no bundles",
        "acIds": "the registry knows no application clients",
        "type": "its values are UAS, V2X and the like; excludes flexEasType",
        "scheds": "services have states, no schedules",
        "svcArea": "made of cells, tracking areas and coordinates; localities here are names",
        "svcKpi": "its memory has a unit that the file does not give; nothing else of it is measured",
        "permLvl": "kinds of contract (GOLD, SILVER); `trustLevel` is none",
        "appLocs": "the registry knows no DNAIs",
        "svcContSupp, transContSupp, genCtxDur, easSyncSupp": "no relocation of application contexts",
    },
    ServiceApiDescription: {
        "supportedFeatures, apiSuppFeats": "features of CAPIF's own APIs, which are not offered",
        "shareableInfo, pubApiPath, ccfId": "of CAPIF core functions among each other",
    },
    AefProfile: {
        "domainName": "excludes interfaceDescriptions",
        "ueIpRange": "the registry knows no terminals",
    },
    ApiVersion: {"expiry, resources, custOperations": "the registry does not know a service's resources"},
    InterfaceDescription: {
        "apiPrefix": "what a URI's path has before name and version; paths here are free",
        "securityMethods": "one for all interfaces, in AefProfile",
    },
    AefLocation: {"civicAddr, geoArea": "localities here are names"},
    ApiServiceKpis: {
        "maxReqRate": "`capacity` is requests at once, no rate",
        "maxRestime, availability": "promises; what is measured is no promise",
        "avalComp, avalGraComp": "in FLOPS; `load` is a part of an unknown whole",
        "avalStor, conBand": "not measured",
    },
}
"""Attributes of the data types that are never there."""
