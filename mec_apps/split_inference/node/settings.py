"""What an operator says when starting an edge node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mec_apps.sdk.session import Access
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_apps.split_inference.member_identity import MemberFiles
from mec_apps.split_inference.node.kv_compression import KvCompression


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Validated by the command line. `memory_bytes` is what the node offers to weights of stages.

    `store_dir` is the content store; the user's where it is None. `target` is the row that this machine would
    compile for, for messages. `advertise` is the `host:port` under which others reach it; "" where that is where it listens.
    `site`, `machine`, `group` and `ue` are as in a member's report. With an `identity` it speaks
    mutual TLS; outside loopback it must have one, unless `allow_remote` says that the network is trusted, and then it speaks
    in the clear.
    """

    name: str
    package_dir: Path
    artefact_dir: Path
    platform_url: str
    platform_grpc: str
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    metrics_port: int = 0
    threads: int = 1
    memory_bytes: int = 1 << 30
    kv_tokens: int = 16_384
    max_sessions: int = 64
    context: int = 2048
    kv_compression: KvCompression = KvCompression.NONE
    trusted: bool = True
    emulate: bool = False
    emulated_links: Mapping[str, EmulatedLink] = field(default_factory=dict)
    emulated_cpu_share: float = 1.0
    allow_remote: bool = False
    identity: MemberFiles | None = None
    access: Access = field(default_factory=Access)
    platform_wait_s: float = 15.0
    store_dir: Path | None = None
    target: str = ""
    site: str = ""
    machine: str = ""
    group: str = ""
    ue: str = ""
