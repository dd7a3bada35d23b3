"""`mec certs`: make an authority, issue and renew certificates, show what there is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mec_apps.cli.requests import CliError, json_option, print_json
from mec_platform.identity.authority import (
    LEAF_DAYS,
    Pair,
    Purpose,
    common_name_of,
    grants_of,
    hosts_of,
    issue,
    make_authority,
    purpose_of,
)
from mec_platform.identity.folder import (
    AUTHORITY,
    certificate_path,
    check_name,
    key_path,
    load_authority,
    load_certificate,
    save,
)
from mec_platform.identity.names import EVERY_GRANT, Grant

folder_option = click.option(
    "--dir",
    "folder",
    default=Path("mec-certs"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the authority and its certificates.",
)
days_option = click.option(
    "--days", default=LEAF_DAYS, show_default=True, type=click.IntRange(1, 3650), help="How long it is valid."
)
force_option = click.option("--force", is_flag=True, help="Put it in the place of one that is there.")


@click.group()
def certs() -> None:
    """Certificates for TLS and mutual TLS, signed by an authority of your own.

    \b
    mec certs init
    mec certs issue platform --host mec.example --host 192.0.2.10
    mec serve --host 192.0.2.10 --tls-cert mec-certs/platform.crt --tls-key mec-certs/platform.key
    mec certs issue app-1 --client      (for `mec serve --client-ca mec-certs/ca.crt`)
    mec certs issue edge-1 --role node --untrusted --host 192.0.2.11      (for `mec node`; --role gateway for `mec gateway`)
    mec certs issue alice --operator    (for `mec status`, `mec reconfigure` and others from afar)
    """


@certs.command(epilog="Example: mec certs init --dir ~/mec-certs")
@folder_option
@click.option("--name", default="MEC platform authority", show_default=True, help="What the authority calls itself.")
@force_option
@json_option
def init(folder: Path, name: str, force: bool, as_json: bool) -> None:
    """Make a certificate authority; clients trust its ca.crt."""
    authority = make_authority(name, time.time())
    save(folder, AUTHORITY, authority, replace=force)
    _report(folder, AUTHORITY, authority.certificate, as_json)


@certs.command("issue", epilog="Example: mec certs issue platform --host mec.example --host 192.0.2.10")
@click.argument("name")
@click.option(
    "--client",
    "purpose",
    flag_value="client",
    help="For a client: NAME is its client id. Otherwise it is for a server.",
)
@click.option("--member", "purpose", flag_value="member", help="For the edge node or gateway that is called NAME.")
@click.option(
    "--role", type=click.Choice(["node", "gateway"]), help="What a member may be (default: either); implies --member."
)
@click.option("--untrusted", is_flag=True, help="A member that must not see raw tokens and shallow activations.")
@click.option("--operator", "purpose", flag_value="operator", help="For who looks at the platform and changes plans.")
@click.option("--host", "hosts", multiple=True, help="Host name or IP address of a server or member (repeatable).")
@folder_option
@days_option
@force_option
@json_option
def issue_command(
    name: str,
    purpose: str | None,
    role: str | None,
    untrusted: bool,
    hosts: tuple[str, ...],
    folder: Path,
    days: int,
    force: bool,
    as_json: bool,
) -> None:
    """Issue a certificate for a server, or for the client, member or operator that is called NAME."""
    check_name(name)
    purpose = purpose or ("member" if role else None)
    if (role or untrusted) and purpose != "member":
        raise CliError("--role and --untrusted are for members; say --member, or leave them out")
    if purpose is None and not hosts:
        raise CliError("a server's certificate names its hosts: say --host for each, or --client for a client's")
    grants = EVERY_GRANT - ({Grant.TRUSTED} if untrusted else set())
    if role is not None:
        grants -= {Grant.NODE, Grant.GATEWAY} - {Grant(role)}
    pair = _issue(load_authority(folder), Purpose(purpose or "server"), name, list(hosts), days, grants)
    save(folder, name, pair, replace=force)
    _report(folder, name, pair.certificate, as_json)


@certs.command(epilog="Example: mec certs renew platform")
@click.argument("name")
@folder_option
@days_option
@json_option
def renew(name: str, folder: Path, days: int, as_json: bool) -> None:
    """Issue a certificate anew: same names, new key. `mec serve` takes it up at SIGHUP."""
    check_name(name)
    before = load_certificate(certificate_path(folder, name))
    purpose = purpose_of(before)
    if purpose is None:
        raise CliError(f"{name} is an authority; `mec certs init --force` makes a new one")
    pair = _issue(load_authority(folder), purpose, common_name_of(before), hosts_of(before), days, grants_of(before))
    save(folder, name, pair, replace=True)
    _report(folder, name, pair.certificate, as_json)


@certs.command(epilog="Example: mec certs show --json")
@folder_option
@json_option
def show(folder: Path, as_json: bool) -> None:
    """List the certificates of the folder."""
    paths = sorted(folder.glob("*.crt"))
    if not paths:
        raise CliError(f"there are no certificates in {folder}; `mec certs init --dir {folder}` begins")
    found = [_describe(folder, path.stem, load_certificate(path)) for path in paths]
    if as_json:
        print_json(found)
        return
    for entry in found:
        hosts = f"  for {', '.join(entry['hosts'])}" if entry["hosts"] else ""
        grants = f" ({', '.join(entry['grants'])})" if entry["grants"] else ""
        click.echo(f"{entry['name']}  {entry['purpose']}{grants}  until {entry['not_after']}{hosts}")


def _issue(authority: Pair, purpose: Purpose, name: str, hosts: list[str], days: int, grants: frozenset[Grant]) -> Pair:
    try:
        return issue(authority, purpose, name, hosts, time.time(), days, grants)
    except ValueError as error:
        raise CliError(f"cannot issue a certificate for {name}: {error}") from error


def _report(folder: Path, name: str, certificate: x509.Certificate, as_json: bool) -> None:
    facts = _describe(folder, name, certificate)
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{facts['certificate']} and {facts['key']} ({facts['purpose']}, until {facts['not_after']})")


def _describe(folder: Path, name: str, certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "name": name,
        "purpose": purpose_of(certificate) or "authority",
        "common_name": common_name_of(certificate),
        "hosts": hosts_of(certificate),
        "grants": sorted(grants_of(certificate)),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "serial": f"{certificate.serial_number:x}",
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "certificate": str(certificate_path(folder, name)),
        "key": str(key_path(folder, name)),
    }
