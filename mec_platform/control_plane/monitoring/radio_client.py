"""Radio information for the capacity profiler, which gets it as any application does: over MEC 012 at a base URL.

It subscribes to handovers and measurements over WebSockets, so that nobody needs to reach it. Subscriptions end by themselves soon
after this client does; while it lives it asks for more time. Whatever breaks is set up again, more and more slowly.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Any, Protocol, TypeAlias

import aiohttp
import msgspec

from mec_platform.background import BackgroundTasks
from mec_platform.domain.errors import MendableError
from mec_platform.domain.radio import CellChange, RadioMeasurement
from mec_platform.domain.radio_ranges import EUTRA_RSRP, EUTRA_SINR, NR_RSRP, NR_SINR, ReportRange

logger = logging.getLogger(__name__)

SUBSCRIPTIONS = "rni/v2/subscriptions"

WISHES: tuple[dict[str, Any], ...] = (
    {"subscriptionType": "CellChangeSubscription", "filterCriteriaAssocHo": {}},
    {"subscriptionType": "NrMeasRepUeSubscription", "filterCriteriaNrMrs": {}},
    {"subscriptionType": "MeasRepUeSubscription", "filterCriteriaAssocTri": {}},
)
_ASK = {"websockNotifConfig": {"requestWebsocketUri": True}}

LONGEST_DELAY_S = 60.0
"""A notification that is said to be older than this comes from a clock that is wrong, and counts as this old."""

LARGEST_FRAME_BYTES = 1 << 16

TokenSupplier: TypeAlias = Callable[[], Awaitable[str]]
"""An access token with the scope rni; asked before every request, so it keeps the token while that is valid."""


class Clock(Protocol):
    """As `registry.clock.Clock`."""

    def monotonic_s(self) -> float: ...

    def unix_ns(self) -> int: ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioClientSettings:
    """Subscriptions live for `life_s` and are renewed when a third of that is over. Between attempts `first_delay_s` pass, then
    twice that, and so on, up to `longest_delay_s`, each time at random a half of it or more."""

    life_s: float = 180.0
    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    request_timeout_s: float = 10.0
    ping_every_s: float = 20.0


class _Refused(Exception):
    """The platform did not do what it was asked."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError, MendableError, _Refused)
"""What the next attempt may not meet any more; MendableError is what suppliers of tokens raise."""


@dataclass(slots=True)
class _Heard:
    """Whether anything has come over a connection."""

    anything: bool = False


