"""Where a platform's state is, as commands are told: a file, or `etcd://HOST:PORT[,HOST:PORT...]/PREFIX` and how to get in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.private_files import read_private
from mec_platform.registry.etcd.settings import EtcdSettings, EtcdTls, is_etcd_address, parse_etcd_address

FORMS = "a file, or etcd://HOST:PORT[,HOST:PORT...]/PREFIX"

_FILE = click.Path(path_type=Path, dir_okay=False)
_option = options_of("etcd")


class EtcdAccess:
    """What the options say of how etcd is reached; `place` makes of an address what it stands for."""

    def __init__(self, tls: EtcdTls | None, user: str, password: str) -> None:
        self._tls = tls
        self._user = user
        self._password = password

    def place(self, text: str) -> Path | EtcdSettings:
        """The file or the prefix that a text names. Raises EtcdAddressError."""
        if not is_etcd_address(text):
            return Path(text)
        return replace(parse_etcd_address(text), tls=self._tls, user=self._user, password=self._password)


def _make(
    etcd_ca: Path | None, etcd_cert: Path | None, etcd_key: Path | None, etcd_user: str, etcd_password_file: Path | None
) -> EtcdAccess:
    """Raises PrivateFileError where the password cannot be read."""
    if (etcd_cert is None) != (etcd_key is None):
        raise click.UsageError("--etcd-cert and --etcd-key belong together")
    if etcd_cert is not None and etcd_ca is None:
        raise click.UsageError("--etcd-cert needs --etcd-ca: without it etcd is spoken to in the clear")
    if bool(etcd_user) != (etcd_password_file is not None):
        raise click.UsageError("--etcd-user and --etcd-password-file belong together")
    password = "" if etcd_password_file is None else read_private(etcd_password_file).decode().strip()
    tls = None if etcd_ca is None else EtcdTls(etcd_ca, etcd_cert, etcd_key)
    return EtcdAccess(tls, etcd_user, password)


etcd_options: Callable[..., Any] = option_group(
    "etcd",
    _make,
    _option("--etcd-ca", type=_FILE, envvar="MEC_ETCD_CA", help="Authority (PEM) of etcd's certificates: speak TLS."),
    _option("--etcd-cert", type=_FILE, envvar="MEC_ETCD_CERT", help="Certificate (PEM) to show to etcd."),
    _option("--etcd-key", type=_FILE, envvar="MEC_ETCD_KEY", help="Its key."),
    _option("--etcd-user", default="", envvar="MEC_ETCD_USER", help="User of etcd."),
    _option(
        "--etcd-password-file",
        type=_FILE,
        envvar="MEC_ETCD_PASSWORD_FILE",
        help="File with the user's password, for its owner alone.",
    ),
)
