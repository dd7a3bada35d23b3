"""Clients and watchers of a registry whose platforms die: each goes on with the next platform where the last one left it.

A client repeats what was not acknowledged under the same idempotency key. A watcher resumes after the last revision that it has
seen; told that changes after it were dropped, it lists again, and its history begins anew there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mec_apps.cli.service_watch import change_sets
from mec_platform.background import BackgroundTasks
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.rpc.endpoints import open_channel
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import registry_pb2_grpc
from tests.benchmarks.machine import BenchmarkError
from tests.benchmarks.registry_offers import make_registration
from tests.registry.histories import Seen

PATIENCE_S = 60
_ASK_AGAIN_S = 0.02


@dataclass(slots=True)
class Client:
    """Registers one service after the other. `acknowledged` are their ids, by idempotency key."""

    name: str
    app_instance_id: str
    acknowledged: dict[str, str] = field(default_factory=dict)

    async def act(self, stub: registry_pb2_grpc.ServiceRegistryAsyncStub) -> None:
        """Until the platform is gone."""
        while True:
            number = len(self.acknowledged)
            request = make_registration(self.app_instance_id, number, idempotency_key=f"{self.name}-{number}")
            request.description.version = request.idempotency_key
            try:
                reply = await stub.Register(request)
            except grpc.aio.AioRpcError as error:
                _require_gone(error)
                return
            self.acknowledged[request.idempotency_key] = reply.service.service_id


@dataclass(slots=True)
class History:
    """What a watcher has seen from one revision on; `listed` are the ids of the services that were there then."""

    after: int
    listed: frozenset[str] = frozenset()
    seen: list[Seen] = field(default_factory=list)
    up_to: int = 0


class Watcher:
    """Watches everything. `histories` has one, and one more for each time that it had to list again."""

    def __init__(self, after: int) -> None:
        self.histories = [History(after, up_to=after)]
        self._lists_again = False

    @property
    def came_to(self) -> int:
        """The revision after which it resumes."""
        return self.histories[-1].up_to

    async def act(self, stub: registry_pb2_grpc.ServiceRegistryAsyncStub) -> None:
        """Until the platform is gone."""
        while True:
            try:
                await self._watch(stub)
            except grpc.aio.AioRpcError as error:
                match _reason(error):
                    case "CHANGES_COMPACTED":
                        self._lists_again = True
                    case "REVISION_AHEAD":  # A replica that has not read yet what another one has told.
                        await asyncio.sleep(_ASK_AGAIN_S)
                    case _:
                        _require_gone(error)
                        return

    async def _watch(self, stub: registry_pb2_grpc.ServiceRegistryAsyncStub) -> None:
        request = pb.WatchRequest(list_first=True)
        if not self._lists_again:
            request = pb.WatchRequest(after_revision=self.came_to)
        async for revision, changes in change_sets(stub.Watch(request)):
            if self._lists_again:
                self._lists_again = False
                listed = frozenset(each.service.service_id for each in changes)
                self.histories.append(History(revision, listed, up_to=revision))
                continue
            history = self.histories[-1]
            history.seen += [_seen(revision, each) for each in changes]
            history.up_to = revision


async def act_until_killed(
    address: str, kill: Callable[[], None], life_s: float, crowd: Sequence[Client | Watcher]
) -> None:
    """All of them act on a platform, which is killed so long after they have reached it."""
    async with open_channel(address) as channel, BackgroundTasks() as tasks:
        stub: registry_pb2_grpc.ServiceRegistryAsyncStub = registry_pb2_grpc.ServiceRegistryStub(channel)
        await channel.channel_ready()
        under_way = [tasks.start(f"crowd {number}", each.act(stub)) for number, each in enumerate(crowd)]
        await asyncio.sleep(life_s)
        kill()
        await asyncio.gather(*under_way)


async def watch_up_to(address: str, revision: int, watchers: Sequence[Watcher]) -> None:
    """They resume, until all have come to that revision. Raises BenchmarkError where one does not."""
    async with open_channel(address) as channel, BackgroundTasks() as tasks:
        stub: registry_pb2_grpc.ServiceRegistryAsyncStub = registry_pb2_grpc.ServiceRegistryStub(channel)
        for number, each in enumerate(watchers):
            tasks.start(f"watcher {number}", each.act(stub))
        await until(lambda: _all_came_to(watchers, revision), f"a watcher does not come to revision {revision}")


async def until(holds: Callable[[], Awaitable[bool]], complaint: str) -> None:
    """Returns when it holds. Raises BenchmarkError where that takes longer than `PATIENCE_S`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await holds():
                    return
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError:
        raise BenchmarkError(complaint) from None


async def list_services(address: str) -> Mapping[str, str]:
    """Versions of all services by their ids: here that is the key under which each was registered."""
    async with open_channel(address) as channel:
        stub: registry_pb2_grpc.ServiceRegistryAsyncStub = registry_pb2_grpc.ServiceRegistryStub(channel)
        async for _, changes in change_sets(stub.Watch(pb.WatchRequest(list_first=True))):
            return {each.service.service_id: each.service.description.version for each in changes}
    raise BenchmarkError(f"{address} lists nothing")


async def _all_came_to(watchers: Sequence[Watcher], revision: int) -> bool:
    return all(each.came_to >= revision for each in watchers)


def _seen(revision: int, change: pb.ServiceChange) -> Seen:
    kind = ChangeType[pb.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_")]
    return Seen(revision, kind, change.service.service_id, "")


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in rpc_status.status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


def _require_gone(error: grpc.aio.AioRpcError) -> None:
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        raise error
