"""TLS for the REST port and for gRPC `ServiceRegistry`, from the same files, with client certificates where they are asked for.

`mec certs` makes such files; any others do as well. Who a client certificate stands for is read in
`enablement_api.security.peer_certificates`.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from mec_platform.domain.errors import MendableError

logger = logging.getLogger(__name__)


class TlsError(MendableError):
    """Certificate files that cannot be used; the message names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. With `client_ca`, only who shows a certificate that it has signed gets a connection."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def make_server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 and newer, with the ciphers that Python takes for safe.

    Raises:
        TlsError: a file is missing, is no PEM, or key and certificate do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, files)
    if files.client_ca is not None:
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"--client-ca {files.client_ca} holds no certificate: {_reason(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Has new connections use what the files hold now. Raises TlsError, and then nothing has changed."""
    try:
        # A context keeps half of a pair that does not match, so it is tried on another one first.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password=_no_password)
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(
            f"cannot use --tls-cert {files.certificate} with --tls-key {files.key}: {_reason(error)}; "
            "`mec certs issue` makes a pair"
        ) from error


class GrpcCertificates:
    """What gRPC shows new connections; `make_server_context` has found the files good before."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._asks_clients = files.client_ca is not None
        self._renewed: grpc.ServerCertificateConfiguration | None = None
        self._shown = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For a server. Raises TlsError where a file cannot be read."""
        # gRPC takes None for no change; the stubs do not know.
        fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], self._fetch)
        return grpc.dynamic_ssl_server_credentials(self._shown, fetch, self._asks_clients)

    def reload(self) -> None:
        """Has new connections use what the files hold now. Raises TlsError, and then nothing has changed."""
        self._renewed = self._read()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each connection, in a thread of its own; None keeps what was shown last."""
        renewed, self._renewed = self._renewed, None
        return renewed

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        try:
            pair = files.key.read_bytes(), files.certificate.read_bytes()
            authority = None if files.client_ca is None else files.client_ca.read_bytes()
        except OSError as error:
            raise TlsError(f"cannot read {error.filename}: {_reason(error)}") from error
        return grpc.ssl_server_certificate_configuration([pair], authority)


class CertificateReload:
    """Has the platform take up renewed files, without ending a connection."""

    def __init__(
        self, context: ssl.SSLContext, files: TlsFiles, grpc_certificates: GrpcCertificates | None = None
    ) -> None:
        self._context = context
        self._files = files
        self._grpc_certificates = grpc_certificates

    def reload(self) -> None:
        """Files that cannot be used are reported, and the old ones stay in use."""
        try:
            load_certificate(self._context, self._files)
            if self._grpc_certificates is not None:
                self._grpc_certificates.reload()
        except TlsError as error:
            logger.error("the TLS certificate stays as it is: %s", error)
        else:
            logger.warning("new connections get the TLS certificate in %s", self._files.certificate)


def _no_password() -> bytes:
    """Without this OpenSSL would ask at the terminal for the password of an encrypted key."""
    return b""


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
