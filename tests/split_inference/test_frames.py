"""Frames: what is packed comes back, and whatever else arrives is refused, never misread."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mec_apps.split_inference.frames import (
    HEADER,
    MAX_PROBE_BYTES,
    MAX_ROLL_BYTES,
    MAX_ROWS,
    MAX_TEMPERATURE,
    MAX_TEXT_BYTES,
    SAMPLE,
    VERSION,
    Frame,
    FrameError,
    FrameFault,
    FrameKind,
    check_rows,
    gateway_of,
    live_sessions,
    pack_frame,
    roll_frame,
    unpack_frame,
)
from mec_apps.split_inference.generation import SamplingSettings

HIDDEN_BYTES = 8

unsigned_32 = st.integers(0, 2**32 - 1)
unsigned_64 = st.integers(0, 2**64 - 1)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Frames as this side sends them."""
    kind = draw(st.sampled_from(FrameKind))
    sizes = {FrameKind.RESULT: (4, 4), FrameKind.END: (0, 0), FrameKind.PROBE_ECHO: (0, 0), FrameKind.ARRIVED: (0, 0)}
    smallest, largest = sizes.get(kind, (0, 64))
    payload = st.binary(min_size=smallest, max_size=largest)
    if kind is FrameKind.ROLL:
        payload = st.lists(st.binary(min_size=8, max_size=8), max_size=8).map(b"".join)
    sampling = SamplingSettings(
        draw(st.floats(0, MAX_TEMPERATURE, width=32)), draw(st.floats(0, 1, width=32)), draw(unsigned_64)
    )
    return Frame(
        kind=kind,
        epoch=draw(unsigned_64),
        session=draw(unsigned_64),
        position=draw(unsigned_32),
        rows=draw(unsigned_32),
        flags=draw(st.integers(0, 2**16 - 1)),
        compute_us=draw(unsigned_32),
        sampling=sampling,
        payload=draw(payload),
    )


@given(frames())
def test_a_packed_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert unpack_frame(pack_frame(frame)) == frame


@given(st.binary(max_size=3 * HEADER.size))
def test_any_bytes_are_a_frame_or_a_frame_error(message: bytes) -> None:
    try:
        frame = unpack_frame(message)
    except FrameError:
        return
    assert message[0] == VERSION
    assert frame.payload == message[HEADER.size :]


@given(frames(), st.integers(0, HEADER.size - 1))
@example(Frame(FrameKind.HELLO), HEADER.size - 1)
def test_a_header_cut_short_is_refused(frame: Frame, length: int) -> None:
    with pytest.raises(FrameError, match="at least 48 bytes"):
        unpack_frame(pack_frame(frame)[:length])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    message = bytes([version]) + pack_frame(Frame(FrameKind.HELLO))[1:]
    with pytest.raises(FrameError, match=f"version {version}") as raised:
        unpack_frame(message)
    assert raised.value.fault is FrameFault.VERSION


