"""`GET /registry/v1/watch`: every change of services as server-sent events, from any revision that the platform still has.

Counterpart of `registry.grpc.watching`. Not an ETSI API; its services are those of Mp1, with their capabilities beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import msgspec
from aiohttp import hdrs, web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.services import ServiceState
from mec_platform.enablement_api.exchange import base_uri, read_value, read_values
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.problem_details import BadRequest, TooManyRequests, Unauthenticated
from mec_platform.enablement_api.registry_watch.messages import (
    EventWriter,
    ServiceChangesMessage,
    compacted_event,
    heartbeat,
)
from mec_platform.enablement_api.security.callers import consumer_locality, owner_of
from mec_platform.enablement_api.service_management.handlers import (
    SER_NAME,
    SERVICES_PATH,
)
from mec_platform.enablement_api.service_management.writing import ServiceWriter
from mec_platform.registry.change_feed import ChangeSet, Watcher, WatchFilter
from mec_platform.registry.errors import ChangesCompacted, RevisionAhead
from mec_platform.registry.host import HostRegistry

EVENT_STREAM = "text/event-stream"

HEARTBEAT_S = 10.0
"""Proxies end connections on which nothing has come for a minute, or for half of one."""

_REVISION = Annotated[int, msgspec.Meta(ge=0)]
AFTER_REVISION = QueryParameter(
    "after_revision", _REVISION, "Changes after this revision; from now on where absent. Last-Event-ID goes before it."
)
LIST_FIRST = QueryParameter("list_first", bool, "Begin with all services as they are.")
CATEGORY_ID = QueryParameter("ser_category_id", str, "Services of these categories.", repeated=True)
APP_INSTANCE_ID = QueryParameter("app_instance_id", str, "Services of these application instances.", repeated=True)
STATE = QueryParameter("state", ServiceState, "Services in these states.", repeated=True)
MODEL = QueryParameter("model", str, "Services that run these models.", repeated=True)


@dataclass(frozen=True, slots=True)
class _Wish:
    after_revision: int | None
    list_first: bool
    wanted: WatchFilter
    base_uri: str


class RegistryWatch:
    """The handler over one host's registry. `confirm` raises where a request may be made no more."""

    def __init__(self, host: HostRegistry, confirm: Callable[[web.Request], None]) -> None:
        self._host = host
        self._feed = host.changes
        self._confirm = confirm
        self._writer = EventWriter(ServiceWriter(SERVICES_PATH))
        self._open: set[asyncio.Task[None]] = set()

    def operations(self) -> list[Operation]:
        """The one resource."""
        return [
            Operation(
                method="GET",
                path="/registry/v1/watch",
                operation_id="watchServices",
                summary="Watch services: an event for each revision, resumable; `compacted` where that revision is gone",
                tag="Service registry",
                scope=Scope.SERVICE_MANAGEMENT,
                handler=self.watch,
                query=(AFTER_REVISION, LIST_FIRST, SER_NAME, CATEGORY_ID, APP_INSTANCE_ID, STATE, MODEL),
                answers={HTTPStatus.OK: ServiceChangesMessage},
                errors=frozenset({HTTPStatus.FORBIDDEN}),
                media_type=EVENT_STREAM,
            )
        ]

    def attach(self, app: web.Application) -> None:
        """Has the watches end when the application does."""
        app.on_shutdown.append(self._end_all)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Goes on until the client goes, or falls too far behind."""
        wish = self._read(request)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: EVENT_STREAM, hdrs.CACHE_CONTROL: "no-store"})
        if request.method == "HEAD":
            return response
        try:
            with self._feed.watch(wish.after_revision, owner_of(request)) as watcher:
                await self._send(request, response, watcher, wish)
        except (ChangesCompacted, RevisionAhead) as gone:
            # An event, for browsers show scripts nothing of an answer that is no stream.
            if not response.prepared:
                await response.prepare(request)
            await response.write(compacted_event(gone.current))
        except (ConnectionError, Unauthenticated, TooManyRequests):
            # The client has gone, or its token: what was sent stands, and there is nobody to tell more.
            pass
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, watcher: Watcher, wish: _Wish) -> None:
        # The list and the place of the watcher are of one revision: nothing is awaited between the two.
        state = self._host.registry.state
        services = map(state.services.__getitem__, state.in_order(state.services) if wish.list_first else ())
        revision = watcher.seen
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await response.prepare(request)
            if wish.list_first:
                wanted = filter(wish.wanted.matches, services)
                for event in self._writer.listing(wanted, revision, wish.wanted, wish.base_uri):
                    await response.write(event)
            else:
                await response.write(heartbeat(revision))
            await self._follow(request, response, watcher, wish)
        finally:
            self._open.discard(task)

    async def _follow(self, request: web.Request, response: web.StreamResponse, watcher: Watcher, wish: _Wish) -> None:
        async def send(changes: ChangeSet) -> bool:
            events = self._writer.changes(changes, wish.wanted, wish.base_uri)
            for event in events:
                await response.write(event)
            return bool(events)

        async def pause(revision: int) -> None:
            self._confirm(request)
            await response.write(heartbeat(revision))

        await watcher.follow(send, pause, HEARTBEAT_S)

    def _read(self, request: web.Request) -> _Wish:
        """Raises BadRequest."""
        after, list_first = read_value(request, AFTER_REVISION), bool(read_value(request, LIST_FIRST))
        if list_first and after is not None:
            raise BadRequest("list_first and after_revision exclude each other")
        resumed = request.headers.get("Last-Event-ID", "")
        if resumed:
            after, list_first = _read_event_id(resumed), False
        wanted = WatchFilter(
            names=frozenset(read_values(request, SER_NAME)),
            category_ids=frozenset(read_values(request, CATEGORY_ID)),
            app_instance_ids=frozenset(read_values(request, APP_INSTANCE_ID)),
            states=frozenset(read_values(request, STATE)),
            models=frozenset(read_values(request, MODEL)),
            place=consumer_locality(request, self._host.registry.state, self._host.services.locality),
        )
        return _Wish(after, list_first, wanted, base_uri(request))

    async def _end_all(self, app: web.Application) -> None:
        for task in self._open:
            task.cancel()


def _read_event_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise BadRequest("Last-Event-ID must be the id of an event of this resource")
    return int(text)
