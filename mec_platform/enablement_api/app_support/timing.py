"""The platform's time and where it comes from (ETSI GS MEC 011 clauses 7.2.5 and 7.2.6): handlers and messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from http import HTTPStatus

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.app_support.handlers import ROOT
from mec_platform.enablement_api.exchange import TimeStamp, json_response
from mec_platform.enablement_api.operations import Operation
from mec_platform.host_time.clock_status import ClockReading, is_traceable
from mec_platform.host_time.time_sources import NtpAuthentication, NtpServer, PtpMaster, TimeSources
from mec_platform.registry.clock import Clock


class TimeSourceStatus(StrEnum):
    """Clause 7.1.2.5."""

    TRACEABLE = "TRACEABLE"
    NONTRACEABLE = "NONTRACEABLE"


class CurrentTime(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Clause 7.1.2.5."""

    seconds: int
    nano_seconds: int
    time_source_status: TimeSourceStatus


class AddressType(StrEnum):
    """How an NTP server's address is written."""

    IP_ADDRESS = "IP_ADDRESS"
    DNS_NAME = "DNS_NAME"


class NtpServerMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One of TimingCaps.ntpServers. Local priority 1 is the best; the key number is 0 where no key is used."""

    ntp_server_addr_type: AddressType
    ntp_server_addr: str
    min_polling_interval: int
    max_polling_interval: int
    local_priority: int
    authentication_option: NtpAuthentication
    authentication_key_num: int


class PtpMasterMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One of TimingCaps.ptpMasters."""

    ptp_master_ip_address: str
    ptp_master_local_priority: int
    delay_req_max_rate: int


class TimingCaps(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Clause 7.1.2.4."""

    time_stamp: TimeStamp
    ntp_servers: list[NtpServerMessage]
    ptp_masters: list[PtpMasterMessage]


@dataclass(frozen=True, slots=True)
class HostTime:
    """What is known of the host's time; without anything it is not traceable and comes from nowhere."""

    sources: TimeSources = field(default_factory=TimeSources)
    read_clock: Callable[[], ClockReading | None] = lambda: None


class Timing:
    """Handlers over the platform's clock."""

    def __init__(self, clock: Clock, host_time: HostTime) -> None:
        self._clock = clock
        self._read_clock = host_time.read_clock
        self._ntp_servers = [_of_server(*each) for each in enumerate(host_time.sources.ntp_servers, start=1)]
        self._ptp_masters = [_of_master(*each) for each in enumerate(host_time.sources.ptp_masters, start=1)]

    def operations(self) -> list[Operation]:
        """Both resources; they have a GET only."""
        row = partial(Operation, method="GET", tag="Application support", scope=Scope.APP_SUPPORT)
        return [
            row(
                path=f"{ROOT}/timing/timing_caps",
                operation_id="getTimingCaps",
                summary="Read which NTP servers and PTP masters there are",
                handler=self.get_timing_caps,
                answers={HTTPStatus.OK: TimingCaps},
            ),
            row(
                path=f"{ROOT}/timing/current_time",
                operation_id="getCurrentTime",
                summary="Read the platform's time",
                handler=self.get_current_time,
                answers={HTTPStatus.OK: CurrentTime},
            ),
        ]

    async def get_timing_caps(self, request: web.Request) -> web.Response:
        """GET the timing capabilities (clause 7.2.5.3.1)."""
        seconds, nano_seconds = divmod(self._clock.unix_ns(), 10**9)
        now = TimeStamp(seconds=seconds, nano_seconds=nano_seconds)
        return json_response(TimingCaps(time_stamp=now, ntp_servers=self._ntp_servers, ptp_masters=self._ptp_masters))

    async def get_current_time(self, request: web.Request) -> web.Response:
        """GET the platform's time (clause 7.2.6.3.1)."""
        status = TimeSourceStatus.TRACEABLE if is_traceable(self._read_clock()) else TimeSourceStatus.NONTRACEABLE
        seconds, nano_seconds = divmod(self._clock.unix_ns(), 10**9)
        return json_response(CurrentTime(seconds=seconds, nano_seconds=nano_seconds, time_source_status=status))


def _of_server(priority: int, server: NtpServer) -> NtpServerMessage:
    return NtpServerMessage(
        ntp_server_addr_type=AddressType.DNS_NAME if server.is_named else AddressType.IP_ADDRESS,
        ntp_server_addr=server.address,
        min_polling_interval=server.min_poll,
        max_polling_interval=server.max_poll,
        local_priority=priority,
        authentication_option=server.authentication,
        authentication_key_num=server.key_number,
    )


def _of_master(priority: int, master: PtpMaster) -> PtpMasterMessage:
    return PtpMasterMessage(
        ptp_master_ip_address=master.address,
        ptp_master_local_priority=priority,
        delay_req_max_rate=master.delay_requests_per_s,
    )
