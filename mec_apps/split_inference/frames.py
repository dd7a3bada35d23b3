"""Frames of the data plane: a fixed header of 48 bytes and a raw payload, little-endian.

    offset  0  u8   version (1)
            1  u8   kind
            2  u16  flags (SAMPLE, ARRIVAL), or the refusal code of a REFUSED frame
            4  u32  rows
            8  u64  epoch of the plan the frame belongs to; of an ARRIVED: nanoseconds of the receiver's clock
           16  u64  session; its upper 32 bits name the gateway that owns it
           24  u32  position of the first row in the session; of a RESULT: the position its token takes
           28  u32  compute time of all stages so far, microseconds
           32  u64  seed        (sampling)
           40  f32  temperature (sampling)
           44  f32  top_p       (sampling)

Payloads: TOKENS int32 [rows]; ROWS, which a first stage takes in place of tokens, and HIDDEN float32 [rows, hidden] (an
encoder's tensor is one row; its last stage sends HIDDEN to the gateway); RESULT int32 [1]; REFUSED and HELLO UTF-8 text; PROBE
anything, answered by an empty PROBE_ECHO that repeats the header; END nothing; ROLL u64 [sessions], the sessions of a gateway that
live of all up to the header's. A TOKENS, ROWS or HIDDEN frame with the flag
ARRIVAL is answered at once by an ARRIVED, in the order of the frames that asked.

Whatever arrives is a frame within these bounds, or a FrameError that says by its `fault` what is wrong with it. What depends
on the model and the header, the number and the exact size of rows, is `check_rows`'s, and answered by a REFUSED frame.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from mec_apps.split_inference.generation import SamplingSettings

HEADER = struct.Struct("<BBHIQQIIQff")
VERSION = 1
SAMPLE = 1
ARRIVAL = 2
"""Flag of a frame whose sender wants to know when it has arrived."""

MAX_ROWS = 256
"""Rows in one frame; longer prompts travel as several frames."""

MAX_TEMPERATURE = 2.0
"""As in the gateway's APIs."""

MAX_MESSAGE_BYTES = 32 << 20
"""Bound of one gRPC message: a frame of MAX_ROWS rows of a wide model, or a KV chunk."""


MAX_TEXT_BYTES = 1024
MAX_ROLL_BYTES = 8 * 10_000
"""As many sessions as a gateway can be told to take."""

MAX_PROBE_BYTES = 1 << 20
"""Twice what the largest probe of a link has."""


class FrameKind(IntEnum):
    """What a frame carries."""

    HELLO = 1
    TOKENS = 2
    HIDDEN = 3
    RESULT = 4
    REFUSED = 5
    END = 6
    PROBE = 7
    PROBE_ECHO = 8
    ROWS = 9
    ARRIVED = 10
    ROLL = 11


class Refusal(IntEnum):
    """Why a stage did not run a frame; travels in the flags of a REFUSED frame."""

    BAD_FRAME = 1
    STALE_EPOCH = 2
    UNKNOWN_EPOCH = 3
    GAP = 4
    NO_PAGES = 5
    NEXT_HOP_LOST = 6
    COMPUTE_FAILED = 7


RECOVERABLE = frozenset({Refusal.STALE_EPOCH, Refusal.UNKNOWN_EPOCH, Refusal.GAP, Refusal.NEXT_HOP_LOST})
"""Refusals after which the same work can be sent again on another plan."""


class FrameFault(StrEnum):
    """What is wrong with bytes that are no frame, or with a frame that is not for whom it reached."""

    TOO_SHORT = "too short"
    VERSION = "version"
    KIND = "kind"
    TOO_LARGE = "too large"
    SIZE = "size"
    SAMPLING = "sampling"
    SENDER = "sender"


