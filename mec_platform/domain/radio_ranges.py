"""What is measured in dBm and dB, as the report ranges that 3GPP writes it in, and back.

A report is the number of a range: NR's are those of TS 38.133 tables 10.1.6.1-1, 10.1.11.1-1 and 10.1.16.1-1, E-UTRA's those of
TS 36.133 tables 9.1.4-1, 9.1.7-1 and 9.1.17-1. Ranges are half-open, and the first and the last have one end only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor


@dataclass(frozen=True, slots=True)
class ReportRange:
    """Ranges of `step` dB: number 1 begins at `first`, number 0 is below it, number `last` has no upper end."""

    first: float
    step: float
    last: int

    def report(self, value: float) -> int:
        """The number of the range that a measured value lies in."""
        return min(max(floor((value - self.first) / self.step) + 1, 0), self.last)

    def value(self, number: int) -> float:
        """The middle of a range, so that no reported value is off by more than half a step; of an open one its one end.

        Raises:
            ValueError: there is no such range.
        """
        if not 0 <= number <= self.last:
            raise ValueError(f"{number} is no report of 0 to {self.last}")
        if number == 0:
            return self.first
        begin = self.first + (number - 1) * self.step
        return begin if number == self.last else begin + self.step / 2


NR_RSRP = ReportRange(first=-156.0, step=1.0, last=126)
"""dBm; 127 stands for infinity and is not reported."""

NR_RSRQ = ReportRange(first=-43.0, step=0.5, last=127)
NR_SINR = ReportRange(first=-23.0, step=0.5, last=127)
EUTRA_RSRP = ReportRange(first=-140.0, step=1.0, last=97)
"""dBm."""

EUTRA_RSRQ = ReportRange(first=-19.5, step=0.5, last=34)
EUTRA_SINR = ReportRange(first=-23.0, step=0.5, last=127)
