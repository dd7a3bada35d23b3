"""Settings of monitoring: how long silence is forgiven, how measurements are smoothed, when silence is not believed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SeriesSettings:
    """How the samples of one quantity become an estimate; `series` says how."""

    # Enough for the median to hold still under noise; a step does not wait for it, see `series`.
    window: int = 7
    # What two neighbouring measurements of an unchanged thing differ by without saying anything.
    tolerance: float = 0.1
    # A normal distribution has 99 % of its samples within 2.6 standard deviations, of 1.48 median deviations each.
    band: float = 4.0
    # However they waver: a factor like this is a change.
    widest: float = 4.0
    # The window reaches back this long, but never to less than three samples.
    span_s: float = 60.0
    # After so long without a sample half of the trust is gone.
    half_life_s: float = 60.0


@dataclass(frozen=True, slots=True)
class MassSilenceSettings:
    """When members fall silent together and it is not believed; `mass_silence` says how it is told.

    With three nodes the death of two is believed: it takes three members at least, and more than `part` of those that
    reported before. Where nobody reports any more, two are enough: there is nobody to move anything to anyway.
    """

    part: float = 0.5
    at_least: int = 3
    # Reports come every second: members that vanished at one moment were heard last within one period, give or take.
    window_s: float = 2.5
    # Whoever has missed a report counts as silent when others are judged: they vanished together and time out apart.
    overdue_s: float = 1.5
    # While others do report, the network is not all broken: silence that lasts this long is believed.
    longest_s: float = 60.0
    # Once one of them is heard again, the others have this long: the longest pause of a stream's back-off, and a report.
    heal_s: float = 4.0


@dataclass(frozen=True, slots=True)
class RadioSettings:
    """How radio measurements of one UE become forecasts; `radio_forecast` says how."""

    # As far ahead as a plan needs to be prepared and switched.
    after_s: float = 2.0
    # The signal's trend is taken over this long, of this many points at most.
    trend_s: float = 4.0
    trend_points: int = 16
    # How long the level of round trips looks back.
    level_s: float = 1.0
    slow_level_s: float = 5.0
    # Of what forecasts lately were wrong by, half is forgotten after so long.
    error_half_life_s: float = 15.0
    # A break is foreseen this far ahead at most: a straight line says nothing of a street beyond.
    break_horizon_s: float = 8.0
    # Where no handover has been seen yet: below this an LTE or NR cell's edge begins (3GPP TS 38.133, reported range).
    weakest_rsrp_dbm: float = -112.0
    # Slower than this the signal does not fall, it wavers.
    falling_db_per_s: float = 0.5
    # A UE that was not heard of for so long has no forecast.
    stale_s: float = 5.0
    # And one of which nothing was heard for this long is forgotten with all that it taught.
    forget_after_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """How long silence is forgiven and how measurements are smoothed."""

    # Members report every second; three in a row must get lost before one counts as gone.
    report_timeout_s: float = 3.0
    # A report that was on its way when the failure was reported arrives within this; a later one proves life.
    failure_grace_s: float = 1.0
    # After a start of the platform the members of the recorded plan have this long to find it again: a report period
    # plus the longest reconnect back-off that is usual for gRPC within a site.
    unseen_grace_s: float = 10.0
    # A member that is gone this long is forgotten, so that names that come and go do not pile up.
    forget_after_s: float = 3600.0
    # Until a node has measured itself and no other node has either: one block of a small model on two cores.
    default_block_time_s: float = 0.001
    series: SeriesSettings = field(default_factory=SeriesSettings)
    mass_silence: MassSilenceSettings = field(default_factory=MassSilenceSettings)
    radio: RadioSettings = field(default_factory=RadioSettings)
