"""Where the platform differs from the OpenAPI files of MEC 011, each with its reason. There is no other such list."""

from __future__ import annotations

from dataclasses import dataclass

from tests.conformance.specifications import APPS, RADIO, SERVICES


@dataclass(frozen=True, slots=True)
class Deviation:
    """`what` is a route, or an attribute of an answer; of an attribute, `value` is the part of its value that is meant."""

    what: str
    reason: str
    value: str = ""


SUBSCRIPTION = "/applications/{appInstanceId}/subscriptions/{subscriptionId}"
LIVENESS = f"{SERVICES}/applications/{{appInstanceId}}/services/{{serviceId}}/liveness"

ROUTES_BESIDE = (
    Deviation("GET /openapi.json", "the platform's own document"),
    Deviation("GET /docs", "Swagger UI over it"),
    Deviation("GET /metrics", "for operators: Prometheus"),
    Deviation("POST /oauth2/token", "the token endpoint, whose URI the platform chooses (MEC 009 clause 6.16)"),
    Deviation("GET /oauth2/jwks", "public keys of the tokens (RFC 7517)"),
    Deviation("GET /.well-known/oauth-authorization-server", "where both are found (RFC 8414)"),
    Deviation("GET /registry/v1/watch", "the service registry beside Mp1: changes of services as server-sent events"),
    Deviation(f"GET /websockets{APPS}{SUBSCRIPTION}", "the platform chooses websocketUri (MEC 009 clause 6.12a)"),
    Deviation(f"GET /websockets{SERVICES}{SUBSCRIPTION}", "the platform chooses websocketUri (MEC 009 clause 6.12a)"),
    Deviation(
        f"GET /websockets{RADIO}/subscriptions/{{subscriptionId}}",
        "the platform chooses websocketUri (MEC 009 clause 6.12a)",
    ),
    Deviation(
        f"GET {LIVENESS}", "3.1.1 leaves the URI to the platform and writes resource_uri_allocated_by_MEC_platform"
    ),
    Deviation(
        f"PATCH {LIVENESS}", "3.1.1 leaves the URI to the platform and writes resource_uri_allocated_by_MEC_platform"
    ),
    *(
        Deviation(f"GET /registry/v1/{view}{one}", "the registry's records in full and as 3GPP's data types")
        for view in ("services", "eas_profiles", "service_apis")
        for one in ("", "/{serviceId}")
    ),
)
"""What the platform offers applications and the files do not name; operators have `/admin/v1` besides."""

ROUTES_WITHOUT = (
    Deviation(f"GET {SERVICES}/resource_uri_allocated_by_MEC_platform", "stands for the liveness resource, see above"),
    Deviation(
        f"PATCH {SERVICES}/resource_uri_allocated_by_MEC_platform", "stands for the liveness resource, see above"
    ),
    Deviation(
        f"POST {RADIO}/notifications/mec011/appTermination", "a callback of one implementation, in its file only"
    ),
)
"""What the files name and the platform does not offer under that name."""

ANSWERS = (
    Deviation("state", "added to ServiceState in 3.1.1, with liveness", "SUSPENDED"),
    Deviation(
        "dstInterface", "one object in 2.1.1, although some actions take two; a list since 2.2.1", "interfaceType"
    ),
    Deviation("states", "added to ServiceState in 3.1.1, with liveness", "SUSPENDED"),
    Deviation(
        "the message",
        "of callbackReference and websockNotifConfig the chosen one is answered alone (MEC 009 clause 6.12a)",
        "websockNotifConfig",
    ),
    *(
        Deviation("the message", "oneOf in 2.1.1 of types that its schemas cannot tell apart", kind)
        for kind in ("RabModSubscription", "RabRelSubscription", "MeasTaSubscription", "CaReconfSubscription")
    ),
    Deviation("_links", "the subscription of an ExpiryNotification is called self in 2.1.1", "subscription"),
    Deviation("endpoint", "a kind of endpoint that the text has (clause 8.1.5.3) and the files forgot", "fqdn"),
)
"""Values that the schemas of the files refuse though the standard's text, or a later version of it, has them."""
