"""What `mec serve` is told of the machine that it runs on: where the time comes from, and what enforces rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.data_plane.choice import FORMS
from mec_platform.domain.network_addresses import parse_address
from mec_platform.host_time.time_sources import parse_host

_option = options_of("This machine")


@dataclass(frozen=True, slots=True)
class Host:
    """What the options say, checked."""

    ntp_servers: tuple[str, ...]
    ptp_masters: tuple[str, ...]
    data_planes: tuple[str, ...]


def _checked(parse: Callable[[str], object]) -> Callable[..., tuple[str, ...]]:
    def check(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(parse(text)) for text in texts)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return check


host_options = option_group(
    "host",
    Host,
    _option(
        "--ntp-server",
        "ntp_servers",
        multiple=True,
        metavar="HOST",
        callback=_checked(parse_host),
        help="NTP server to tell applications of, before those that this machine uses; may be repeated.",
    ),
    _option(
        "--ptp-master",
        "ptp_masters",
        multiple=True,
        metavar="IP",
        callback=_checked(parse_address),
        help="PTP master to tell applications of; may be repeated.",
    ),
    _option(
        "--data-plane",
        "data_planes",
        multiple=True,
        metavar="CHOICE",
        help=f"What enforces DNS and traffic rules: {FORMS}; may be repeated (default: recording, rules have no effect).",
    ),
)
