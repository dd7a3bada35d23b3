"""When the host's clock counts as locked to UTC."""

from __future__ import annotations

import pytest

from mec_platform.host_time.clock_status import ClockReading, is_traceable, read_kernel_clock

OK, LEAP_SECOND_TONIGHT, ERROR = 0, 1, 5
PLL, UNSYNC, NANOSECONDS, CLOCK_ERROR = 0x0001, 0x0040, 0x2000, 0x1000


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (ClockReading(OK, PLL | NANOSECONDS, 25_000, 300), True),
        (ClockReading(OK, 0, 0, 0), True),
        (ClockReading(LEAP_SECOND_TONIGHT, PLL, 25_000, 300), True),
        (ClockReading(OK, PLL, 15_999_999, 300), True),
        (ClockReading(OK, PLL, 16_000_000, 300), False),
        (ClockReading(OK, PLL, 25_000, 16_000_000), False),
        (ClockReading(ERROR, PLL, 25_000, 300), False),
        (ClockReading(OK, UNSYNC, 25_000, 300), False),
        (ClockReading(ERROR, UNSYNC, 16_000_000, 16_000_000), False),
        (ClockReading(OK, CLOCK_ERROR, 25_000, 300), False),
        (None, False),
    ],
)
def test_a_clock_is_traceable_while_a_source_holds_it(reading, expected):
    assert is_traceable(reading) is expected


def test_reads_this_machines_clock():
    reading = read_kernel_clock()
    assert reading is None or (0 <= reading.state <= ERROR and reading.max_error_us >= 0)
