"""Files with the credentials of clients that a platform has from its start: its operator, and what its seeds name.

Such a file can be made by whoever deploys the platform, too: where it is there, its id and secret are taken over.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from mec_platform.domain.credentials import Scope
from mec_platform.domain.errors import MendableError
from mec_platform.private_files import read_private, write_private
from mec_platform.registry.credentials import Credentials, new_secret

logger = logging.getLogger(__name__)

SHORTEST_SECRET = 32


class CredentialFileError(MendableError):
    """A file of credentials that is not to be used; the message names it."""


class ClientCredentialFile(msgspec.Struct, frozen=True):
    """What the file holds, as JSON: what a client shows at the token endpoint."""

    client_id: str
    client_secret: str


def default_path(state: Path | str) -> Path:
    """Beside the state file; in the working folder where the state is in memory, or in no file of this machine."""
    return Path("mec-operator.json") if state == ":memory:" else Path(f"{state}.operator.json")


async def ensure_operator(credentials: Credentials, path: Path) -> bool:
    """Makes the operator where no client may administer the platform; whether it did.

    Raises:
        PrivateFileError, CredentialFileError: the file cannot be written, read or used.
    """
    if any(Scope.ADMIN in client.scopes for client in credentials.all()):
        return False
    await adopt_operator(credentials, path, "operator")
    return True


async def adopt_operator(credentials: Credentials, path: Path, client_id: str) -> None:
    """Takes over the credentials in the file, which is made first where it is not there: a secret that is lost between
    two steps is then one that was never good for anything.

    Raises:
        PrivateFileError, CredentialFileError: the file cannot be written, read or used.
        ClientExists: there is a client of that id.
    """
    operator = read_or_make_credentials(path, client_id)
    await credentials.adopt(operator.client_id, operator.client_secret, Scope)


def read_or_make_credentials(path: Path, client_id: str) -> ClientCredentialFile:
    """The credentials in the file, which is made, with this id and a random secret, where it is not there.

    Raises:
        PrivateFileError, CredentialFileError: the file cannot be written, read or used.
    """
    if not path.exists():
        made = ClientCredentialFile(client_id, new_secret())
        write_private(path, msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    try:
        read = msgspec.json.decode(read_private(path), type=ClientCredentialFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CredentialFileError(
            f"{path} is no JSON with client_id and client_secret ({error}); remove it, and the platform makes a new one"
        ) from error
    if not read.client_id or len(read.client_secret) < SHORTEST_SECRET:
        raise CredentialFileError(
            f"the secret in {path} is shorter than {SHORTEST_SECRET} characters; take a random one"
        )
    return read
