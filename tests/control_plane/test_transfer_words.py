"""What a reconfiguration says of how its sessions came over."""

from __future__ import annotations

from mec_platform.control_plane.broadcast.outcome import describe_transfer
from mec_platform.control_plane.broadcast.protocol import SessionSwitched


def switched(mode: str, pause_ms: float, *, tail: int = 0, rounds: int = 0) -> SessionSwitched:
    return SessionSwitched(1, mode, pause_ms, 0, 0, 0, tail_positions=tail, held_ms=0.25, rounds=rounds)


def test_says_what_was_chosen_and_why_where_no_session_had_to_come() -> None:
    assert describe_transfer("stop_and_copy", "it is little", ()) == (
        "stop-and-copy chosen: it is little. No session had to come over"
    )


def test_counts_the_ways_and_tells_of_the_longest_pause() -> None:
    sessions = [switched("pre_copy", 1.0, tail=1, rounds=2), switched("pre_copy", 4.0, tail=3, rounds=5)]
    assert describe_transfer("pre_copy", "so", sessions) == (
        "pre-copy chosen: so. Sessions: 2 by pre-copy; longest pause 4.0 ms, of it 0.2 ms held, after 5 copies ahead; "
        "its last 3 positions were computed again with the first frame"
    )


def test_sessions_that_came_over_otherwise_than_chosen_are_told_apart() -> None:
    told = describe_transfer("pre_copy", "so", [switched("replay", 900.0), switched("none", 0.0)])
    assert "Sessions: 1 by replay, 1 without KV to move; longest pause 900.0 ms" in told
