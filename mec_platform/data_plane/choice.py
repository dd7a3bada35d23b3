"""Which data planes a platform is told to use: `recording`, `nftables:INTERFACE,...`, `dnsmasq:DIR` or `dnsmasq:DIR,PIDFILE`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mec_platform.data_plane.hosts_file import DnsmasqDataPlane
from mec_platform.data_plane.nftables import NftablesDataPlane
from mec_platform.data_plane.port import DataPlane, DataPlaneError
from mec_platform.data_plane.recording import RecordingDataPlane

FORMS = "recording, nftables:INTERFACE,..., dnsmasq:DIR or dnsmasq:DIR,PIDFILE"


def make_data_planes(choices: Iterable[str]) -> tuple[DataPlane, ...]:
    """One for each choice; without any, one that enforces nothing.

    Raises:
        DataPlaneError: no such data plane, or the same one twice.
    """
    planes = tuple(_make(choice) for choice in choices) or (RecordingDataPlane(),)
    names = [plane.name for plane in planes]
    if len(set(names)) != len(names):
        raise DataPlaneError(f"each data plane may be chosen once, found {', '.join(names)}")
    return planes


def _make(choice: str) -> DataPlane:
    name, _, place = choice.partition(":")
    folder, _, pid_file = place.partition(",")
    match name:
        case "recording" if not place:
            return RecordingDataPlane()
        case "nftables":
            return NftablesDataPlane(place.split(","))
        case "dnsmasq" if folder:
            return DnsmasqDataPlane(Path(folder), Path(pid_file) if pid_file else None)
    raise DataPlaneError(f"{choice!r} is no data plane; choose {FORMS}")
