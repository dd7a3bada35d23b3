"""How patiently notifications are delivered; every figure is a default that a platform's settings may replace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """Waits before attempt n+1 are random between 0 and `first_delay_s` x 2^n, at most `longest_delay_s` (full jitter).

    A notification is given up after `attempts` or `longest_s` after its first attempt, whichever comes first: with these
    defaults after about half an hour. `in_flight` bounds requests at once, `in_flight_per_host` those to one origin.
    """

    attempts: int = 18
    longest_s: float = 3600.0
    first_delay_s: float = 0.5
    longest_delay_s: float = 300.0
    attempt_timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    in_flight: int = 256
    in_flight_per_host: int = 32
    settle_every_s: float = 0.05
    ping_every_s: float = 20.0
