"""Who a node or gateway is: by `--join TOKEN`, by what it joined with before, or by `--cert`, `--key` and `--ca`."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import click
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from yarl import URL

from mec_apps.cli.option_groups import option_group, options_of
from mec_apps.cli.requests import CliError, run_async
from mec_apps.cli.rest_client import PlatformAddress
from mec_apps.sdk.session import ClientCredentials, problem_detail
from mec_apps.split_inference.member_identity import MemberFiles, joined_files
from mec_platform.identity.authority import Purpose, fingerprint, key_pem, make_request, purpose_of
from mec_platform.identity.folder import load_certificate
from mec_platform.identity.grpc_identity import IdentityFiles
from mec_platform.identity.join_token import JoinToken, decode_join_token
from mec_platform.private_files import read_private, write_private
from mec_platform.rpc.endpoints import is_loopback

_TIMEOUT = aiohttp.ClientTimeout(total=15)
_CREDENTIALS = "credentials.json"
_LARGEST_ANSWER_BYTES = 64 << 10
_option = options_of("Joining")


@dataclass(frozen=True, slots=True)
class Joining:
    """What the options say; `find` acts on it."""

    token: JoinToken | None
    folder: Path | None

    def name_or(self, name: str | None, default: str) -> str:
        """The member's name. Raises CliError where the token is for another one."""
        if self.token is None:
            return name or default
        if name not in (None, self.token.name):
            raise CliError(
                f"the join token is for {self.token.name}, not for {name}; leave --name out, or get another token"
            )
        return self.token.name

    def find(
        self, name: str, platform: PlatformAddress, allow_remote: bool
    ) -> tuple[MemberFiles | None, PlatformAddress]:
        """The identity of this member, joining with the token where it has none yet, and the platform with what shows it
        who this is. None where there is none, or the network is trusted.

        Raises:
            CliError: joining fails; the message says why.
        """
        if allow_remote:
            return None, platform
        own, ca = platform.access.certificate, platform.access.ca
        if own is not None and ca is not None and self.token is None:
            # One with a client's certificate, for REST alone, has no part in the planes.
            if purpose_of(load_certificate(own.certificate)) is not Purpose.MEMBER:
                return None, platform
            files = IdentityFiles(certificate=own.certificate, key=own.key, authority=ca)
            return MemberFiles(files, joined=False), platform
        if self.token is None and self.folder is None and URL(platform.url).scheme == "http":
            return None, platform  # on this machine alone: what was joined elsewhere under this name is not meant
        folder = self.folder or default_folder(name)
        found = joined_files(folder)
        present = found.files.certificate.exists()
        if present and self.token is None and _has_expired(found.files.certificate):
            raise CliError(
                f"the certificate in {folder} has expired, for this member was away too long; join again with --join and a new "
                f"token of mec join-token create {name}"
            )
        if not present and self.token is None:
            return None, platform
        if self.token is not None and (not present or _has_expired(found.files.certificate)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            run_async(join(self.token, platform, folder))
        credentials = platform.access.credentials or ClientCredentials.read(folder / _CREDENTIALS)
        access = replace(platform.access, credentials=credentials, ca=ca or found.files.authority)
        return found, replace(platform, access=access)


async def join(token: JoinToken, platform: PlatformAddress, folder: Path) -> None:
    """Makes a key, has the platform sign it for the token, and keeps what it gives in the folder, which is there.

    The platform must show a certificate of the authority that the token names, or of one in `--ca`.

    Raises:
        CliError: the platform cannot be reached, is another one, or refuses; the folder cannot be written.
    """
    url = URL(platform.url)
    if url.scheme != "https" and not is_loopback(url.host or ""):
        raise CliError(
            f"a join token must not travel in the clear: {url} begins with http; name the platform's https address"
        )
    authority = await _read_authority(token, url)
    context = ssl.create_default_context(
        cafile=platform.access.ca, cadata=None if platform.access.ca else authority.decode()
    )
    key, request_pem = make_request(token.name)
    body = {"token": token.encode(), "requestPem": request_pem.decode()}
    joined = await _ask("POST", url / "join/v1/certificates", context, _Joined, body)
    if x509.load_pem_x509_certificate(joined.certificate_pem.encode()).public_key() != key.public_key():
        raise CliError(f"{url} has signed another key than the one that was sent; it is not to be trusted")
    files = joined_files(folder).files
    files.authority.write_bytes(authority)
    credentials = {"client_id": joined.client_id, "client_secret": joined.client_secret}
    write_private(folder / _CREDENTIALS, msgspec.json.encode(credentials), replace=True)
    # Last: where it is there, all is.
    write_private(files.certificate, key_pem(key) + joined.certificate_pem.encode(), replace=True)


async def _read_authority(token: JoinToken, url: URL) -> bytes:
    """The authority's certificate, from whoever answers: only one that fits the token counts."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    pem = (await _ask("GET", url / "join/v1/authority", anybody, _Authority)).certificate_pem.encode()
    try:
        found = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CliError(f"{url} names no authority; is it a platform?") from error
    if fingerprint(found) != token.authority:
        raise CliError(f"{url} is not the platform that the join token is for, or somebody pretends to be it")
    return found.public_bytes(serialization.Encoding.PEM)


_Answer = TypeVar("_Answer")


async def _ask(method: str, url: URL, context: ssl.SSLContext, answer: type[_Answer], body: Any = None) -> _Answer:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as http,
            http.request(method, url, json=body, allow_redirects=False, ssl=context) as response,
        ):
            content = bytearray()
            async for part in response.content.iter_any():  # which gives what has come, not all that was sent
                content += part
                if len(content) > _LARGEST_ANSWER_BYTES:
                    raise CliError(f"{url.origin()} answers more than any platform would")
            if response.status == 404:
                raise CliError(
                    f"{url.origin()} takes no members by tokens; it speaks in the clear (see mec serve --host)"
                )
            if response.status >= 400:
                raise CliError(f"cannot join at {url.origin()}: {problem_detail(bytes(content))}")
            return msgspec.json.decode(content, type=answer)
    except aiohttp.ClientSSLError as error:
        raise CliError(
            f"{url.origin()} shows no certificate of the authority in the join token for this host: {error}; where its REST "
            "port has a certificate of another authority, name that with --ca"
        ) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise CliError(f"no platform answers at {url.origin()}: {error or type(error).__name__}") from error
    except msgspec.DecodeError as error:
        raise CliError(f"{url.origin()} answers what no platform would: {error}") from error


class _Authority(msgspec.Struct, rename="camel"):
    certificate_pem: str


class _Joined(msgspec.Struct, rename="camel"):
    certificate_pem: str
    client_id: str
    client_secret: str


def _has_expired(certificate: Path) -> bool:
    return load_certificate(certificate).not_valid_after_utc <= datetime.now(UTC)


def default_folder(name: str) -> Path:
    """Where a member that has joined keeps its identity."""
    return Path.home() / ".mec" / name


def _make(join: str | None, identity_dir: Path | None) -> Joining:
    """Raises JoinTokenError, and PrivateFileError where others can read a file with a token."""
    text = read_private(Path(join[1:])).decode() if join and join.startswith("@") else join
    return Joining(decode_join_token(text) if text else None, identity_dir)


joining_options = option_group(
    "joining",
    _make,
    _option(
        "--join",
        metavar="TOKEN|@FILE",
        envvar="MEC_JOIN_TOKEN",
        help="Become a member by a token of mec join-token create; ignored where this one has joined before.",
    ),
    _option(
        "--identity-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the identity of a member that has joined is kept (default: ~/.mec/NAME).",
    ),
)
