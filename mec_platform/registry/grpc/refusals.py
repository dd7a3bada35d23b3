"""What is refused, and how a gRPC client learns why: one table, as `enablement_api.problem_details` has one for HTTP.

Refusals are `google.rpc.Status` with details: ErrorInfo says what it is in a word that programs may compare, BadRequest names
fields, QuotaFailure a quota, RetryInfo when the same call may do better.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from mec_platform.registry.errors import (
    ChangesCompacted,
    LogUnavailable,
    QuotaExceeded,
    RegistrationKeyUsed,
    RegistryError,
    RevisionAhead,
    StateConflict,
    UnknownAppInstance,
    UnknownService,
)
from mec_platform.registry.grpc.reading import InvalidRequest

logger = logging.getLogger(__name__)

DOMAIN = "mec_platform"

RETRY_UNAVAILABLE_S = 5
"""Storage that fails may be back soon, and need not be asked by everybody every second."""


class NotAuthenticated(Exception):
    """The call has no credentials that the platform knows."""


class NotPermitted(Exception):
    """Whoever calls is known and may not do this."""


class RateExceeded(Exception):
    """The client is over its limit; the same call may be made again after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many calls; slow down")
        self.retry_after_s = retry_after_s


ANSWERS: dict[type[Exception], tuple[grpc.StatusCode, str]] = {
    InvalidRequest: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    NotAuthenticated: (grpc.StatusCode.UNAUTHENTICATED, "NOT_AUTHENTICATED"),
    NotPermitted: (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"),
    RateExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_EXCEEDED"),
    UnknownAppInstance: (grpc.StatusCode.NOT_FOUND, "UNKNOWN_APP_INSTANCE"),
    UnknownService: (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SERVICE"),
    RegistrationKeyUsed: (grpc.StatusCode.ALREADY_EXISTS, "REGISTRATION_KEY_USED"),
    StateConflict: (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT"),
    QuotaExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
    ChangesCompacted: (grpc.StatusCode.OUT_OF_RANGE, "CHANGES_COMPACTED"),
    RevisionAhead: (grpc.StatusCode.OUT_OF_RANGE, "REVISION_AHEAD"),
    RegistryError: (grpc.StatusCode.FAILED_PRECONDITION, "REFUSED"),
    LogUnavailable: (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE"),
}
"""The first that fits counts, so kinds of errors come before what they are kinds of."""

FAILED = (grpc.StatusCode.INTERNAL, "FAILED")


def code_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Status code and reason; INTERNAL for what nobody has thought of."""
    return next((answer for kind, answer in ANSWERS.items() if isinstance(error, kind)), FAILED)


def message_of(error: Exception) -> str:
    """What the client reads. Of a defect it learns nothing: that is for the log."""
    return "the platform failed to handle this call; its log says why" if code_of(error) is FAILED else str(error)


def status_of(error: Exception) -> Status:
    """The whole answer, with details."""
    code, reason = code_of(error)
    status = Status(code=code.value[0], message=message_of(error))
    facts = {"revision": str(error.current)} if isinstance(error, (ChangesCompacted, RevisionAhead)) else {}
    _add(status, [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts), *_details(error)])
    return status


def _details(error: Exception) -> Iterable[Message]:
    match error:
        case InvalidRequest():
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description)
                for each in error.violations
            ]
            return [error_details_pb2.BadRequest(field_violations=violations)]
        case QuotaExceeded():
            # No RetryInfo: waiting does not help, something has to go first.
            violation = error_details_pb2.QuotaFailure.Violation(description=str(error))
            return [error_details_pb2.QuotaFailure(violations=[violation])]
        case RateExceeded():
            return [_retry(error.retry_after_s)]
        case LogUnavailable():
            return [_retry(RETRY_UNAVAILABLE_S)]
    return []


def _retry(seconds: float) -> error_details_pb2.RetryInfo:
    whole, rest = divmod(int(seconds * 1e9), 10**9)
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=whole, nanos=rest))


def _add(status: Status, details: Iterable[Message]) -> None:
    for detail in details:
        packed: AnyMessage = status.details.add()
        packed.Pack(detail)
