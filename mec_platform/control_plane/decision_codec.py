"""Decisions as the journal keeps them: with the snapshot, the policy's memory and the settings that they were made from.

MessagePack, because limits may be infinite, which JSON cannot say. What is decoded equals what was encoded, so that
`replay` can decide again; what the policy remembers only to save work is left out.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Wait,
)
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.domain.capacity import Snapshot

VERSION = 1
COMPRESS_BYTES = 16_384
"""Snapshots of hundreds of nodes repeat themselves: compressed they take a tenth."""

_COMPRESSED = b"x"
"""What zlib begins with; no MessagePack map does."""

_TYPES: dict[str, type[Any]] = {
    "wait": Wait,
    "keep": Keep,
    "reconfigure": Reconfigure,
    "add_chain": AddChain,
    "drop_chain": DropChain,
    "shed": Shed,
}
_NAMES = {of: name for name, of in _TYPES.items()}
_NUMBER = re.compile(r"(?<![\w-])\d+(\.\d+)?(e[+-]?\d+)?")


class UnreadableRecord(Exception):
    """A journal entry that was not written by this module, or by a version of it that is no longer understood."""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision, and all that `tick` was given for it."""

    decision: Decision
    snapshot: Snapshot
    state: PolicyState
    settings: ControlSettings

    @property
    def deployment(self) -> str:
        """Its model; "" until a node has reported one."""
        return "" if self.snapshot.model is None else self.snapshot.model.name


class _Wire(msgspec.Struct):
    version: int
    type: str
    decision: msgspec.Raw
    snapshot: Snapshot
    state: PolicyState
    settings: ControlSettings


def encode_record(record: DecisionRecord) -> bytes:
    """Compressed where it is long."""
    wire = _Wire(
        version=VERSION,
        type=_NAMES[type(record.decision)],
        decision=msgspec.Raw(msgspec.msgpack.encode(record.decision)),
        snapshot=record.snapshot,
        state=replace(record.state, seen=None),
        settings=record.settings,
    )
    payload = msgspec.msgpack.encode(wire, order="deterministic")
    return payload if len(payload) < COMPRESS_BYTES else zlib.compress(payload)


def decode_record(payload: bytes) -> DecisionRecord:
    """The opposite. Raises UnreadableRecord."""
    try:
        text = zlib.decompress(payload) if payload[:1] == _COMPRESSED else payload
        wire = msgspec.msgpack.decode(text, type=_Wire)
        if wire.version != VERSION or wire.type not in _TYPES:
            raise UnreadableRecord(f"version {wire.version}, a decision of type {wire.type}")
        decision = msgspec.msgpack.decode(wire.decision, type=_TYPES[wire.type])
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise UnreadableRecord(str(error)) from error
    return DecisionRecord(decision, wire.snapshot, wire.state, wire.settings)


def is_new_in_substance(decision: Decision, last: Decision | None) -> bool:
    """Whether a decision says something else than the last one: other words or another plan, not only other numbers."""
    if isinstance(decision, Reconfigure | AddChain | DropChain | Shed) or type(decision) is not type(last):
        return True
    assert isinstance(last, Wait | Keep)
    if isinstance(decision, Keep) and isinstance(last, Keep) and decision.plan != last.plan:
        return True
    return _NUMBER.sub("#", decision.reason) != _NUMBER.sub("#", last.reason)
