"""A local certificate authority: EC P-256 keys, X.509 v3 (RFC 5280), as functions of names and time.

`command` keeps what is made here in files. Nothing here reads a clock or a file.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT_URN = "urn:mec:client:"
"""In a client certificate's alternative names: the id of the API client that it stands for."""

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365

CLOCK_SKEW = timedelta(minutes=5)
"""Certificates are valid a little before they are made: other machines' clocks may be behind."""


class Purpose(StrEnum):
    """What a certificate proves the identity of."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate for others to have."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The key, unencrypted: for its owner alone."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_authority(name: str, now_unix_s: float) -> Pair:
    """A self-signed authority that may sign certificates of servers and clients, but of no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key, now_unix_s, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, purpose: Purpose, name: str, hosts: Sequence[str], now_unix_s: float, days: int) -> Pair:
    """A certificate that the authority answers for, valid no longer than the authority itself.

    `hosts` are host names and IP addresses under which a server is reached. A client's `name` is its client id.

    Raises:
        ValueError: a host is neither a name nor an address, or the authority has expired.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = ExtendedKeyUsageOID.SERVER_AUTH if purpose is Purpose.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer_key = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(
        subject, authority.certificate.subject, key, now_unix_s, days, authority.certificate.not_valid_after_utc
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False
    )
    names = [_host_name(host) for host in hosts]
    if purpose is Purpose.CLIENT:
        names.append(x509.UniformResourceIdentifier(CLIENT_URN + name))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def purpose_of(certificate: x509.Certificate) -> Purpose | None:
    """What a certificate is for; None for an authority's."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return Purpose.SERVER if ExtendedKeyUsageOID.SERVER_AUTH in usages else Purpose.CLIENT


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def common_name_of(certificate: x509.Certificate) -> str:
    """Whose certificate it is; empty where it does not say."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now_unix_s: float,
    days: int,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(int(now_unix_s), UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
