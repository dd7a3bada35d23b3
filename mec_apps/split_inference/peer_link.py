"""The sending end of the data plane: one long-lived stream to one edge node, used by gateways and by nodes.

Nothing but a hello is sent before the node at the other end has said that it is the one that is meant.

Frames leave in the order of `send`. What comes back (results, refusals, echoes of probes) goes to `on_frame`. A stream
that breaks is reported once through `on_lost` and opened again in the background until `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc
import grpc.aio

from mec_apps.split_inference.frames import (
    ARRIVAL,
    HEADER,
    Frame,
    FrameError,
    FrameKind,
    pack_frame,
    unpack_frame,
)
from mec_apps.split_inference.link_meter import CLEAR_S, SURE_S, LinkMeter, ProbeBudget
from mec_apps.split_inference.link_shaper import LinkShaper, LinkShapers
from mec_platform.background import BackgroundTasks
from mec_platform.domain.failures import Failure, FailureKind
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.endpoints import open_member_channel

DATA_PLANE_SERVICE = "mec_platform.rpc.v1.DataPlane"
FRAMES_METHOD = f"/{DATA_PLANE_SERVICE}/Frames"
"""Bidirectional stream of raw bytes: no protobuf around the payload."""

SMALLEST_PROBE_BYTES = 512
FIRST_PROBE_BYTES = 4096
"""Costs a slow link (50 kB/s) a tenth of a second; larger probes follow only where this one was over at once."""

LARGEST_PROBE_BYTES = 512 << 10
PROBE_LASTS_S = 0.015
"""What a probe is to take on a link whose rate is known: clear of noise, and 1 % of the time every one and a half seconds."""

PROBES = 3
"""Probes of a size, the quickest of which counts. One that says what was known is not repeated, and two that are slower than
SURE_S are no accident; while processes start, a machine may stand still for that long once."""

FAST_BYTES_PER_S = 50e6
"""Between links that are faster than this, a probe of milliseconds cannot tell."""

WATCH_PROBE_BYTES = 64 << 10
"""Of a link that was found that fast lately: over at once, it still is no slow one, and costs an eighth of the probe that
would say how fast it is."""

ROUND_TRIPS = 3
"""Empty probes, where the first took longer than the last ones: the shortest counts."""

PROBE_EVERY_S = 2.0
PASSIVE_FRESH_S = 10.0
"""While frames have told the rate so lately, it is not probed; nor while frames wait to leave."""

LONGEST_WITHOUT_TRIP_S = 5.0
PROBE_TIMEOUT_S = 2.0
RECONNECT_PAUSE_S = 0.3
FLUSH_S = 0.5
FASTEST_MEASURABLE_BYTES_PER_S = 1e9
"""Above this a probe's extra time drowns in the round trip's noise."""

_MEASURED = frozenset({FrameKind.TOKENS, FrameKind.ROWS, FrameKind.HIDDEN})
_log = logging.getLogger(__name__)


class LinkLost(Exception):
    """The stream to a peer is not there (any more)."""


@dataclass(frozen=True, slots=True)
class LinkMeasurement:
    """What was measured from this side to `peer` since the last time; 0 for what was not. `passive` is of the rate."""

    peer: str
    bytes_per_s: float
    round_trip_s: float
    emulated: bool
    passive: bool = False


class PeerLink:
    """A stream to the node `peer` at `address`, as `identity`. `hello` names this side and, for a gateway, its number."""

    def __init__(
        self,
        peer: str,
        address: str,
        hello: Frame,
        shaper: LinkShaper,
        on_frame: Callable[[str, Frame], None],
        on_lost: Callable[[str, Failure], None],
        identity: GrpcIdentity | None = None,
    ) -> None:
        self.peer = peer
        self.address = address
        self._hello = hello
        self._shaper = shaper
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._identity = identity
        self._tasks = BackgroundTasks()
        self._outbound: asyncio.Queue[tuple[float, Frame]] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._serving = asyncio.timeout(None)
        self._broken_off: Failure | None = None
        self._echoes: dict[int, asyncio.Future[float]] = {}
        self._probe_number = 0
        self._meter = LinkMeter()
        self._budget = ProbeBudget()
        self._rate = 0.0
        self._rate_due_s = 0.0
        self._watched_until_s = 0.0
        self._round_trip_s = 0.0
        self._trip_at_s = -LONGEST_WITHOUT_TRIP_S

    @property
    def connected(self) -> bool:
        """Whether the peer has answered on the present stream."""
        return self._connected.is_set()

    def start(self) -> None:
        """Connects in the background, and again after every break, until `close`."""
        self._tasks.start(f"link to {self.peer}", self._keep_connected())

    async def wait_connected(self, timeout_s: float) -> None:
        """Raises LinkLost where the peer does not answer in time; the link goes on trying."""
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except TimeoutError as error:
            raise LinkLost(f"{self.peer} at {self.address} did not answer within {timeout_s:g} s") from error

    def send(self, frame: Frame) -> None:
        """Queues a frame. Raises LinkLost while the stream is broken; frames queued before a break are lost."""
        if not self.connected:
            raise LinkLost(f"no connection to {self.peer} at {self.address}")
        self._outbound.put_nowait((time.perf_counter(), frame))

    def break_off(self, failure: Failure) -> None:
        """Ends the stream for what its user has seen of the peer; it is opened again once the peer answers."""
        if self.connected and self._broken_off is None:
            self._broken_off = failure
            self._serving.reschedule(asyncio.get_running_loop().time())

    async def measure(self) -> LinkMeasurement:
        """What frames have told since the last call; what they have not is probed, when it is due and the budget allows.

        Raises:
            LinkLost: a probe does not return.
        """
        now_s = time.perf_counter()
        round_trip_s = self._meter.take_round_trip_s() or await self._probe_round_trip(now_s)
        if round_trip_s:
            self._round_trip_s, self._trip_at_s = round_trip_s, now_s
        told = self._meter.take_rate(self._round_trip_s)
        rate = told.bytes_per_s
        if rate:
            self._rate_due_s = now_s + PASSIVE_FRESH_S
        elif told.at_least > 2 * self._rate > 0:
            self._rate_due_s = self._watched_until_s = 0.0  # frames went faster than the link was thought to be
        if not rate and now_s >= self._rate_due_s and self._is_idle and self._budget.allows(self._probe_bytes(), now_s):
            rate = await self._probe_rate(self._round_trip_s, self._largest_probe_bytes(now_s))
            agrees, now_s = self._agrees(rate), time.perf_counter()
            # What says something else than before is asked again at once: estimates follow when two agree.
            self._rate_due_s = now_s + PROBE_EVERY_S if agrees or not rate else 0.0
            if rate:
                self._watched_until_s = now_s + PASSIVE_FRESH_S if agrees else 0.0
        if rate:
            self._rate = rate = min(rate, FASTEST_MEASURABLE_BYTES_PER_S)
            self._budget.know(rate, time.perf_counter())
        emulated = self._shaper.link is not None
        return LinkMeasurement(self.peer, rate, round_trip_s, emulated, passive=told.bytes_per_s > 0)

    @property
    def _is_idle(self) -> bool:
        return self._outbound.empty() and self._meter.is_at_rest

    async def _probe_round_trip(self, now_s: float) -> float:
        """The round trip of an empty frame; one that seems to have risen is measured again. 0 where the budget is spent."""
        waits = not self._is_idle and now_s - self._trip_at_s < LONGEST_WITHOUT_TRIP_S  # behind frames it would be late
        if waits or not self._budget.allows(0, now_s):
            return 0.0
        found = await self._ping_or_lose(0)
        for _ in range(ROUND_TRIPS - 1):
            if found <= 1.5 * self._round_trip_s + CLEAR_S / 2 and self._round_trip_s:
                break
            found = min(found, await self._ping_or_lose(0))
        return found

    async def _probe_rate(self, round_trip_s: float, largest: int) -> float:
        """Larger and larger probes until one takes clearly longer than an empty one; on a link that is known, the size that
        does, after one that would tell if the link had become slow meanwhile. 0 where `largest` is too small to tell."""
        usual = min(self._probe_bytes(), largest)
        size = min(usual, FIRST_PROBE_BYTES)
        extra_s = await self._extra_s(size, round_trip_s)
        if extra_s < CLEAR_S and size < usual:
            size = usual
            extra_s = await self._extra_s(size, round_trip_s)
        while extra_s < CLEAR_S and size < largest:
            size *= 2
            extra_s = await self._extra_s(size, round_trip_s)
        if extra_s < CLEAR_S and largest < LARGEST_PROBE_BYTES:
            return 0.0
        return size / extra_s if extra_s > 0 else FASTEST_MEASURABLE_BYTES_PER_S

    def _largest_probe_bytes(self, now_s: float) -> int:
        watched = self._rate > FAST_BYTES_PER_S and now_s < self._watched_until_s
        return WATCH_PROBE_BYTES if watched else LARGEST_PROBE_BYTES

    def _probe_bytes(self) -> int:
        if self._rate == 0.0:
            return FIRST_PROBE_BYTES
        size = SMALLEST_PROBE_BYTES
        while size < self._rate * PROBE_LASTS_S and size < LARGEST_PROBE_BYTES:
            size *= 2
        return size

    async def _extra_s(self, size: int, round_trip_s: float) -> float:
        """How much longer a probe of that size takes than an empty one: the least of three, where it takes little.

        A busy machine delays a probe by milliseconds now and then; a slow link delays every one of them.
        """
        least = PROBE_TIMEOUT_S
        for number in range(PROBES):
            self._budget.spend(size)
            took_s = await self.ping(bytes(size))
            least = min(least, PROBE_TIMEOUT_S if took_s is None else took_s - round_trip_s)
            if least < CLEAR_S or self._agrees(size / least) or (number and least > SURE_S):
                break
        return least

    def _agrees(self, rate: float) -> bool:
        both_fast = min(rate, self._rate) > FAST_BYTES_PER_S
        return both_fast or 0.8 * self._rate < rate < 1.25 * self._rate

    async def _ping_or_lose(self, size: int) -> float:
        self._budget.spend(size)
        took_s = await self.ping(bytes(size))
        if took_s is None:
            raise LinkLost(f"{self.peer} at {self.address} did not echo a probe")
        return took_s

    async def close(self) -> None:
        """Ends the stream without reporting it as lost; what is queued has a moment to leave."""
        if self.connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._outbound.join(), FLUSH_S)
        self._connected.clear()
        await self._tasks.stop()

    async def ping(self, payload: bytes) -> float | None:
        """Seconds until the peer has echoed a frame with this payload; None where it does not in time. Raises LinkLost."""
        self._probe_number += 1
        number = self._probe_number
        echo = self._echoes[number] = asyncio.get_running_loop().create_future()
        sent = time.perf_counter()
        try:
            self.send(Frame(FrameKind.PROBE, session=number, payload=payload))
            returned: float = await asyncio.wait_for(echo, PROBE_TIMEOUT_S)
        except TimeoutError:
            return None
        else:
            return returned - sent
        finally:
            del self._echoes[number]

    async def _keep_connected(self) -> None:
        while True:
            failure = await self._run_stream()
            if self._connected.is_set():
                self._connected.clear()
                self._on_lost(self.peer, failure)
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _run_stream(self) -> Failure:
        """Serves one stream until it breaks or is broken off; returns why."""
        self._broken_off, self._serving = None, asyncio.timeout(None)
        try:
            async with self._serving:
                return Failure(FailureKind.LINK_BROKEN, await self._serve())
        except TimeoutError:
            return self._broken_off or Failure(FailureKind.LINK_BROKEN, "the stream timed out")

    async def _serve(self) -> str:
        self._outbound = asyncio.Queue()
        self._meter.reset()
        async with open_member_channel(self.address, self._identity, self.peer) as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(FRAMES_METHOD)()
            try:
                await call.write(pack_frame(self._hello))
                writer = self._tasks.start(f"writer to {self.peer}", self._write(call, self._outbound))
                try:
                    return await self._read(call)
                finally:
                    await self._tasks.cancel(writer)
            except grpc.aio.AioRpcError as error:
                return error.details() or error.code().name
            except asyncio.InvalidStateError:
                return "the stream was closed by the peer"
            finally:
                call.cancel()

    async def _write(
        self, call: grpc.aio.StreamStreamCall[bytes, bytes], outbound: asyncio.Queue[tuple[float, Frame]]
    ) -> None:
        # A broken stream ends this quietly: the reader sees the same break and says why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                ready_s, frame = await outbound.get()
                if frame.kind in _MEASURED and self._meter.ask(
                    HEADER.size + len(frame.payload), ready_s, time.perf_counter()
                ):
                    frame = replace(frame, flags=frame.flags | ARRIVAL)
                message = pack_frame(frame)
                await self._shaper.wait_turn(len(message))
                await call.write(message)
                self._meter.wrote(time.perf_counter())
                outbound.task_done()

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> str:
        while True:
            message = await call.read()
            if not isinstance(message, bytes):
                return "the peer closed the stream"
            try:
                frame = unpack_frame(message)
            except FrameError as error:
                return f"the peer sent no frame: {error}"
            if frame.kind is FrameKind.HELLO:
                said = frame.payload.decode(errors="replace")
                if said != self.peer:  # its port has got another owner: nothing of the peer's is for that one
                    return f"{said!r} answers at {self.address}, not {self.peer}"
                self._connected.set()
            elif frame.kind is FrameKind.ARRIVED:
                self._meter.arrived(frame.epoch / 1e9, time.perf_counter())
            elif frame.kind is FrameKind.PROBE_ECHO:
                echo = self._echoes.get(frame.session)
                if echo is not None and not echo.done():
                    echo.set_result(time.perf_counter())
            else:
                self._on_frame(self.peer, frame)


class LinkPool:
    """The links of one process, one to each peer, kept until the peer has left or has another address."""

    def __init__(
        self,
        hello: Frame,
        shapers: LinkShapers,
        on_frame: Callable[[str, Frame], None],
        on_lost: Callable[[str, Failure], None],
        identity: GrpcIdentity | None = None,
    ) -> None:
        self.identity = identity
        """Whom the links prove to be; None in the clear."""
        self._hello = hello
        self._shapers = shapers
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._links: dict[str, PeerLink] = {}

    async def connect(self, peer: str, address: str, timeout_s: float) -> PeerLink:
        """The link to a peer, once it is connected. Raises LinkLost where it does not answer in time."""
        link = self._links.get(peer)
        if link is None or link.address != address:
            replaced = link
            shaper = self._shapers.to(peer)
            link = PeerLink(peer, address, self._hello, shaper, self._on_frame, self._on_lost, self.identity)
            self._links[peer] = link
            link.start()
            if replaced is not None:
                await replaced.close()
        await link.wait_connected(timeout_s)
        return link

    def get(self, peer: str) -> PeerLink:
        """The link to a peer. Raises LinkLost where there is none."""
        link = self._links.get(peer)
        if link is None:
            raise LinkLost(f"there is no link to {peer}")
        return link

    @property
    def all(self) -> tuple[PeerLink, ...]:
        """The link to every peer, connected or not."""
        return tuple(self._links.values())

    async def measure(self, peer: str, address: str) -> LinkMeasurement | None:
        """What was measured of the link to a peer, which is opened if need be; None where it does not answer."""
        try:
            return await (await self.connect(peer, address, timeout_s=1.0)).measure()
        except LinkLost:
            return None

    async def keep_only(self, peers: frozenset[str]) -> None:
        """Closes the links to all others: they have left."""
        for peer in [peer for peer in self._links if peer not in peers]:
            await self._links.pop(peer).close()

    async def close(self) -> None:
        """Closes every link."""
        await self.keep_only(frozenset())
