"""gRPC `MemberCertificates`: a member that has joined gets its next certificate over the connection of the present one, for the
same name, with the same grants."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc
from cryptography import x509

from mec_platform.identity.authority import RequestRefused
from mec_platform.identity.call_gate import caller_of
from mec_platform.identity.member_authority import MemberAuthority
from mec_platform.identity.names import Role
from mec_platform.rpc.v1 import membership_pb2, membership_pb2_grpc

MEMBER_CERTIFICATES_SERVICE = "mec_platform.rpc.v1.MemberCertificates"
RENEW_AT = 2 / 3
"""Part of a certificate's life after which the next one is fetched: the last third is for platforms that are away."""

_log = logging.getLogger(__name__)


def renewal_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is time for the next certificate."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * RENEW_AT


class MemberCertificatesService(membership_pb2_grpc.MemberCertificatesServicer):
    """The servicer. `has_joined` says whether a name belongs to a member that has joined and was not shut out since."""

    def __init__(self, authority: MemberAuthority, has_joined: Callable[[str], bool]) -> None:
        self._authority = authority
        self._has_joined = has_joined

    async def Renew(
        self, request: membership_pb2.RenewCertificateRequest, context: Any
    ) -> membership_pb2.RenewCertificateReply:
        caller = caller_of(context)
        name = None if caller is None else caller.name_as(Role.MEMBER)
        if caller is None or name is None or not self._has_joined(name):
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{name or 'somebody without a name'} has not joined this platform, or was shut out: `mec join-token create` "
                "lets it join; a certificate of `mec certs issue` is renewed with `mec certs renew`",
            )
            raise AssertionError("unreachable: abort raises")
        try:
            signed = self._authority.sign_member(name, caller.hosts, request.request_pem, caller.grants)
        except RequestRefused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        _log.info("member %s has a new certificate", name)
        return membership_pb2.RenewCertificateReply(certificate_pem=signed)