class RadioClient:
    """Calls `on_measurement`, and `on_cell_change` where given, between `start` and `stop`.

    Measurements without power or without SINR are passed over: nobody could say what they mean for a link. Times are those of
    `clock`, when a measurement was made as far as the time stamp tells. `base_url` is the platform's; `tokens` is needed where that
    asks for tokens, `tls` where it speaks TLS with a certificate of one's own authority.
    """

    def __init__(
        self,
        base_url: str,
        on_measurement: Callable[[RadioMeasurement], None],
        *,
        clock: Clock,
        die: Random,
        on_cell_change: Callable[[CellChange], None] = lambda change: None,
        tokens: TokenSupplier | None = None,
        tls: ssl.SSLContext | None = None,
        settings: RadioClientSettings | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._on_measurement = on_measurement
        self._on_cell_change = on_cell_change
        self._clock = clock
        self._die = die
        self._tokens = tokens
        self._tls = tls
        self._settings = settings or RadioClientSettings()
        self._tasks = BackgroundTasks()
        self.connected = 0
        """Subscriptions that are listened to now, of three."""

    async def start(self) -> None:
        """Begins to subscribe; that nobody answers yet is no problem."""
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=settings.request_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        for wish in WISHES:
            self._tasks.start(f"radio: {wish['subscriptionType']}", self._follow(wish))

    async def stop(self) -> None:
        """Ends the subscriptions, where the platform answers, and then the connections. One that was just being made is left
        to end by itself."""
        await self._tasks.stop()
        await self._session.close()

    async def _follow(self, wish: dict[str, Any]) -> None:
        """One subscription, over all its connections, and another where the platform has forgotten it."""
        made: _Subscription | None = None
        failures = 0
        try:
            while True:
                heard = _Heard()
                try:
                    is_new = made is None
                    made = made or await self._subscribe(wish)
                    await self._listen(made, wish, heard, is_new=is_new)
                    reason = "the platform closed the WebSocket"
                except _FAILURES as error:
                    reason = str(error) or type(error).__name__
                    if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
                        made = None
                failures = 1 if heard.anything else failures + 1
                log = logger.warning if failures == 1 else logger.debug
                log("%s is interrupted, trying on: %s", wish["subscriptionType"], reason)
                await self._clock.sleep(self._delay_s(failures))
        finally:
            if made is not None:
                await self._end(made.links.self.href)

    def _delay_s(self, failures: int) -> float:
        settings = self._settings
        most = min(settings.first_delay_s * 2.0 ** min(failures - 1, 16), settings.longest_delay_s)
        return most * (0.5 + self._die.random() / 2)

    async def _subscribe(self, wish: dict[str, Any]) -> _Subscription:
        made = await self._request("POST", f"{self._base_url}/{SUBSCRIPTIONS}", HTTPStatus.CREATED, self._body(wish))
        return msgspec.json.decode(made, type=_Subscription)

    async def _listen(self, made: _Subscription, wish: dict[str, Any], heard: _Heard, *, is_new: bool) -> None:
        """One connection, during which the subscription is renewed. Returns, or raises one of `_FAILURES`, when it ends."""
        async with (
            self._session.ws_connect(
                made.websock_notif_config.websocket_uri,
                headers=await self._headers(),
                heartbeat=self._settings.ping_every_s,
                max_msg_size=LARGEST_FRAME_BYTES,
            ) as socket,
            BackgroundTasks() as tasks,
        ):
            tasks.start("renewal of a radio subscription", self._renew(made, wish, socket, is_new=is_new))
            self.connected += 1
            try:
                async for frame in socket:
                    if frame.type is aiohttp.WSMsgType.TEXT:
                        heard.anything = True
                        self._take(frame.data)
            finally:
                self.connected -= 1

    async def _renew(
        self, made: _Subscription, wish: dict[str, Any], socket: aiohttp.ClientWebSocketResponse, *, is_new: bool
    ) -> None:
        """Asks for more time again and again; nobody knows how much is left of a subscription that was made earlier."""
        try:
            if is_new:
                await self._clock.sleep(self._settings.life_s / 3)
            while True:
                await self._request("PUT", made.links.self.href, HTTPStatus.OK, self._body(wish))
                await self._clock.sleep(self._settings.life_s / 3)
        except _FAILURES as error:
            logger.info("a radio subscription is not renewed: %s", error)
            await socket.close()

    async def _end(self, own: str) -> None:
        try:
            await self._request("DELETE", own, HTTPStatus.NO_CONTENT, None)
        except _FAILURES as error:
            logger.debug("a radio subscription was left to end by itself: %s", error)

    def _body(self, wish: dict[str, Any]) -> bytes:
        seconds, nano_seconds = divmod(self._clock.unix_ns() + int(self._settings.life_s * 1e9), 10**9)
        deadline = {"expiryDeadline": {"seconds": seconds, "nanoSeconds": nano_seconds}}
        return msgspec.json.encode(wish | _ASK | deadline)

    async def _headers(self) -> dict[str, str]:
        return {} if self._tokens is None else {"Authorization": f"Bearer {await self._tokens()}"}

    async def _request(self, method: str, url: str, expected: HTTPStatus, body: bytes | None) -> bytes:
        headers = await self._headers() | {"Content-Type": "application/json"}
        async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
            content = await answer.read()
            if answer.status != expected:
                detail = content[:200].decode(errors="replace")
                raise _Refused(f"{method} {url}: HTTP {answer.status} {detail}", answer.status)
            return content

    def _take(self, frame: str) -> None:
        try:
            notification = msgspec.json.decode(frame, type=_Notification)
        except msgspec.DecodeError as error:
            logger.debug("a notification that this client cannot use: %s", error)
            return
        if not notification.associate_id:
            return
        ue, at_s = notification.associate_id[0].value, self._local_time_s(notification.time_stamp)
        match notification:
            case _CellChange(src_ecgi=source, trg_ecgi=[target, *_], ho_status=3):
                self._on_cell_change(CellChange(at_s, ue, source.cell_id, target.cell_id))
            case _NrMeasurement(serv_cell_meas_info=[serving, *_]):
                results = serving.s_cell.meas_quantity_results_ssb_cell
                self._measured(
                    ue,
                    at_s,
                    serving.nrcgi.cell_id,
                    _value(NR_RSRP, results.rsrp),
                    _value(NR_SINR, results.sinr),
                    notification,
                )
            case _EutraMeasurement(ecgi=ecgi, rsrp=rsrp, sinr=sinr):
                self._measured(ue, at_s, ecgi.cell_id, _value(EUTRA_RSRP, rsrp), _value(EUTRA_SINR, sinr), notification)

    def _measured(
        self,
        ue: str,
        at_s: float,
        cell: str,
        rsrp_dbm: float | None,
        sinr_db: float | None,
        notification: _Measurement,
    ) -> None:
        if rsrp_dbm is None or sinr_db is None:
            return
        round_trip_s = None if notification.round_trip_ms is None else notification.round_trip_ms / 1e3
        self._on_measurement(RadioMeasurement(at_s, ue, cell, rsrp_dbm, sinr_db, round_trip_s))

    def _local_time_s(self, stamp: _TimeStamp) -> float:
        """When that was by `clock`'s monotonic time: as long ago as the time stamp says, if that can be."""
        ago_s = (self._clock.unix_ns() - stamp.seconds * 10**9 - stamp.nano_seconds) / 1e9
        return self._clock.monotonic_s() - min(max(ago_s, 0.0), LONGEST_DELAY_S)


def _value(reported: ReportRange, number: int | None) -> float | None:
    """What a report says; None where it says nothing, or nothing that can be."""
    return None if number is None or not 0 <= number <= reported.last else reported.value(number)


class _Link(msgspec.Struct):
    href: str


class _SelfLinks(msgspec.Struct):
    self: _Link


class _WebsocketConfig(msgspec.Struct, rename="camel"):
    websocket_uri: str


class _Subscription(msgspec.Struct, rename="camel"):
    websock_notif_config: _WebsocketConfig
    links: _SelfLinks = msgspec.field(name="_links")


class _TimeStamp(msgspec.Struct, rename="camel"):
    seconds: int
    nano_seconds: int


class _AssociateId(msgspec.Struct):
    value: str


class _Ecgi(msgspec.Struct, rename="camel"):
    cell_id: str


class _Nrcgi(msgspec.Struct):
    """The files of the standard spell it in two ways."""

    first: str = msgspec.field(name="nrcellId", default="")
    second: str = msgspec.field(name="nrCellId", default="")

    @property
    def cell_id(self) -> str:
        return self.first or self.second


class _Results(msgspec.Struct):
    rsrp: int | None = None
    sinr: int | None = None


class _ServingCell(msgspec.Struct, rename="camel"):
    meas_quantity_results_ssb_cell: _Results = msgspec.field(default_factory=_Results)


class _ServingCellInfo(msgspec.Struct, rename="camel"):
    nrcgi: _Nrcgi
    s_cell: _ServingCell


class _OfUe(msgspec.Struct, kw_only=True, rename="camel", tag_field="notificationType"):
    time_stamp: _TimeStamp
    associate_id: list[_AssociateId] = []


class _CellChange(_OfUe, kw_only=True, rename="camel", tag="CellChangeNotification"):
    src_ecgi: _Ecgi
    trg_ecgi: list[_Ecgi]
    ho_status: int


class _Measurement(_OfUe, kw_only=True, rename="camel"):
    round_trip_ms: float | None = None


class _NrMeasurement(_Measurement, kw_only=True, rename="camel", tag="NrMeasRepUeNotification"):
    serv_cell_meas_info: list[_ServingCellInfo] = []


class _EutraMeasurement(_Measurement, kw_only=True, rename="camel", tag="MeasRepUeNotification"):
    ecgi: _Ecgi
    rsrp: int
    sinr: int | None = None


class _Expiry(_OfUe, kw_only=True, rename="camel", tag="ExpiryNotification"):
    """Only where a renewal was lost: the next one, or a new subscription, mends that."""


_Notification = _CellChange | _NrMeasurement | _EutraMeasurement | _Expiry
