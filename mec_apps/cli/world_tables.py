"""What `mec status` prints of a snapshot: members, links, and radio devices."""

from __future__ import annotations

from rich.table import Column, Table

from mec_platform.rpc.v1 import control_plane_pb2, types_pb2


def members_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """Members with what they are, and how busy they and their machines are."""
    table = Table(
        "member",
        Column("address", no_wrap=True),
        "target",
        "trusted",
        "threads",
        "MB",
        "us/block",
        "sessions",
        "busy",
        "KV MB",
        "CPU",
        "°C",
        "where",
    )
    for member in snapshot.members:
        if member.role == control_plane_pb2.MEMBER_ROLE_NODE:
            facts = (
                member.hardware.compile_target,
                "yes" if member.trusted else "no",
                str(member.hardware.threads),
                f"{member.memory_bytes / 1e6:.0f}",
                f"{member.block_time_us:.0f}",
            )
        else:
            facts = ("gateway", "", "", "", "")
        table.add_row(member.name, member.address, *facts, str(member.sessions), *_load(member), _where(member))
    return table


def links_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """Links with how they were measured, how far that is to be trusted, and what becomes of them."""
    table = Table("link", "MB/s", "round trip ms", "by", "sure", "age s", "expected", "")
    for member in snapshot.members:
        for link in sorted(member.links, key=lambda each: each.peer):
            table.add_row(
                f"{member.name} -> {link.peer}",
                f"{link.bytes_per_s / 1e6:.3g}",
                f"{link.round_trip_ms:.2g}",
                "frames" if link.passive else "probes",
                f"{link.confidence:.0%}",
                f"{link.age_s:.0f}" if link.age_s else "",
                _expected(link.forecast) if link.HasField("forecast") else "",
                "emulated" if link.emulated else "",
            )
    return table


def radio_table(snapshot: control_plane_pb2.Snapshot) -> Table:
    """Radio devices: their signal, and how right forecasts of their round trip have been."""
    table = Table("UE", "cell", "RSRP dBm", "SINR dB", "expected", "error ms", "of persistence", "forecasts")
    for ue in snapshot.radio:
        table.add_row(
            ue.ue,
            ue.cell,
            f"{ue.rsrp_dbm:.0f}",
            f"{ue.sinr_db:.0f}",
            _expected(ue.forecast) if ue.HasField("forecast") else "",
            f"{ue.forecast_error_ms:.3g}",
            f"{ue.persistence_error_ms:.3g}",
            str(ue.forecasts),
        )
    return table


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
