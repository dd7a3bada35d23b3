"""Members behind one UE share its radio link."""

from __future__ import annotations

from mec_platform.control_plane.monitoring.shared_radio import share_radio_links
from mec_platform.domain.capacity import LinkCapacity

BEHIND = {"dashboard": "vehicle", "on-board": "vehicle", "other": "bus"}


def link(source: str, target: str, mbyte_per_s: float, trip_ms: float) -> LinkCapacity:
    return LinkCapacity(source, target, mbyte_per_s * 1e6, trip_ms / 1e3)


def test_what_one_member_sees_of_the_radio_link_holds_for_all_behind_it() -> None:
    seen = (link("dashboard", "mec", 5, 300), link("on-board", "mec", 4, 20), link("mec", "on-board", 9, 25))
    dashboard, on_board, down = share_radio_links(seen, BEHIND)
    assert [each.round_trip_s for each in (dashboard, on_board, down)] == [0.3, 0.3, 0.3]
    assert dashboard.bytes_per_s == on_board.bytes_per_s == 4e6
    assert down.bytes_per_s == 9e6


def test_other_places_other_radio_links_and_ways_without_one_stay_as_they_are() -> None:
    seen = (
        link("dashboard", "mec", 5, 300),
        link("dashboard", "cloud", 5, 40),
        link("other", "mec", 5, 15),
        link("dashboard", "on-board", 100, 0.3),
        link("dashboard", "other", 5, 500),
        link("mec", "cloud", 100, 9),
    )
    assert all(a == b for a, b in zip(share_radio_links(seen, BEHIND), seen, strict=True))
