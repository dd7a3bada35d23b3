"""What the frames of one direction tell of it, and how much may be probed beside them. Keeps no clock and sends nothing.

What is measured how:

- A sender sets ARRIVAL in some of its frames, and the receiver answers each with a frame of 48 bytes as soon as it has it,
  before anything is computed. Large frames all ask (the answer is under 1 % of them), small ones twice a second, and more
  often where that took long.
- A frame that found the link at rest: from when it was ready to its answer, less the round trip of an empty probe of the
  same second, is the time that its bytes took. One clock, the sender's.
- Frames in a row, each ready before the one ahead of it had arrived: the bytes of the later ones over the difference of
  two arrivals. One clock, the receiver's, whose stamps come with the answers; how they are delayed does not matter.
- Delays (a busy receiver, the scheduler) make a link look slower and nothing makes it look faster, so of a second's
  frames the quickest counts. Frames that were over in a few milliseconds tell only that the link is at least so fast.
- What no frame tells is probed, within a budget of 1 % of what the link carries.

Counterpart: `peer_link` sends, receives and asks the clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

LARGE_FRAME_BYTES = 8192
SMALL_FRAME_BYTES = 512
"""A frame up to this size is a round trip; what its bytes take is no more than noise, or the link is no link."""

ASK_EVERY_S = 0.5
ASK_AGAIN_S = 0.2
"""After a frame that took long: a second is to show enough of them for a rate."""

AT_REST_S = 0.005
CLEAR_S = 0.004
"""A frame that takes this much longer than an empty one tells the rate: scheduling noise is a millisecond or two."""

SURE_S = 0.03
"""Slower than this is no accident: one frame is enough. Of quicker ones three have to be seen."""

FEWEST = 3
LOST_AFTER_S = 5.0
MAX_WAITING = 256
FRAME_OVERHEAD_BYTES = 110
"""An empty frame and its answer, with HTTP/2 and TCP around them, half of it in this direction."""

PROBE_SHARE = 0.01
BURST_S = 30.0
"""A budget that was not used is kept this long."""


class PassiveRate(NamedTuple):
    """What frames told: the rate, 0 where none was clear; `at_least` is what the link carried at any rate."""

    bytes_per_s: float
    at_least: float


class _Asked(NamedTuple):
    ready_s: float
    size_bytes: int
    bytes_since: int  # of all frames since the one asked for before it
    at_rest: bool


class _Arrival(NamedTuple):
    peer_clock_s: float
    answered_s: float


@dataclass(slots=True)
class _Passed:
    size_bytes: int
    took_s: float
    with_round_trip: bool


class LinkMeter:
    """One direction, from here to a peer. Times are of this side's clock unless they say otherwise."""

    def __init__(self) -> None:
        self._waiting: deque[_Asked] = deque()
        self._passed: list[_Passed] = []
        self._trips: list[float] = []
        self._last_arrival: _Arrival | None = None
        self._last_asked_s = -float("inf")
        self._last_write_s = -float("inf")
        self._bytes_since = 0
        self._shortest_s = 0.0

    def ask(self, size_bytes: int, ready_s: float, now_s: float) -> bool:
        """Whether a frame that is about to be written shall ask for its arrival; `ready_s` is when it could have gone."""
        self._bytes_since += size_bytes
        if self._waiting and now_s - self._waiting[0].ready_s > LOST_AFTER_S:
            self.reset()  # the peer does not answer such frames
            self._last_asked_s = now_s + LOST_AFTER_S
        wanted = size_bytes >= LARGE_FRAME_BYTES or now_s - self._last_asked_s >= ASK_EVERY_S
        if not wanted or len(self._waiting) >= MAX_WAITING or now_s < self._last_asked_s:
            return False
        at_rest = not self._waiting and ready_s - self._last_write_s > AT_REST_S
        self._waiting.append(_Asked(ready_s, size_bytes, self._bytes_since, at_rest))
        self._bytes_since, self._last_asked_s = 0, now_s
        return True

    def wrote(self, now_s: float) -> None:
        """A frame was handed to the transport."""
        self._last_write_s = now_s

    def arrived(self, peer_clock_s: float, now_s: float) -> None:
        """The answer to the oldest frame that asked; `peer_clock_s` is when it was there by the peer's clock."""
        if not self._waiting:
            return
        asked, before = self._waiting.popleft(), self._last_arrival
        self._last_arrival = _Arrival(peer_clock_s, now_s)
        if not self._waiting and not self._bytes_since:
            self._last_write_s = -float("inf")  # all that was written has arrived
        if asked.at_rest:
            if asked.size_bytes <= SMALL_FRAME_BYTES:
                self._trips.append(now_s - asked.ready_s)
            else:
                took_s = now_s - asked.ready_s
                self._passed.append(_Passed(asked.size_bytes, took_s, True))
                if took_s > self._shortest_s + CLEAR_S:
                    self._last_asked_s = min(self._last_asked_s, now_s - ASK_EVERY_S + ASK_AGAIN_S)
        elif before is not None and asked.ready_s <= before.answered_s - self._shortest_s:
            self._passed.append(_Passed(asked.bytes_since, peer_clock_s - before.peer_clock_s, False))

    def reset(self) -> None:
        """The stream broke: what was under way is not answered any more."""
        self._waiting.clear()
        self._passed.clear()
        self._last_arrival = None
        self._bytes_since = 0

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is known to be under way."""
        return not self._waiting

    def take_round_trip_s(self) -> float:
        """The shortest round trip of small frames since the last call; 0 where there was none."""
        trips, self._trips = self._trips, []
        return min(trips, default=0.0)

    def take_rate(self, round_trip_s: float) -> PassiveRate:
        """What frames since the last call told, given the round trip of an empty frame now."""
        passed, self._passed = self._passed, []
        self._shortest_s = round_trip_s
        rates = []
        for each in passed:
            took_s = each.took_s - (round_trip_s if each.with_round_trip else 0.0)
            rates.append((each.size_bytes / max(took_s, CLEAR_S), took_s))
        if not rates:
            return PassiveRate(0.0, 0.0)
        quickest, took_s = max(rates)
        is_clear = took_s >= SURE_S or (took_s >= CLEAR_S and len(rates) >= FEWEST)
        return PassiveRate(quickest if is_clear else 0.0, quickest)


class ProbeBudget:
    """Bytes that may be probed with: PROBE_SHARE of what the link carries, no matter how its rate changes.

    The first probes are free, because without them there is no rate to take a share of; they are owed.
    """

    def __init__(self) -> None:
        self._rate = 0.0
        self._balance = 0.0
        self._at_s = 0.0

    def know(self, bytes_per_s: float, now_s: float) -> None:
        """The link's rate, as measured last."""
        self._earn(now_s)
        self._rate = bytes_per_s

    def allows(self, size_bytes: int, now_s: float) -> bool:
        """Whether a frame of that size may be sent now."""
        self._earn(now_s)
        return self._rate == 0.0 or self._balance >= size_bytes + FRAME_OVERHEAD_BYTES

    def spend(self, size_bytes: int) -> None:
        """A frame of that size is sent."""
        self._balance -= size_bytes + FRAME_OVERHEAD_BYTES

    def _earn(self, now_s: float) -> None:
        earned = PROBE_SHARE * self._rate * (now_s - self._at_s)
        self._balance = min(self._balance + earned, PROBE_SHARE * self._rate * BURST_S)
        self._at_s = now_s
