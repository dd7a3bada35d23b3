"""What one process shows the others over mutual TLS, and whom it takes for one of them: servers and channels take it.

It can be renewed while they serve: a server shows new connections what there is then, and `rpc.endpoints.Channels` opens
new channels. Connections that are open stay. Whose files these are in the end is for `tls` and the command line to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mec_platform.domain.errors import MendableError
from mec_platform.identity.authority import Pair, identities_of
from mec_platform.identity.names import Identity, Role
from mec_platform.private_files import read_private


class IdentityError(MendableError):
    """Certificate, key and authority that cannot be an identity; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFiles:
    """PEM files: a certificate, its private key, and the authority that has signed it and everybody else's."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Material:
    """The content of such files."""

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes

    @classmethod
    def of_pair(cls, pair: Pair, authority: x509.Certificate) -> Material:
        """Of a certificate made here."""
        return cls(pair.certificate_pem(), pair.key_pem(), authority.public_bytes(serialization.Encoding.PEM))


class GrpcIdentity:
    """`read` gives the material, now and whenever `reload` is called.

    Raises:
        IdentityError: certificate and key do not belong together, or the certificate names nobody.
    """

    def __init__(self, read: Callable[[], Material]) -> None:
        self._read = read
        self.version = 0
        """Higher after every renewal."""
        self._material, self.certificate = self._checked()

    @classmethod
    def from_files(cls, files: IdentityFiles) -> GrpcIdentity:
        """Raises IdentityError, and PrivateFileError where others can read the key."""
        return cls(lambda: read_material(files))

    def reload(self) -> None:
        """Has new connections use what there is now. Raises as the constructor does, and then nothing has changed."""
        self._material, self.certificate = self._checked()
        self.version += 1

    @property
    def identities(self) -> frozenset[Identity]:
        """Whom the certificate stands for."""
        return identities_of(self.certificate)

    def name_as(self, role: Role) -> str | None:
        """The name that it has in a role; None where it has none."""
        return next((each.name for each in self.identities if each.role is role), None)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a new channel."""
        material = self._material
        return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that lets in only who shows a certificate of the authority."""
        shown = self.version

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Called by gRPC at each connection, in a thread of its own; None keeps what was shown last."""
            nonlocal shown
            if shown == self.version:
                return None
            shown = self.version
            return self._configuration()

        # gRPC takes None for no change; the stubs do not know.
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), cast(Callable[[], grpc.ServerCertificateConfiguration], fetch), True
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        material = self._material
        return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)

    def _checked(self) -> tuple[Material, x509.Certificate]:
        material = self._read()
        try:
            certificate = x509.load_pem_x509_certificate(material.certificate)
            key = serialization.load_pem_private_key(material.key, password=None)
            x509.load_pem_x509_certificates(material.authority)
        except (ValueError, TypeError) as error:
            raise IdentityError(
                f"certificate, key and authority must be PEM files without a password: {error}"
            ) from error
        if certificate.public_key() != key.public_key():
            raise IdentityError("the key belongs to another certificate; `mec certs issue` makes a pair")
        if not identities_of(certificate):
            raise IdentityError(
                "the certificate names nobody; `mec certs issue NAME` with --member or --operator makes one that does"
            )
        return material, certificate


def read_material(files: IdentityFiles) -> Material:
    """Raises IdentityError or PrivateFileError."""
    try:
        certificate, authority = files.certificate.read_bytes(), files.authority.read_bytes()
    except OSError as error:
        raise IdentityError(f"cannot read {error.filename}: {error.strerror}") from error
    return Material(certificate, read_private(files.key), authority)
