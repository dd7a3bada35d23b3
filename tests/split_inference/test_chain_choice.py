"""Which chain a request starts on."""

from __future__ import annotations

from collections import Counter

import pytest

from mec_apps.split_inference.gateway.chain_choice import ChainLoad, choose_chain


@pytest.mark.parametrize(
    ("loads", "chosen"),
    [
        ([], None),
        ([ChainLoad(3, 9, 0.0, usable=False)], 3),
        ([ChainLoad(0, 2, 0.01, usable=True), ChainLoad(1, 1, 0.01, usable=True)], 1),
        ([ChainLoad(0, 1, 0.01, usable=True), ChainLoad(1, 1, 0.01, usable=True)], 0),
        ([ChainLoad(0, 3, 0.01, usable=True), ChainLoad(1, 0, 0.05, usable=True)], 0),
        ([ChainLoad(0, 5, 0.01, usable=True), ChainLoad(1, 0, 0.05, usable=True)], 1),
        ([ChainLoad(0, 1, 0.01, usable=True), ChainLoad(1, 0, 0.0, usable=True)], 1),
        ([ChainLoad(0, 1, 0.0, usable=True), ChainLoad(1, 0, 0.0, usable=True)], 1),
        ([ChainLoad(0, 7, 0.01, usable=True), ChainLoad(1, 0, 0.01, usable=False)], 0),
    ],
    ids=[
        "none",
        "the only one, whatever its state",
        "fewer sessions",
        "the lower number of equals",
        "a fast one with some sessions before a slow one without",
        "a slow one without sessions before a fast one that is full",
        "one that made no token yet is tried",
        "by sessions where nothing is known",
        "never one whose nodes do not answer",
    ],
)
def test_a_request_starts_where_its_tokens_come_soonest(loads: list[ChainLoad], chosen: int | None) -> None:
    assert choose_chain(loads) == chosen


def test_sessions_are_shared_in_proportion_to_speed() -> None:
    sessions: Counter[int] = Counter()
    for _ in range(30):
        loads = [ChainLoad(chain, sessions[chain], token_s, usable=True) for chain, token_s in ((0, 0.01), (1, 0.02))]
        chosen = choose_chain(loads)
        assert chosen is not None
        sessions[chosen] += 1
    assert sessions == {0: 20, 1: 10}