class FrameError(ValueError):
    """Bytes that are not a frame of this version, within its bounds, for this side."""

    def __init__(self, fault: FrameFault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


GREEDY = SamplingSettings()


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; see the module's table for fields and payloads."""

    kind: FrameKind
    epoch: int = 0
    session: int = 0
    position: int = 0
    rows: int = 0
    flags: int = 0
    compute_us: int = 0
    sampling: SamplingSettings = GREEDY
    payload: bytes = b""

    @property
    def wants_token(self) -> bool:
        """Whether the last stage shall sample after this frame's last row."""
        return bool(self.flags & SAMPLE)


def pack_frame(frame: Frame) -> bytes:
    """Header and payload as one message."""
    return (
        HEADER.pack(
            VERSION,
            frame.kind,
            frame.flags,
            frame.rows,
            frame.epoch,
            frame.session,
            frame.position,
            min(frame.compute_us, 0xFFFFFFFF),
            frame.sampling.seed,
            frame.sampling.temperature,
            frame.sampling.top_p,
        )
        + frame.payload
    )


_LARGEST_PAYLOADS = {
    FrameKind.HELLO: MAX_TEXT_BYTES,
    FrameKind.TOKENS: 4 * MAX_ROWS,
    FrameKind.RESULT: 4,
    FrameKind.REFUSED: MAX_TEXT_BYTES,
    FrameKind.END: 0,
    FrameKind.PROBE: MAX_PROBE_BYTES,
    FrameKind.PROBE_ECHO: 0,
    FrameKind.ARRIVED: 0,
    FrameKind.ROLL: MAX_ROLL_BYTES,
}
"""Of kinds whose payload has nothing to do with a model's width."""


def unpack_frame(message: bytes, largest_rows_bytes: int = MAX_MESSAGE_BYTES) -> Frame:
    """Reads a message; `largest_rows_bytes` is the most that ROWS and HIDDEN of the reader's model can need.

    Raises:
        FrameError: it is too short, of another version or an unknown kind, or beyond the bounds of its kind.
    """
    if len(message) < HEADER.size:
        raise FrameError(FrameFault.TOO_SHORT, f"a frame has at least {HEADER.size} bytes, this one {len(message)}")
    fields = HEADER.unpack_from(message)
    version, kind, flags, rows, epoch, session, position, compute_us, seed, temperature, top_p = fields
    if version != VERSION:
        raise FrameError(FrameFault.VERSION, f"frame version {version}, this side speaks {VERSION}")
    try:
        frame_kind = FrameKind(kind)
    except ValueError as error:
        raise FrameError(FrameFault.KIND, f"unknown frame kind {kind}") from error
    size, largest = len(message) - HEADER.size, _LARGEST_PAYLOADS.get(frame_kind, largest_rows_bytes)
    if size > largest:
        raise FrameError(
            FrameFault.TOO_LARGE, f"a {frame_kind.name} frame of {size} bytes, of which {largest} are the most"
        )
    if frame_kind is FrameKind.ROLL and size % 8:
        raise FrameError(FrameFault.SIZE, f"a ROLL frame has 8 bytes for each session, this one {size} in all")
    if frame_kind is FrameKind.RESULT and size != largest:
        raise FrameError(FrameFault.SIZE, f"a RESULT frame has {largest} bytes of payload, this one {size}")
    if not (0 <= temperature <= MAX_TEMPERATURE and 0 <= top_p <= 1):  # not a number is neither
        raise FrameError(FrameFault.SAMPLING, f"temperature {temperature} and top_p {top_p} are out of bounds")
    return Frame(
        kind=frame_kind,
        epoch=epoch,
        session=session,
        position=position,
        rows=rows,
        flags=flags,
        compute_us=compute_us,
        sampling=SamplingSettings(temperature, top_p, seed),
        payload=message[HEADER.size :],
    )


def check_rows(frame: Frame, hidden_bytes_per_row: int) -> str | None:
    """Why the payload of a TOKENS, ROWS or HIDDEN frame does not fit its header; None where it does."""
    if not 1 <= frame.rows <= MAX_ROWS:
        return f"{frame.rows} rows; a frame carries 1 to {MAX_ROWS}"
    row_bytes = 4 if frame.kind is FrameKind.TOKENS else hidden_bytes_per_row
    if len(frame.payload) != frame.rows * row_bytes:
        return f"{frame.rows} rows need {frame.rows * row_bytes} bytes, the payload has {len(frame.payload)}"
    return None


def roll_frame(newest: int, live: Collection[int]) -> Frame:
    """Says that of a gateway's sessions up to the `newest` only those that are `live` have not ended."""
    return Frame(FrameKind.ROLL, session=newest, payload=struct.pack(f"<{len(live)}Q", *live))


def live_sessions(roll: Frame) -> frozenset[int]:
    """The sessions that a ROLL frame names."""
    return frozenset(struct.unpack(f"<{len(roll.payload) // 8}Q", roll.payload))


def gateway_of(session: int) -> int:
    """Number of the gateway that owns a session."""
    return session >> 32
