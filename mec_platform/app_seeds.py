"""Application instances that a platform has from its start, from a file (`mec serve --seed FILE`).

TOML: one table `[[apps]]` for each, with the attributes of POST /admin/v1/app_instances. `appInstanceId` must be there: an
instance that the platform knows already is left as it is, so the same file can be given at every start. `credentialsFile`
is where its client's id and secret are written, or read where the file is there; a relative one lies beside the seeds.
"""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path

import msgspec

from mec_platform.credential_files import read_or_make_credentials
from mec_platform.domain.errors import MendableError
from mec_platform.enablement_api.life_cycle.instantiation import Instantiation
from mec_platform.enablement_api.life_cycle.messages import AppInstanceRequest, Identifier
from mec_platform.enablement_api.problem_details import BadRequest
from mec_platform.registry.errors import AppInstanceExists, RegistryError
from mec_platform.registry.host import HostRegistry

logger = logging.getLogger(__name__)


class SeedError(MendableError):
    """A file of seeds that cannot be used; the message names it and the entry."""


class AppSeed(AppInstanceRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An instance to be made unless it is there."""

    app_instance_id: Identifier
    credentials_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.client_id is not None and self.credentials_file is not None:
            raise ValueError("clientId names a client that has its credentials already; leave credentialsFile out")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    apps: list[AppSeed] = msgspec.field(default_factory=list)


def read_seeds(path: Path) -> tuple[AppSeed, ...]:
    """Raises SeedError, which names the file and the entry, where it cannot be read or an entry makes no instance."""
    try:
        seeds = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).apps
    except OSError as error:
        raise SeedError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SeedError(f"{path} is no TOML file: {error}") from error
    except msgspec.ValidationError as error:
        raise SeedError(f"{path}: {error}") from error
    ids = [seed.app_instance_id for seed in seeds]
    repeated = next((each for each in ids if ids.count(each) > 1), None)
    if repeated is not None:
        raise SeedError(f"{path}: appInstanceId {repeated!r} is given twice")
    return tuple(seeds)


async def plant_seeds(path: Path, host: HostRegistry, instantiation: Instantiation) -> None:
    """Makes the instances that are not there yet, in the file's order.

    Raises:
        SeedError: the file or an entry cannot be used; those before it are made.
        PrivateFileError, CredentialFileError: a file of credentials cannot be written, read or used.
        LogUnavailable: the registry cannot take them.
    """
    for seed in read_seeds(path):
        if host.applications.find(seed.app_instance_id) is None:
            try:
                await _plant(seed, path.parent, host, instantiation)
            except AppInstanceExists:
                continue  # made by a replica that started at the same moment
            except (BadRequest, RegistryError) as error:
                raise SeedError(f"{path}: {seed.app_instance_id}: {error}") from error
            logger.info("application instance %s is there", seed.app_instance_id)


async def _plant(seed: AppSeed, folder: Path, host: HostRegistry, instantiation: Instantiation) -> None:
    if seed.credentials_file is None:
        await instantiation.create(seed)
        return
    credentials = read_or_make_credentials(folder / seed.credentials_file, seed.app_instance_id)
    if credentials.client_id in host.registry.state.clients:
        # Several instances may share a file; the first one has made its client.
        shared = {"client_id": credentials.client_id, "scopes": None, "credentials_file": None}
        await instantiation.create(msgspec.structs.replace(seed, **shared))
    else:
        await instantiation.create(seed, credentials.client_id, credentials.client_secret)
