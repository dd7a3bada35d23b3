"""Frames: what is packed comes back, and whatever else arrives is refused, never misread."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mec_apps.split_inference.frames import (
    HEADER,
    MAX_ROWS,
    SAMPLE,
    VERSION,
    Frame,
    FrameError,
    FrameKind,
    check_rows,
    gateway_of,
    pack_frame,
    unpack_frame,
)
from mec_apps.split_inference.generation import SamplingSettings

HIDDEN_BYTES = 8

unsigned_32 = st.integers(0, 2**32 - 1)
unsigned_64 = st.integers(0, 2**64 - 1)
float_32 = st.floats(width=32, allow_nan=False)
frames = st.builds(
    Frame,
    kind=st.sampled_from(FrameKind),
    epoch=unsigned_64,
    session=unsigned_64,
    position=unsigned_32,
    rows=unsigned_32,
    flags=st.integers(0, 2**16 - 1),
    compute_us=unsigned_32,
    sampling=st.builds(SamplingSettings, temperature=float_32, top_p=float_32, seed=unsigned_64),
    payload=st.binary(max_size=64),
)


@given(frames)
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


@given(frames, st.integers(0, HEADER.size - 1))
@example(Frame(FrameKind.HELLO), HEADER.size - 1)
def test_a_header_cut_short_is_refused(frame: Frame, length: int) -> None:
    with pytest.raises(FrameError, match="at least 48 bytes"):
        unpack_frame(pack_frame(frame)[:length])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    message = bytes([version]) + pack_frame(Frame(FrameKind.HELLO))[1:]
    with pytest.raises(FrameError, match=f"version {version}"):
        unpack_frame(message)


@pytest.mark.parametrize("kind", [0, max(FrameKind) + 1, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    message = bytes([VERSION, kind]) + pack_frame(Frame(FrameKind.HELLO))[2:]
    with pytest.raises(FrameError, match=f"kind {kind}"):
        unpack_frame(message)


def test_fields_lie_where_the_documented_table_puts_them() -> None:
    sampling = SamplingSettings(temperature=0.5, top_p=0.25, seed=7)
    message = pack_frame(Frame(FrameKind.TOKENS, 3, 5 << 32 | 9, 11, 2, SAMPLE, 13, sampling, b"12345678"))
    assert len(message) == 48 + 8
    assert struct.unpack_from("<BBHI", message, 0) == (1, 2, 1, 2)
    assert struct.unpack_from("<QQII", message, 8) == (3, 5 << 32 | 9, 11, 13)
    assert struct.unpack_from("<Qff", message, 32) == (7, 0.5, 0.25)
    assert message[48:] == b"12345678"


def test_compute_time_that_does_not_fit_stays_at_its_largest() -> None:
    assert unpack_frame(pack_frame(Frame(FrameKind.RESULT, compute_us=2**40))).compute_us == 2**32 - 1


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
