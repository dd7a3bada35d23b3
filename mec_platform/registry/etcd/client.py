"""Calls to an etcd cluster: the members in turn, one deadline for all attempts, and errors that say what to do.

Every call may reach etcd twice, since an attempt whose answer is lost is made again elsewhere. Callers make their
requests so that this is harmless: transactions compare what they rely on, and can tell their own traces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.rpc.etcd import etcd_pb2 as pb
from mec_platform.rpc.etcd.etcd_pb2_grpc import AuthStub, KVStub, LeaseStub, WatchStub

Response = TypeVar("Response")

ATTEMPT_S = 1.0
"""A member that is silent this long is given up for the next one."""

PAUSE_S = 0.05
"""Between attempts: members without a leader refuse at once."""

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A member that vanished is noticed within the sum; etcd takes it ill where it is asked more often than every 5 s.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Each client has connections of its own, so that closing one closes them.
    ("grpc.use_local_subchannel_pool", 1),
]

_TRY_ANOTHER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_PASSING = ("too many requests", "context deadline exceeded", "context canceled")
"""What a member says under other codes when it is busy, has no quorum or goes down."""

_REMEDIES = (
    ("space exceeded", "its database is full: etcdctl compact and defrag it, then etcdctl alarm disarm; have etcd compact"
     " itself with --auto-compaction-retention=1h"),
    ("user name is empty", "it asks for a user: name one with --etcd-user and --etcd-password-file"),
    ("authentication failed", "check --etcd-user and --etcd-password-file"),
    ("permission denied", "grant the user read and write under the prefix: etcdctl role grant-permission --prefix"),
)  # fmt: skip

SILENCE = "check that more than half of its members run, and that this machine reaches one of them"


class HistoryGone(Exception):
    """etcd has compacted its own history up to or beyond the revision that was asked for: begin with what is there now."""


class LeaseGone(Exception):
    """The lease has ended, or was never given."""


class WatchLost(Exception):
    """A watch ended: its member is gone, has no leader, or this client is closed."""


class Member:
    """One member of the cluster, and what can be called there."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.channel = (
            grpc.aio.insecure_channel(address, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        )
        self.kv, self.watch = KVStub(self.channel), WatchStub(self.channel)
        self.lease, self.auth = LeaseStub(self.channel), AuthStub(self.channel)


