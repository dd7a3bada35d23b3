"""Around every call: who makes it, what it is refused with, how long it took. The methods themselves are in `service`.

A wrapper and no gRPC interceptor: only this service has callers, and answers here are bytes that were written before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn, Protocol

import grpc

from mec_platform.registry.actor import ANONYMOUS, current_actor
from mec_platform.registry.grpc.refusals import FAILED, code_of, status_of
from mec_platform.rpc.endpoints import Context

logger = logging.getLogger(__name__)

STATUS_DETAILS = "grpc-status-details-bin"

STALE = (("mec-registry-stale", "true"),)
"""Metadata of answers from memory while the store is out of reach, as Warning: 110 is over HTTP: behind one answer, before
many."""

Method = Callable[[Any, Any, "Caller"], Awaitable[bytes]]
StreamMethod = Callable[[Any, Any, "Caller"], Awaitable[None]]
NoteCall = Callable[[str, str, float, bool], None]
"""Told of each call that has ended: its method, its status code, the seconds that it took, and whether it was a stream."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `owns_all` where everybody may do everything, and for administrators."""

    client_id: str = ""
    owns_all: bool = True


class Gate(Protocol):
    """Decides who may call; `enablement_api.security` has the one that reads tokens."""

    def admit(self, context: Context) -> Caller:
        """Who makes this call; the actor of what it changes is noted.

        Raises:
            NotAuthenticated, NotPermitted, RateExceeded: the call may not be made.
        """

    def confirm(self, context: Context) -> None:
        """For calls that last: whether the caller may go on. Raises NotAuthenticated where it may not."""


class OpenGate:
    """Everybody may do everything."""

    def admit(self, context: Context) -> Caller:
        """Anyone."""
        current_actor.set(ANONYMOUS)
        return Caller()

    def confirm(self, context: Context) -> None:
        """Always."""


def ignore_call(method: str, code: str, seconds: float, lasts: bool) -> None:
    """A `NoteCall` for who counts nothing."""


class Calls:
    """Makes method handlers of methods that take a request (or the requests), the context and the caller.

    `is_stale` says that what is answered may be old.
    """

    def __init__(self, gate: Gate, note: NoteCall, is_stale: Callable[[], bool]) -> None:
        self._gate = gate
        self._note = note
        self._is_stale = is_stale

    def unary(self, name: str, method: Method, reads: Callable[[bytes], Any]) -> Any:
        """One request, one answer, in bytes."""

        async def answer(request: Any, context: Context) -> bytes:
            start, code = perf_counter(), "OK"
            try:
                written = await method(request, context, self._gate.admit(context))
                if self._is_stale():
                    context.set_trailing_metadata(STALE)
                return written
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001
                code = code_of(error)[0].name
                await _abort(name, error, context)
            finally:
                self._note(name, code, perf_counter() - start, False)

        return grpc.unary_unary_rpc_method_handler(answer, request_deserializer=reads)

    def stream(self, name: str, method: StreamMethod, reads: Callable[[bytes], Any], *, of_requests: bool) -> Any:
        """One request, or many, and many answers, in bytes that the method writes itself."""

        async def answer(request: Any, context: Context) -> None:
            start, code = perf_counter(), "OK"
            try:
                caller = self._gate.admit(context)
                if self._is_stale():
                    await context.send_initial_metadata(STALE)
                await method(request, context, caller)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001
                code = code_of(error)[0].name
                await _abort(name, error, context)
            finally:
                self._note(name, code, perf_counter() - start, True)

        make = grpc.stream_stream_rpc_method_handler if of_requests else grpc.unary_stream_rpc_method_handler
        return make(answer, request_deserializer=reads)


async def _abort(name: str, error: Exception, context: Context) -> NoReturn:
    if code_of(error) is FAILED:
        logger.error("%s failed", name, exc_info=error)
    status, code = status_of(error), code_of(error)[0]
    await context.abort(code, status.message, ((STATUS_DETAILS, status.SerializeToString()),))
    raise AssertionError("unreachable: abort raises")
