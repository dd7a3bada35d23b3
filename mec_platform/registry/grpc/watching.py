"""Watch: changes as they come, from any revision that the feed still has. Each watcher has its own place in the feed."""

from __future__ import annotations

from mec_platform.registry.change_feed import ChangeSet
from mec_platform.registry.grpc.calls import Caller, Gate
from mec_platform.registry.grpc.reading import read_watch
from mec_platform.registry.grpc.writing import RecordWriter, bookmark, write_changes
from mec_platform.registry.host import HostRegistry
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import registry_pb2 as pb


class Watching:
    """The method, over one host's registry."""

    def __init__(self, host: HostRegistry, gate: Gate, writer: RecordWriter) -> None:
        self._feed = host.changes
        self._registry = host.registry
        self._place = host.services.locality
        self._gate = gate
        self._writer = writer

    async def watch(self, request: pb.WatchRequest, context: Context, caller: Caller) -> None:
        """Goes on until the client goes, or falls too far behind.

        Raises:
            InvalidRequest, RevisionAhead, ChangesCompacted: as the request or the client's slowness has it.
            NotAuthenticated: the client's token has expired meanwhile.
        """
        wish = read_watch(request, self._place)
        with self._feed.watch(wish.after_revision, caller.client_id) as watcher:
            # The list and the place of the watcher are of one revision: nothing is awaited between the two.
            if wish.list_first:
                state = self._registry.state
                services = [state.services[each] for each in state.in_order(state.services)]
                for message in self._writer.listing(filter(wish.wanted.matches, services), watcher.seen):
                    await context.write(message)
            else:
                await context.write(bookmark(watcher.seen))

            async def send(changes: ChangeSet) -> bool:
                messages = write_changes(changes, wish.wanted)
                for message in messages:
                    await context.write(message)
                return bool(messages)

            async def pause(revision: int) -> None:
                self._gate.confirm(context)
                await context.write(bookmark(revision))

            await watcher.follow(send, pause, wish.bookmark_s)
