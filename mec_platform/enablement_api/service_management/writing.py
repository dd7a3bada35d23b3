"""Services as JSON, each written once for as long as it stays what it is: reading them is what consumers do most.

The counterpart of `messages`, which says how a service is written. Nothing here knows a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from mec_platform.domain.services import ServiceInfo
from mec_platform.enablement_api.exchange import entity_tag
from mec_platform.enablement_api.service_management.messages import ServiceInfoMessage, from_service, links_of

MOST_KEPT = 50_000
"""Written services, about 1 KiB each. A platform with more than that begins anew, rather than keep track of their use."""


@dataclass(frozen=True, slots=True)
class WrittenService:
    """`service` in JSON, as consumers see it to whom it is, or is not, local; and where it is found."""

    service: ServiceInfo
    uri: str
    json: msgspec.Raw
    etag: str


class ServiceWriter:
    """Keeps what it has written; a service that has changed is another value, and is written again."""

    def __init__(self, services_path: str) -> None:
        """`services_path` has `{appInstanceId}` in it: where the services of an application are found."""
        self._services_path = services_path
        self._written: dict[tuple[str, str, bool], WrittenService] = {}

    def write(self, service: ServiceInfo, is_local: bool, base_uri: str) -> WrittenService:
        """The service with links that begin with `base_uri`."""
        key = (service.service_id, base_uri, is_local)
        written = self._written.get(key)
        if written is None or written.service is not service:
            if len(self._written) >= MOST_KEPT:
                self._written.clear()
            written = self._written[key] = self._write(service, is_local, base_uri)
        return written

    def _write(self, service: ServiceInfo, is_local: bool, base_uri: str) -> WrittenService:
        uri = f"{base_uri}{self._path(service)}"
        everyones = _for_everyone(service)
        links = links_of(service, uri, f"{uri}/liveness")
        json = msgspec.json.encode(msgspec.structs.replace(everyones, is_local=is_local, links=links))
        return WrittenService(service, uri, msgspec.Raw(json), entity_tag(everyones))

    def _path(self, service: ServiceInfo) -> str:
        if service.origin:
            # Its application is another host's; here it is one of all services.
            services = self._services_path.replace("/applications/{appInstanceId}", "")
        else:
            services = self._services_path.replace("{appInstanceId}", quote(service.app_instance_id, safe=""))
        return f"{services}/{quote(service.service_id, safe='')}"


def service_tag(service: ServiceInfo) -> str:
    """The ETag of a service, the same for every consumer."""
    return entity_tag(_for_everyone(service))


def _for_everyone(service: ServiceInfo) -> ServiceInfoMessage:
    return from_service(service, is_local=True, self_uri="", liveness_uri="")
