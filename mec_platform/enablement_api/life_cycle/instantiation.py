"""Makes an application instance out of a request: its place, its rules, its client. Shared by the API and the seeds."""

from __future__ import annotations

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.credentials import Client
from mec_platform.domain.locality import Locality, LocalityError, LocalityTree
from mec_platform.enablement_api.app_support.messages import to_description
from mec_platform.enablement_api.life_cycle.messages import MP1_SCOPES, AppInstanceRequest, Place, to_rules
from mec_platform.enablement_api.problem_details import BadRequest
from mec_platform.registry.applications import Applications
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.errors import UnknownClient


class Instantiation:
    """Over one platform's instances and clients. `localities` None: its host is all there is."""

    def __init__(
        self, applications: Applications, credentials: Credentials, localities: LocalityTree | None = None
    ) -> None:
        self._applications = applications
        self._credentials = credentials
        self._localities = localities

    async def create(
        self, message: AppInstanceRequest, client_id: str | None = None, secret: str | None = None
    ) -> tuple[AppInstance, str | None]:
        """The new instance, and the secret of the client that was made with it, None where it belongs to another.

        `client_id` and `secret` are for a client to be made whose credentials exist already.

        Raises:
            BadRequest: there is no such client or place.
            AppInstanceExists, ClientExists, QuotaExceeded: as the registry says.
        """
        app_instance_id = message.app_instance_id or self._applications.new_id()
        client: Client | None = None
        if message.client_id is None:
            scopes = frozenset(message.scopes or MP1_SCOPES)
            client, secret = self._credentials.prepare(client_id or app_instance_id, scopes, secret)
        else:
            secret = None
            self._require_client(message.client_id)
        dns_rules, traffic_rules = to_rules(message)
        app = await self._applications.register(
            to_description(message, instantiated_by_mec=True),
            app_instance_id=app_instance_id,
            locality=self._locality(message.locality),
            owner=client.client_id if client else message.client_id or "",
            client=client,
            dns_rules=dns_rules,
            traffic_rules=traffic_rules,
        )
        return app, secret

    def _require_client(self, client_id: str) -> None:
        try:
            self._credentials.get(client_id)
        except UnknownClient as error:
            raise BadRequest(f"clientId: {error}; leave it out, and the instance gets a client of its own") from error

    def _locality(self, place: Place | None) -> Locality | None:
        """None for the platform's own place."""
        if place is None or (place.mec_host is None and place.nfvi_node is None):
            return None
        tree = self._localities
        try:
            if tree is None:
                raise LocalityError("this platform has no locality tree; leave the locality out")
            return tree.locality_of(mec_host=place.mec_host, nfvi_node=place.nfvi_node)
        except LocalityError as error:
            raise BadRequest(f"locality: {error}") from error
