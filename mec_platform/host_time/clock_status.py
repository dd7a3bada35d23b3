"""Whether the kernel's clock is locked to UTC, as the daemon that steers it (chronyd, ntpd, ptp4l, systemd-timesyncd) has
told the kernel: adjtimex(2), which everybody may ask. The counterpart is the resource current_time of MEC 011.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntFlag

_TIME_ERROR = 5

LARGEST_ERROR_US = 16_000_000
"""Beyond 16 s the kernel itself calls the clock unsynchronised (NTP_PHASE_LIMIT); RFC 5905 has the same bound (MAXDISP)."""


class ClockFlag(IntFlag):
    """The bits of `struct timex.status` that are looked at."""

    UNSYNC = 0x0040
    CLOCK_ERROR = 0x1000


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What adjtimex(2) returned, and what it wrote. The maximum error grows while nobody corrects the clock."""

    state: int
    status: int
    max_error_us: int
    estimated_error_us: int


def is_traceable(reading: ClockReading | None) -> bool:
    """Whether the clock is locked to a UTC source (MEC 011 clause 7.1.2.5); what cannot be read is not."""
    if reading is None or reading.state == _TIME_ERROR:
        return False
    if reading.status & (ClockFlag.UNSYNC | ClockFlag.CLOCK_ERROR):
        return False
    return max(reading.max_error_us, reading.estimated_error_us) < LARGEST_ERROR_US


class _Timex(ctypes.Structure):
    """`struct timex` of <linux/timex.h>; what follows `tick` is not looked at, but written by the kernel."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_long * 32),
    )


def read_kernel_clock() -> ClockReading | None:
    """Asks the kernel, some microseconds; None where there is no adjtimex or it is forbidden."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    timex = _Timex()
    state = int(adjtimex(ctypes.byref(timex)))
    if state < 0:
        return None
    return ClockReading(state, timex.status, timex.maxerror, timex.esterror)
