"""What the platform's gRPC port speaks: clear text on loopback, elsewhere mutual TLS with an authority for its members."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio

from mec_platform.background import BackgroundTasks
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.identity.member_authority import AuthorityFiles, MemberAuthority, load_or_make
from mec_platform.identity.renewal import MemberCertificatesService, renewal_due
from mec_platform.registry.joining import Joining
from mec_platform.rpc.v1 import membership_pb2_grpc

_LOOK_S = 3600.0
_log = logging.getLogger(__name__)


class SecurePlanes:
    """The authority, and the platform's own certificate by it, which is renewed between `start` and `stop`.

    `files` are the authority's; without them it lies in the folder `beside`, and without either ends with the process.

    Raises:
        CertificateError, PrivateFileError, IdentityError: the authority cannot be read, written or used.
    """

    def __init__(self, files: AuthorityFiles | None, beside: Path | None, name: str, hosts: Sequence[str]) -> None:
        self.authority = MemberAuthority(load_or_make(files, beside, time.time()), time.time)
        self.identity = GrpcIdentity(lambda: self.authority.make_platform(name, hosts))
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins to look after the certificate."""
        self._tasks.start("renew certificate", self._keep_renewed())

    async def stop(self) -> None:
        """Ends that."""
        await self._tasks.stop()

    def add_to(self, server: grpc.aio.Server, joining: Joining) -> None:
        """Has members renew their certificates at this server, which must speak mutual TLS."""
        service = MemberCertificatesService(self.authority, joining.has_joined)
        membership_pb2_grpc.add_MemberCertificatesServicer_to_server(service, server)

    async def _keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if renewal_due(self.identity.certificate, datetime.now(UTC)):
                self.identity.reload()
                _log.info("the platform has a new certificate for its gRPC port")
