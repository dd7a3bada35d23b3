"""Where a platform keeps its state: a file of its own, or etcd, which it may share with replicas; and what comes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.etcd.event_log import EtcdEventLog
from mec_platform.registry.etcd.heartbeats import EtcdHeartbeats
from mec_platform.registry.etcd.leadership import EtcdLeadership
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.event_log import EventLog
from mec_platform.registry.heartbeats import HeartbeatExchange
from mec_platform.registry.leadership import AlwaysLeader, Leadership
from mec_platform.registry.sqlite.event_log import SqliteEventLog


@dataclass(frozen=True, slots=True)
class Store:
    """`leadership` is to be started by who uses it, and stopped before `log` is closed."""

    log: EventLog
    leadership: Leadership
    exchange: HeartbeatExchange | None = None


async def open_store(where: Path | str | EtcdSettings, replica: str) -> Store:
    """Opens a file (`:memory:` for none) or a prefix in etcd; `replica` is what operators see of who leads.

    Raises:
        LogUnavailable: it cannot be opened; the message says what to do.
    """
    if not isinstance(where, EtcdSettings):
        return Store(await SqliteEventLog.open(where), AlwaysLeader())
    try:
        log = await EtcdEventLog.open(where)
    except OSError as error:
        raise LogUnavailable(
            f"{where}: {error}; check the files that --etcd-ca, --etcd-cert and --etcd-key name"
        ) from error
    return Store(log, EtcdLeadership(log.client, log.keys, replica), EtcdHeartbeats(log.client, log.keys))
