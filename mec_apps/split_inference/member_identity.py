"""The identity of a node or gateway while it runs: read from files, and renewed before it expires where it came by a token.

The next certificate is asked for over the connection of the present one; certificate and key are one file, so that it is
replaced whole. Counterpart: `identity.renewal` at the platform.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
from cryptography import x509

from mec_platform.background import BackgroundTasks
from mec_platform.domain.errors import MendableError
from mec_platform.identity.authority import key_pem, make_request
from mec_platform.identity.grpc_identity import GrpcIdentity, IdentityError, IdentityFiles
from mec_platform.identity.names import Role
from mec_platform.identity.renewal import renewal_due
from mec_platform.private_files import write_private
from mec_platform.rpc.endpoints import Channels, require_identity
from mec_platform.rpc.v1 import membership_pb2, membership_pb2_grpc

LOOK_S = 60.0
_RENEW_TIMEOUT_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemberFiles:
    """Where a member's identity lies; `joined` where it came by a token, and certificate and key are one file."""

    files: IdentityFiles
    joined: bool


class MemberIdentity:
    """The identity of the member called `name`; `start` begins to renew it, and `on_renewed` learns of every new one.

    Raises:
        IdentityError, PrivateFileError: the files cannot be used, or are those of somebody else.
    """

    def __init__(self, name: str, found: MemberFiles, platform_grpc: str) -> None:
        self._name = name
        self._found = found
        self._platform_grpc = platform_grpc
        self.grpc = GrpcIdentity.from_files(found.files)
        self.files = found.files
        known_as = self.grpc.name_as(Role.MEMBER)
        if known_as != name:
            raise IdentityError(
                f"the certificate {found.files.certificate} is that of {known_as or 'no member'}, not of {name}; "
                f"`mec certs issue {name} --member` makes one, or name this process with --name"
            )
        self._channels = Channels(self.grpc)
        self._tasks = BackgroundTasks()
        self._on_renewed: Callable[[], None] = lambda: None

    def start(self, on_renewed: Callable[[], None]) -> None:
        """Renews in the background where the platform can, until `stop`."""
        self._on_renewed = on_renewed
        if self._found.joined:
            self._tasks.start("renew certificate", self._keep_renewed())

    async def stop(self) -> None:
        """Ends that."""
        await self._tasks.stop()
        await self._channels.close()

    def reload(self) -> None:
        """Has new connections use what the files hold now; files that cannot be used are reported, and nothing changes."""
        try:
            self.grpc.reload()
        except MendableError as error:
            _log.error("the certificate stays as it is: %s", error)
        else:
            _log.warning("new connections get the certificate in %s", self.files.certificate)
            self._on_renewed()

    async def renew(self) -> None:
        """Gets the next certificate and takes it up.

        Raises:
            grpc.aio.AioRpcError: the platform does not answer or refuses.
            IdentityError, PrivateFileError: it cannot be used or kept.
        """
        key, request_pem = make_request(self._name)
        stub = membership_pb2_grpc.MemberCertificatesStub(self._channels.to(self._platform_grpc))
        request = membership_pb2.RenewCertificateRequest(request_pem=request_pem)
        reply = await stub.Renew(request, timeout=_RENEW_TIMEOUT_S)
        if x509.load_pem_x509_certificate(reply.certificate_pem).public_key() != key.public_key():
            raise IdentityError("the platform has signed another key than this member's")
        write_private(self.files.certificate, key_pem(key) + reply.certificate_pem, replace=True)
        self.grpc.reload()
        self._on_renewed()

    async def _keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if not renewal_due(self.grpc.certificate, datetime.now(UTC)):
                continue
            try:
                await self.renew()
            except (grpc.aio.AioRpcError, MendableError, OSError, ValueError) as error:
                why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
                until = self.grpc.certificate.not_valid_after_utc
                _log.warning("the certificate, good until %s, was not renewed: %s", until, why)
            else:
                _log.info("the certificate was renewed")


def take_identity(
    name: str, host: str, allow_remote: bool, found: MemberFiles | None, platform_grpc: str
) -> MemberIdentity | None:
    """What the member called `name` speaks on `host`: mutual TLS as what was found, or None for the clear.

    Raises:
        AddressError: other machines reach `host`, and there is no identity.
        IdentityError, PrivateFileError: it cannot be used, or is somebody else's.
    """
    identity = None if found is None or allow_remote else MemberIdentity(name, found, platform_grpc)
    require_identity(
        host,
        allow_remote=allow_remote,
        has_identity=identity is not None,
        how=f"join with a token of `mec join-token create {name}`, or pass --cert, --key and --ca as `mec certs issue {name} "
        f"--member --host {host}` makes them",
    )
    return identity


def joined_files(folder: Path) -> MemberFiles:
    """The files of a member that has joined."""
    pair = folder / "member.pem"
    return MemberFiles(IdentityFiles(certificate=pair, key=pair, authority=folder / "ca.crt"), joined=True)
