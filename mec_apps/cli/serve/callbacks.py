"""Where the notifications of `mec serve` may go."""

from __future__ import annotations

from dataclasses import dataclass

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.enablement_api.notifications.targets import read_allowances

_option = options_of("Notifications")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the options say, checked: networks and hosts that may be called though they are internal."""

    allowed: tuple[str, ...]


def _make(callback_allow: tuple[str, ...]) -> Callbacks:
    """Raises AllowanceError for what is neither a network nor a host."""
    read_allowances(callback_allow)
    return Callbacks(callback_allow)


callback_options = option_group(
    "callbacks",
    _make,
    _option(
        "--callback-allow",
        multiple=True,
        metavar="CIDR|HOST[:PORT]",
        help="Internal network or host that notifications may be posted to; repeatable (default: none, but with"
        " authentication off this machine and private networks).",
    ),
)
