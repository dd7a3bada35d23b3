"""What the journal has of a decision reads back as it was, whatever stood in it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.decision_codec import (
    COMPRESS_BYTES,
    DecisionRecord,
    UnreadableRecord,
    decode_record,
    encode_record,
    is_new_in_substance,
)
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Wait,
)
from mec_platform.control_plane.orchestrator.state import PolicyState, Seen
from mec_platform.control_plane.tick import tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.cost_profile import CostProfile, RowCost
from mec_platform.domain.layers import LayerRange

PROFILE = CostProfile("measured", (8, 1), RowCost(1e-4, (2e-4, 1e-4)), 1e-9, 1e-9, RowCost(0.0, (1e-3, 1e-4)), 0.02)
DECISIONS = (Wait, Keep, Reconfigure, AddChain, DropChain, Shed)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Every value of a type of the control plane; numbers are finite, as they are in snapshots."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is LayerRange:
        return st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda ends: LayerRange(ends[0], sum(ends)))
    if kind is CostProfile:
        return st.just(PROFILE)
    if kind is ControlSettings:
        return st.builds(ControlSettings, priority=st.integers(-5, 5))
    if kind is Seen:
        return st.nothing()
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(each) for each in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(values_of(each) for each in arguments))
    if origin is frozenset:
        return st.frozensets(values_of(arguments[0]), max_size=3)
    if origin is Mapping:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=2)
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return st.sampled_from(arguments or list(kind))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{each.name: values_of(hints[each.name]) for each in fields(kind)})
    if kind is type(None):
        return st.none()
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=6),
        int: st.integers(0, 2**60),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
    }
    return simple[kind]


@given(data=st.data())
@settings(derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_is_encoded_is_decoded_as_it_was(data: st.DataObject) -> None:
    decision = data.draw(values_of(data.draw(st.sampled_from(DECISIONS))))
    record = DecisionRecord(
        decision,
        data.draw(values_of(Snapshot)),
        data.draw(values_of(PolicyState)),
        data.draw(values_of(ControlSettings)),
    )
    assert decode_record(encode_record(record)) == record


def test_a_large_snapshot_is_kept_in_a_tenth(world: SimpleNamespace) -> None:
    seen = world.snapshot([world.node(f"n{number}") for number in range(100)], links=())
    record = DecisionRecord(Wait("nothing"), seen, PolicyState(), ControlSettings())
    payload = encode_record(record)
    assert len(payload) < COMPRESS_BYTES
    assert decode_record(payload) == record


def test_what_only_saves_work_is_left_out(world: SimpleNamespace) -> None:
    seen = world.snapshot([world.node("a")])
    decision, state = tick(seen, PolicyState(), ControlSettings())
    assert state.seen is not None
    assert decode_record(encode_record(DecisionRecord(decision, seen, state, ControlSettings()))).state.seen is None


@pytest.mark.parametrize("payload", [b"{}", b"", b"\x00\x01", b'{"decision": {}, "snapshot": {}}', b"{broken"])
def test_what_is_no_record_is_refused(payload: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode_record(payload)


def test_only_what_says_something_else_is_new(world: SimpleNamespace) -> None:
    plan, other = world.plan(1, ("edge-1", 0, 12)), world.plan(2, ("edge-2", 0, 12))
    keep: Decision = Keep(plan, "no other plan beats this one (9.0 ms per token)", 9.0)
    assert is_new_in_substance(keep, None)
    assert not is_new_in_substance(Keep(plan, "no other plan beats this one (9.25 ms per token)", 9.25), keep)
    assert is_new_in_substance(Keep(other, "no other plan beats this one (9.0 ms per token)", 9.0), keep)
    assert is_new_in_substance(Keep(plan, "node edge-1 is 95% busy; no other plan beats this one", 9.0), keep)
    assert is_new_in_substance(Wait("edge-1 is lost"), Wait("edge-2 is lost"))