class EtcdClient:
    """Calls one cluster. Make it in a running event loop, and close it."""

    def __init__(self, settings: EtcdSettings) -> None:
        """Raises OSError where a file of `settings.tls` cannot be read."""
        self._settings = settings
        credentials = _credentials(settings)
        self._members = [Member(each, credentials) for each in settings.endpoints]
        self._current = 0
        self._token: str | None = None
        self._watches: set[grpc.aio.StreamStreamCall[Any, Any]] = set()
        self.is_reachable = True
        """Whether the last call came through; a call fails only when no member answers within the deadline."""

    async def close(self) -> None:
        """Ends every watch and closes the connections."""
        for watch in self._watches:
            watch.cancel()
        for member in self._members:
            await member.channel.close()

    # Keys

    async def range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        """Reads keys. Raises LogUnavailable, HistoryGone."""
        return await self.call(lambda member: member.kv.Range, request)

    async def txn(
        self,
        success: Sequence[pb.RequestOp],
        compare: Sequence[pb.Compare] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        """One transaction. Raises LogUnavailable, after which it may have happened, or may still happen."""
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        return await self.call(lambda member: member.kv.Txn, request)

    async def watch(self, create: pb.WatchCreateRequest) -> AsyncGenerator[Sequence[pb.Event], None]:
        """Events as they come, in order, those of one etcd revision together. Raises WatchLost, HistoryGone."""
        member = self._members[self._current]
        call: grpc.aio.StreamStreamCall[Any, Any] | None = None
        try:
            call = member.watch.Watch(metadata=[*await self._metadata(member), ("hasleader", "true")])
            self._watches.add(call)
            # gRPC waits for ever where the call ends before it has begun.
            async with asyncio.timeout(ATTEMPT_S):
                await call.write(pb.WatchRequest(create_request=create))
            while True:
                response = await call.read()
                if not isinstance(response, pb.WatchResponse):
                    raise WatchLost("the member ended it")
                if response.compact_revision:
                    raise HistoryGone
                if response.canceled:
                    raise WatchLost(response.cancel_reason)
                yield response.events
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, TimeoutError) as error:
            self._token = None  # It may have expired.
            self._try_another()
            raise WatchLost(str(error)) from error
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise WatchLost("the client is closed") from None
        finally:
            if call is not None:
                self._watches.discard(call)
                call.cancel()

    # Leases

    async def grant_lease(self, ttl_s: int) -> pb.LeaseGrantResponse:
        """A lease of at least that time. One whose answer was lost ends by itself. Raises LogUnavailable."""
        return await self.call(lambda member: member.lease.LeaseGrant, pb.LeaseGrantRequest(TTL=ttl_s))

    async def revoke_lease(self, lease_id: int) -> None:
        """Ends a lease and deletes its keys; one that has ended already is no error. Raises LogUnavailable."""
        with suppress(LeaseGone):
            await self.call(lambda member: member.lease.LeaseRevoke, pb.LeaseRevokeRequest(ID=lease_id))

    async def renew_lease(self, lease_id: int) -> int:
        """Seconds that the lease lasts from now on; 0 where it has ended. Raises LogUnavailable."""

        def once(member: Member) -> Callable[..., Awaitable[int]]:
            async def call(request: pb.LeaseKeepAliveRequest, **options: Any) -> int:
                stream = member.lease.LeaseKeepAlive(**options)
                try:
                    await stream.write(request)
                    response = await stream.read()
                except asyncio.InvalidStateError as error:
                    raise LogUnavailable(f"{self._settings}: the connection broke; {SILENCE}") from error
                finally:
                    stream.cancel()
                if not isinstance(response, pb.LeaseKeepAliveResponse):
                    raise LogUnavailable(f"{self._settings} gave no answer; {SILENCE}")
                return int(response.TTL)

            return call

        return await self.call(once, pb.LeaseKeepAliveRequest(ID=lease_id))

    # Attempts

    async def call(self, pick: Callable[[Member], Callable[..., Awaitable[Response]]], request: object) -> Response:
        """The answer of the first member that gives one.

        Raises:
            LogUnavailable: none did within the deadline, or etcd refuses; the message says what to do.
            HistoryGone: etcd keeps the revision that was asked for no more.
            LeaseGone: there is no such lease.
        """
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + self._settings.deadline_s
        while True:
            member = self._members[self._current]
            left_s = min(max(end_s - now_s(), 0.0), ATTEMPT_S)
            try:
                # gRPC keeps to its own time limit, but for streams that end before they have begun.
                async with asyncio.timeout(left_s + PAUSE_S):
                    metadata = await self._metadata(member)
                    answer = await pick(member)(request, timeout=left_s, metadata=metadata)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                reason = "silence" if isinstance(error, TimeoutError) else self._check(error)
                self._try_another()
                if now_s() + PAUSE_S >= end_s:
                    self.is_reachable = False
                    raise LogUnavailable(
                        f"{self._settings} did not answer within {self._settings.deadline_s:g} s ({reason}); {SILENCE}"
                    ) from error
                await asyncio.sleep(PAUSE_S)
            except (grpc.aio.UsageError, asyncio.CancelledError) as error:
                # gRPC cancels what is under way when its channel is closed.
                if _is_cancelled():
                    raise
                raise LogUnavailable(f"{self._settings}: the connection is closed") from error
            else:
                self.is_reachable = True
                return answer

    def _check(self, error: grpc.aio.AioRpcError) -> str:
        """Raises what the caller has to see; where another attempt may help, says why this one has failed."""
        code, details = error.code(), error.details() or ""
        reason = details or code.name
        if code is grpc.StatusCode.OUT_OF_RANGE:
            raise HistoryGone from error
        if code is grpc.StatusCode.NOT_FOUND:  # Nothing else that is asked for can be missing.
            raise LeaseGone from error
        if code is grpc.StatusCode.UNAUTHENTICATED and self._token is not None:
            self._token = None  # It has expired, or the member has been restarted.
            return reason
        if code in _TRY_ANOTHER or any(each in details for each in _PASSING):
            return reason
        remedy = next((remedy for symptom, remedy in _REMEDIES if symptom in details), "see the log of etcd")
        raise LogUnavailable(f"{self._settings} refuses: {reason}; {remedy}") from error

    def _try_another(self) -> None:
        self._current = (self._current + 1) % len(self._members)

    async def _metadata(self, member: Member) -> list[tuple[str, str]]:
        if not self._settings.user:
            return []
        if self._token is None:
            request = pb.AuthenticateRequest(name=self._settings.user, password=self._settings.password)
            self._token = (await member.auth.Authenticate(request, timeout=ATTEMPT_S)).token
        return [("token", self._token)]


def _credentials(settings: EtcdSettings) -> grpc.ChannelCredentials | None:
    tls = settings.tls
    if tls is None:
        return None
    return grpc.ssl_channel_credentials(
        tls.authority.read_bytes(),
        None if tls.key is None else tls.key.read_bytes(),
        None if tls.certificate is None else tls.certificate.read_bytes(),
    )


def _is_cancelled() -> bool:
    """Whether somebody has cancelled the task, and not gRPC the call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
