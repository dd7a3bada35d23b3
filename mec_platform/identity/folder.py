"""A folder of certificates: `ca.crt` and `ca.key`, and a pair of files for every name. Keys are their owner's alone."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mec_platform.domain.errors import MendableError
from mec_platform.identity.authority import Pair
from mec_platform.private_files import read_private, write_private

AUTHORITY = "ca"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class CertificateError(MendableError):
    """A folder or a file of certificates that cannot be used; the message names it and says what to do."""


def check_name(name: str) -> None:
    """Raises CertificateError where a name can be no file name, or no common name (64 characters)."""
    if not _NAME.fullmatch(name) or name == AUTHORITY:
        raise CertificateError(
            f"{name!r} cannot name a certificate: take up to 64 letters, digits, '.', '_' and '-', and not {AUTHORITY!r}"
        )


def certificate_path(folder: Path, name: str) -> Path:
    """Where the certificate of that name lies."""
    return folder / f"{name}.crt"


def key_path(folder: Path, name: str) -> Path:
    """Where the key of that name lies."""
    return folder / f"{name}.key"


def save(folder: Path, name: str, pair: Pair, *, replace: bool) -> None:
    """Raises CertificateError where there is one of that name already that is not to be replaced."""
    existing = [path for path in (certificate_path(folder, name), key_path(folder, name)) if path.exists()]
    if existing and not replace:
        raise CertificateError(
            f"{existing[0]} exists already; `mec certs renew {name}` or --force puts another in its place"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_private(key_path(folder, name), pair.key_pem(), replace=True)
    certificate_path(folder, name).write_bytes(pair.certificate_pem())


def load_authority(folder: Path) -> Pair:
    """Raises CertificateError or PrivateFileError where the folder has no authority that can be used."""
    key = key_path(folder, AUTHORITY)
    if not key.exists():
        raise CertificateError(
            f"there is no certificate authority in {folder}; `mec certs init --dir {folder}` makes one"
        )
    return load_pair(certificate_path(folder, AUTHORITY), key)


def load_pair(certificate: Path, key: Path) -> Pair:
    """Raises CertificateError or PrivateFileError where the files are no certificate and its private key."""
    try:
        private = serialization.load_pem_private_key(read_private(key), password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{key} is no private key in PEM form without a password") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{key} is no elliptic curve key; `mec certs init` makes one that is")
    loaded = load_certificate(certificate)
    if loaded.public_key() != private.public_key():
        raise CertificateError(f"{key} is the key of another certificate than {certificate}")
    return Pair(loaded, private)


def load_certificate(path: Path) -> x509.Certificate:
    """Raises CertificateError where the file is no certificate."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CertificateError(f"{path} is no certificate in PEM form") from error