@pytest.mark.parametrize("kind", [0, max(FrameKind) + 1, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    message = bytes([VERSION, kind]) + pack_frame(Frame(FrameKind.HELLO))[2:]
    with pytest.raises(FrameError, match=f"kind {kind}") as raised:
        unpack_frame(message)
    assert raised.value.fault is FrameFault.KIND


@given(frames(), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits_make_another_frame_within_bounds_or_a_frame_error(
    frame: Frame, flips: list[tuple[int, int]]
) -> None:
    message = bytearray(pack_frame(frame))
    for index, bit in flips:
        message[index % len(message)] ^= 1 << bit
    try:
        read = unpack_frame(bytes(message), largest_rows_bytes=64)
    except FrameError:
        return
    assert len(read.payload) <= max(64, 4 * MAX_ROWS, MAX_TEXT_BYTES)
    assert 0 <= read.sampling.temperature <= MAX_TEMPERATURE
    assert 0 <= read.sampling.top_p <= 1
    assert pack_frame(read) == bytes(message)


@given(frames(), st.integers(0, 200))
def test_a_frame_cut_anywhere_is_shorter_or_a_frame_error(frame: Frame, length: int) -> None:
    message = pack_frame(frame)[:length]
    try:
        read = unpack_frame(message)
    except FrameError:
        assert len(message) < HEADER.size or frame.kind in (FrameKind.RESULT, FrameKind.ROLL)
    else:
        assert pack_frame(read) == message


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (Frame(FrameKind.HELLO, payload=bytes(MAX_TEXT_BYTES + 1)), FrameFault.TOO_LARGE),
        (Frame(FrameKind.TOKENS, rows=MAX_ROWS, payload=bytes(4 * MAX_ROWS + 1)), FrameFault.TOO_LARGE),
        (Frame(FrameKind.HIDDEN, rows=1, payload=bytes(MAX_ROWS * HIDDEN_BYTES + 1)), FrameFault.TOO_LARGE),
        (Frame(FrameKind.END, payload=b"x"), FrameFault.TOO_LARGE),
        (Frame(FrameKind.PROBE, payload=bytes(MAX_PROBE_BYTES + 1)), FrameFault.TOO_LARGE),
        (Frame(FrameKind.RESULT, payload=b"123"), FrameFault.SIZE),
        (Frame(FrameKind.ROLL, payload=bytes(12)), FrameFault.SIZE),
        (Frame(FrameKind.ROLL, payload=bytes(MAX_ROLL_BYTES + 8)), FrameFault.TOO_LARGE),
        (Frame(FrameKind.TOKENS, sampling=SamplingSettings(float("nan"), 1.0, 0)), FrameFault.SAMPLING),
        (Frame(FrameKind.TOKENS, sampling=SamplingSettings(float("inf"), 1.0, 0)), FrameFault.SAMPLING),
        (Frame(FrameKind.TOKENS, sampling=SamplingSettings(0.0, -0.5, 0)), FrameFault.SAMPLING),
    ],
)
def test_what_no_model_and_no_caller_can_need_is_refused_by_its_fault(frame: Frame, fault: FrameFault) -> None:
    with pytest.raises(FrameError) as raised:
        unpack_frame(pack_frame(frame), largest_rows_bytes=MAX_ROWS * HIDDEN_BYTES)
    assert raised.value.fault is fault


def test_fields_lie_where_the_documented_table_puts_them() -> None:
    sampling = SamplingSettings(temperature=0.5, top_p=0.25, seed=7)
    message = pack_frame(Frame(FrameKind.TOKENS, 3, 5 << 32 | 9, 11, 2, SAMPLE, 13, sampling, b"12345678"))
    assert len(message) == 48 + 8
    assert struct.unpack_from("<BBHI", message, 0) == (1, 2, 1, 2)
    assert struct.unpack_from("<QQII", message, 8) == (3, 5 << 32 | 9, 11, 13)
    assert struct.unpack_from("<Qff", message, 32) == (7, 0.5, 0.25)
    assert message[48:] == b"12345678"


def test_compute_time_that_does_not_fit_stays_at_its_largest() -> None:
    assert unpack_frame(pack_frame(Frame(FrameKind.RESULT, compute_us=2**40, payload=bytes(4)))).compute_us == 2**32 - 1


def test_only_the_sample_flag_asks_for_a_token() -> None:
    assert Frame(FrameKind.TOKENS, flags=SAMPLE).wants_token
    assert not Frame(FrameKind.TOKENS, flags=2).wants_token


@given(unsigned_32, unsigned_32)
def test_the_upper_half_of_a_session_names_its_gateway(gateway: int, number: int) -> None:
    assert gateway_of(gateway << 32 | number) == gateway


@given(st.sampled_from([FrameKind.TOKENS, FrameKind.HIDDEN]), st.integers(1, MAX_ROWS), st.integers(0, 3000))
def test_rows_pass_exactly_where_the_payload_has_their_size(kind: FrameKind, rows: int, size: int) -> None:
    row_bytes = 4 if kind is FrameKind.TOKENS else HIDDEN_BYTES
    assert check_rows(Frame(kind, rows=rows, payload=bytes(rows * row_bytes)), HIDDEN_BYTES) is None
    problem = check_rows(Frame(kind, rows=rows, payload=bytes(size)), HIDDEN_BYTES)
    assert (problem is None) == (size == rows * row_bytes)


@pytest.mark.parametrize("rows", [0, MAX_ROWS + 1, 2**32 - 1])
def test_no_rows_and_too_many_rows_are_named_in_the_problem(rows: int) -> None:
    problem = check_rows(Frame(FrameKind.TOKENS, rows=rows, payload=b""), HIDDEN_BYTES)
    assert problem is not None
    assert f"{rows} rows" in problem


@given(st.lists(unsigned_64, max_size=20, unique=True), unsigned_64)
def test_a_roll_names_the_sessions_that_live(live: list[int], newest: int) -> None:
    roll = unpack_frame(pack_frame(roll_frame(newest, live)))
    assert (roll.session, live_sessions(roll)) == (newest, frozenset(live))
