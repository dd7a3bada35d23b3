"""What `mec status` prints of a snapshot: members and their load, links, and radio devices."""

from __future__ import annotations

from rich.table import Table

from mec_apps.cli.tables import make_table
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2


def members_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """Members: what they are and how fast."""
    headings = ("member", "address", "target", "trusted", "threads", "MB", "us/block", "sessions")
    rows = []
    for member in snapshot.members:
        facts = ("gateway", "", "", "", "")
        if member.role == control_plane_pb2.MEMBER_ROLE_NODE:
            facts = (
                member.hardware.compile_target,
                "yes" if member.trusted else "no",
                str(member.hardware.threads),
                f"{member.memory_bytes / 1e6:.0f}",
                f"{member.block_time_us:.0f}",
            )
        rows.append((member.name, member.address, *facts, member.sessions))
    return make_table(headings, rows)


def loads_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """How busy members and their machines are, and where they are."""
    rows = [(member.name, *_load(member), _where(member)) for member in snapshot.members]
    return make_table(("member", "busy", "KV MB", "CPU", "°C", "where"), rows)


def links_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """Links with how they were measured, how far that is to be trusted, and what becomes of them."""
    rows = [
        (
            f"{member.name} -> {link.peer}",
            f"{link.bytes_per_s / 1e6:.3g}",
            f"{link.round_trip_ms:.2g}",
            "frames" if link.passive else "probes",
            f"{link.confidence:.0%}",
            f"{link.age_s:.0f}" if link.age_s else "",
            _expected(link.forecast) if link.HasField("forecast") else "",
            "emulated" if link.emulated else "",
        )
        for member in snapshot.members
        for link in sorted(member.links, key=lambda each: each.peer)
    ]
    return make_table(("link", "MB/s", "trip ms", "by", "sure", "age s", "expected", ""), rows)


def radio_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """Radio devices: their signal, and how right forecasts of their round trip have been."""
    rows = [
        (
            ue.ue,
            ue.cell,
            f"{ue.rsrp_dbm:.0f}",
            f"{ue.sinr_db:.0f}",
            _expected(ue.forecast) if ue.HasField("forecast") else "",
            f"{ue.forecast_error_ms:.3g}",
            f"{ue.persistence_error_ms:.3g}",
            ue.forecasts,
        )
        for ue in snapshot.radio
    ]
    headings = ("UE", "cell", "RSRP dBm", "SINR dB", "expected", "error ms", "if it stayed", "forecasts")
    return make_table(headings, rows)


def _load(member: control_plane_pb2.MemberReport) -> tuple[str, str, str, str]:
    """Busy share and KV of a node, CPU use and temperature of its machine; nothing where it is not shown."""
    load, is_node = member.load, member.role == control_plane_pb2.MEMBER_ROLE_NODE
    return (
        f"{load.busy_share:.0%}" if is_node else "",
        f"{load.kv_used_bytes / 1e6:.1f}/{load.kv_total_bytes / 1e6:.0f}" if load.kv_total_bytes else "",
        f"{load.machine_cpu_share:.0%}" if load.HasField("machine_cpu_share") else "",
        f"{load.temperature_c:.0f}" if load.HasField("temperature_c") else "",
    )


def _where(member: control_plane_pb2.MemberReport) -> str:
    named = {"site": member.site, "machine": member.machine, "group": member.group, "UE": member.ue}
    return ", ".join(f"{what} {name}" for what, name in named.items() if name)


def _expected(forecast: types_pb2.LinkForecast) -> str:
    words = f"in {forecast.after_s:g} s {forecast.round_trip_ms:.3g} ms ({forecast.confidence:.0%} sure)"
    return words + (f", breaks in {forecast.breaks_in_s:.1f} s" if forecast.HasField("breaks_in_s") else "")
