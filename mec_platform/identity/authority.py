"""A certificate authority: EC P-256 keys, X.509 v3 (RFC 5280), as functions of names and time.

`folder` keeps what is made here in files. Nothing here reads a clock or a file. Members that join make their keys
themselves and send a request (PKCS #10, RFC 2986); of that only the public key counts, all else is the authority's to say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mec_platform.identity.names import (
    DNS_ROOT,
    EVERY_GRANT,
    Grant,
    Identity,
    Role,
    client_id_of,
    grants_in,
    identities_in,
    name_problem,
    server_name,
)

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365

CLOCK_SKEW = timedelta(minutes=5)
"""Certificates are valid a little before they are made: other machines' clocks may be behind."""


class Purpose(StrEnum):
    """What a certificate proves the identity of."""

    SERVER = "server"
    CLIENT = "client"
    OPERATOR = "operator"
    MEMBER = "member"
    PLATFORM = "platform"


_ROLES = {
    Purpose.CLIENT: Role.CLIENT,
    Purpose.OPERATOR: Role.OPERATOR,
    Purpose.MEMBER: Role.MEMBER,
    Purpose.PLATFORM: Role.PLATFORM,
}
_SERVES = frozenset({Purpose.SERVER, Purpose.MEMBER, Purpose.PLATFORM})
_CALLS = frozenset(_ROLES)

LARGEST_REQUEST_BYTES = 4096
"""A request for a P-256 certificate has about 500."""


class RequestRefused(ValueError):
    """A request for a certificate that is none, or whose key is not to be signed; the message says why."""


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
        return key_pem(self.key)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key, unencrypted: for its owner alone."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_authority(name: str, now_unix_s: float) -> Pair:
    """A self-signed authority that may sign certificates of servers and clients, but of no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), now_unix_s, timedelta(days=AUTHORITY_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Pair,
    purpose: Purpose,
    name: str,
    hosts: Sequence[str],
    now_unix_s: float,
    days: int,
    grants: frozenset[Grant] = EVERY_GRANT,
) -> Pair:
    """A certificate that the authority answers for, valid no longer than the authority itself.

    `hosts` are host names and IP addresses under which a server is reached. A client's `name` is its client id. `grants` are
    a member's.

    Raises:
        ValueError: a host is neither a name nor an address, or the authority has expired.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    life = timedelta(days=days)
    return Pair(sign(authority, purpose, name, hosts, key.public_key(), now_unix_s, life, grants), key)


def sign(
    authority: Pair,
    purpose: Purpose,
    name: str,
    hosts: Sequence[str],
    key: ec.EllipticCurvePublicKey,
    now_unix_s: float,
    life: timedelta,
    grants: frozenset[Grant] = EVERY_GRANT,
) -> x509.Certificate:
    """A certificate as of `issue` for a key that somebody else keeps. Raises ValueError as `issue` does."""
    role = _ROLES.get(purpose)
    problem = None if role is None else name_problem(role, name)
    if problem is not None:
        raise ValueError(problem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = authority.certificate
    issuer_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(subject, issuer.subject, key, now_unix_s, life, issuer.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(_usages(purpose)), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False
    )
    names = x509.SubjectAlternativeName([*map(_host_name, hosts), *_own_names(purpose, name, grants)])
    return builder.add_extension(names, critical=False).sign(authority.key, hashes.SHA256())


def make_request(name: str) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A new key and a request, in PEM form, for a certificate of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.PEM)


def requested_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request whose sender has the private one.

    Raises:
        RequestRefused: it is too large, no request, not signed with its own key, or for another kind of key.
    """
    if len(pem) > LARGEST_REQUEST_BYTES:
        raise RequestRefused(f"a request has at most {LARGEST_REQUEST_BYTES} bytes, this one {len(pem)}")
    try:
        request = x509.load_pem_x509_csr(pem)
        signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RequestRefused("this is no request for a certificate (PKCS #10) in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefused("certificates here are for keys on the curve P-256")
    if not signed:
        raise RequestRefused("the request is not signed with the key that it names")
    return key


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 over the certificate (DER): what a join token pins."""
    return certificate.fingerprint(hashes.SHA256())


def purpose_of(certificate: x509.Certificate) -> Purpose | None:
    """What a certificate is for; None for an authority's."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    roles = {identity.role for identity in identities_of(certificate)}
    for purpose in (Purpose.PLATFORM, Purpose.MEMBER, Purpose.OPERATOR):
        if _ROLES[purpose] in roles:
            return purpose
    return Purpose.SERVER if ExtendedKeyUsageOID.SERVER_AUTH in usages else Purpose.CLIENT


def identities_of(certificate: x509.Certificate) -> frozenset[Identity]:
    """Whom a certificate stands for, by its URIs."""
    return identities_in(_uris_of(certificate))


def grants_of(certificate: x509.Certificate) -> frozenset[Grant]:
    """What a certificate grants the member that it stands for."""
    return grants_in(_uris_of(certificate))


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    hosts = [name for name in names.get_values_for_type(x509.DNSName) if not name.endswith(f".{DNS_ROOT}")]
    return [*hosts, *map(str, names.get_values_for_type(x509.IPAddress))]


def common_name_of(certificate: x509.Certificate) -> str:
    """Whose certificate it is; empty where it does not say."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _uris_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())


def _own_names(purpose: Purpose, name: str, grants: frozenset[Grant]) -> list[x509.GeneralName]:
    """What others know it by, whatever hosts it is for."""
    role = _ROLES.get(purpose)
    if role is None:
        return []
    own: list[x509.GeneralName] = [x509.UniformResourceIdentifier(Identity(role, name).uri)]
    if purpose is Purpose.MEMBER:
        own.append(x509.UniformResourceIdentifier(Identity(Role.CLIENT, client_id_of(name)).uri))
        own += [x509.UniformResourceIdentifier(grant.uri) for grant in sorted(grants)]
    if purpose in _SERVES:
        own.append(x509.DNSName(server_name(name if purpose is Purpose.MEMBER else "")))
    return own


def _usages(purpose: Purpose) -> list[x509.ObjectIdentifier]:
    server = [ExtendedKeyUsageOID.SERVER_AUTH] if purpose in _SERVES else []
    return [*server, ExtendedKeyUsageOID.CLIENT_AUTH] if purpose in _CALLS else server


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_unix_s: float,
    life: timedelta,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(int(now_unix_s), UTC)
    end = now + life
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
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
