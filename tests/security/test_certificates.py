"""`mec certs` as an operator uses it, and what stands in the certificates."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from mec_apps.cli.certs.command import certs
from mec_platform.domain.errors import MendableError
from mec_platform.identity.authority import Purpose, grants_of, hosts_of, identities_of, issue, make_authority
from mec_platform.identity.names import server_name
from mec_platform.private_files import PrivateFileError, read_private, write_private
from mec_platform.tls import TlsError, TlsFiles, make_server_context

NOW = 1_700_000_000.0


def run(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(certs, [*arguments, "--dir", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refusal(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(certs, [*arguments, "--dir", str(folder)])
    assert isinstance(result.exception, MendableError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run(tmp_path, "init")
    return tmp_path


def test_a_server_certificate_is_trusted_through_its_authority_for_its_hosts_alone():
    authority = make_authority("authority", NOW)
    server = issue(authority, Purpose.SERVER, "platform", ["mec.example", "192.0.2.1", "::1"], NOW, 30)
    assert hosts_of(server.certificate) == ["mec.example", "192.0.2.1", "::1"]
    builder = PolicyBuilder().store(Store([authority.certificate])).time(server.certificate.not_valid_before_utc)
    builder.build_server_verifier(x509.DNSName("mec.example")).verify(server.certificate, [])
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example")).verify(server.certificate, [])


def test_a_client_certificate_names_its_client_and_is_for_no_server():
    authority = make_authority("authority", NOW)
    client = issue(authority, Purpose.CLIENT, "app-1", [], NOW, 30)
    builder = PolicyBuilder().store(Store([authority.certificate])).time(client.certificate.not_valid_before_utc)
    verified = builder.build_client_verifier().verify(client.certificate, [])
    assert [name.value for name in verified.subjects or []] == ["urn:mec:client:app-1"]
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("app-1")).verify(client.certificate, [])


def test_no_certificate_outlives_its_authority():
    authority = make_authority("authority", NOW)
    late = authority.certificate.not_valid_after_utc.timestamp() - 86_400
    server = issue(authority, Purpose.SERVER, "platform", ["mec.example"], late, 365)
    assert server.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(ValueError, match=r"before|after"):
        issue(authority, Purpose.SERVER, "platform", ["mec.example"], late + 2 * 86_400, 365)


def test_keys_are_their_owners_alone(folder):
    run(folder, "issue", "platform", "--host", "mec.example")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.key")} == {0o600}


def test_nothing_is_overwritten_without_being_asked_to(folder):
    before = (folder / "ca.key").read_bytes()
    assert "--force" in refusal(folder, "init")
    assert (folder / "ca.key").read_bytes() == before
    run(folder, "init", "--force")
    assert (folder / "ca.key").read_bytes() != before


def test_a_renewed_certificate_has_the_same_names_and_another_key(folder):
    run(folder, "issue", "platform", "--host", "mec.example", "--host", "192.0.2.1")
    key = (folder / "platform.key").read_bytes()
    run(folder, "renew", "platform")
    renewed = x509.load_pem_x509_certificate((folder / "platform.crt").read_bytes())
    assert hosts_of(renewed) == ["mec.example", "192.0.2.1"]
    assert (folder / "platform.key").read_bytes() != key
    make_server_context(TlsFiles(certificate=folder / "platform.crt", key=folder / "platform.key"))


@pytest.mark.parametrize(
    ("option", "uris"),
    [
        ("--member", {"urn:mec:member:edge-1", "urn:mec:client:member.edge-1"}),
        ("--operator", {"urn:mec:operator:edge-1"}),
        ("--client", {"urn:mec:client:edge-1"}),
    ],
)
def test_a_certificate_says_who_it_stands_for_and_still_does_when_it_is_renewed(folder, option, uris):
    run(folder, "issue", "edge-1", option, "--host", "192.0.2.1")
    for _ in range(2):
        found = x509.load_pem_x509_certificate((folder / "edge-1.crt").read_bytes())
        assert {identity.uri for identity in identities_of(found)} == uris
        assert hosts_of(found) == ["192.0.2.1"]
        run(folder, "renew", "edge-1")


@pytest.mark.parametrize(
    ("options", "grants"),
    [
        (["--member"], {"node", "gateway", "trusted"}),
        (["--role", "node"], {"node", "trusted"}),
        (["--role", "node", "--untrusted"], {"node"}),
        (["--member", "--untrusted"], {"node", "gateway"}),
        (["--role", "gateway"], {"gateway", "trusted"}),
    ],
)
def test_a_members_certificate_says_what_it_may_be_and_still_does_when_it_is_renewed(folder, options, grants):
    run(folder, "issue", "edge-1", *options, "--host", "192.0.2.1")
    for _ in range(2):
        assert grants_of(x509.load_pem_x509_certificate((folder / "edge-1.crt").read_bytes())) == grants
        run(folder, "renew", "edge-1")


def test_a_member_serves_and_calls_under_its_own_name(folder):
    run(folder, "issue", "edge-1", "--member", "--host", "192.0.2.1")
    authority, member = (
        x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes()) for name in ("ca", "edge-1")
    )
    builder = PolicyBuilder().store(Store([authority])).time(member.not_valid_before_utc)
    builder.build_client_verifier().verify(member, [])
    builder.build_server_verifier(x509.DNSName(server_name("edge-1"))).verify(member, [])
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName(server_name("edge-2"))).verify(member, [])
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName(server_name(""))).verify(member, [])


def test_shows_what_there_is(folder):
    run(folder, "issue", "app-1", "--client")
    shown = json.loads(run(folder, "show", "--json"))
    assert [(entry["name"], entry["purpose"]) for entry in shown] == [("app-1", "client"), ("ca", "authority")]
    assert "app-1  client  until" in run(folder, "show")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["issue", "../escape", "--client"], "cannot name"),
        (["issue", "ca", "--client"], "cannot name"),
        (["issue", "platform"], "--host"),
        (["issue", "Edge-1", "--member"], "small letters"),
        (["issue", "platform", "--host", "a" * 64], "platform"),
        (["renew", "nobody"], "nobody.crt"),
    ],
)
def test_what_cannot_be_issued_is_said_in_one_line(folder, arguments, word):
    assert word in refusal(folder, *arguments)


def test_says_how_to_begin_where_there_is_no_authority(tmp_path):
    assert "mec certs init" in refusal(tmp_path, "issue", "platform", "--host", "a.example")
    assert "mec certs init" in refusal(tmp_path, "show")


def test_an_authority_whose_key_others_can_read_is_not_used(folder):
    (folder / "ca.key").chmod(0o640)
    assert "chmod 600" in refusal(folder, "issue", "platform", "--host", "a.example")


def test_a_key_of_another_certificate_is_refused_in_one_line(folder):
    run(folder, "issue", "platform", "--host", "mec.example")
    with pytest.raises(TlsError, match="mec certs issue"):
        make_server_context(TlsFiles(certificate=folder / "platform.crt", key=folder / "ca.key"))
    with pytest.raises(TlsError, match="No such file"):
        make_server_context(TlsFiles(certificate=folder / "none.crt", key=folder / "ca.key"))
    own = TlsFiles(certificate=folder / "platform.crt", key=folder / "platform.key", client_ca=folder / "ca.key")
    with pytest.raises(TlsError, match="--client-ca"):
        make_server_context(own)


def test_old_versions_of_tls_are_not_spoken(folder):
    run(folder, "issue", "platform", "--host", "mec.example")
    context = make_server_context(TlsFiles(certificate=folder / "platform.crt", key=folder / "platform.key"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_file_with_a_secret_is_its_owners_alone(tmp_path):
    path = tmp_path / "secret"
    write_private(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private(path) == b"one"
    with pytest.raises(PrivateFileError, match="exists already"):
        write_private(path, b"two")
    write_private(path, b"two", replace=True)
    assert read_private(path) == b"two"
    with pytest.raises(PrivateFileError, match="cannot write"):
        write_private(tmp_path / "missing" / "secret", b"one")
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]
