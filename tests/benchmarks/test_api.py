"""Rates are compared turn by turn, and a load says what came of it, whichever client has put it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.benchmarks import api, http_load
from tests.benchmarks.http_load import Load, put_load
from tests.benchmarks.machine import BenchmarkError
from tests.benchmarks.offers import make_offer
from tests.benchmarks.served_platform import LimitServer
from tests.benchmarks.turns import compare


def loads(*rates: float) -> list[Load]:
    return [Load(per_s, 1.0, 2.0) for per_s in rates]


def test_ratios_are_medians_over_turns_in_which_both_had_the_same_machine() -> None:
    slow_and_fast_minutes = {
        "empty_get": loads(100.0, 1000.0, 100.0),
        "get": loads(60.0, 500.0, 50.0),
        "empty_list": loads(10.0),
        "list": loads(5.0),
        "empty_post": loads(10.0),
        "registrations": loads(2.0),
    }
    found = compare(slow_and_fast_minutes, api.LIMITS)
    assert found["get_of_empty_get"] == 0.5
    assert found["get_per_s"] == 60.0
    assert found["registrations_of_empty_post"] == 0.2


def test_anything_lost_misses_its_criterion() -> None:
    metrics = {
        "get_of_empty_get": 0.5,
        "list_p99_ms": 25.0,
        "registrations_of_empty_post": 0.4,
        "lost": 1,
        "notifications_lost": 0,
    }
    assert [each["ok"] for each in api.criteria(metrics)] == [True, True, False, False, True]


@pytest.fixture(scope="module")
def limit() -> Iterator[str]:
    with LimitServer() as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=["wrk", "own client"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "own client":
        monkeypatch.setattr(http_load, "wrk", lambda: None)
    elif http_load.wrk() is None:
        pytest.skip("wrk is not installed")


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_every_client_gets_and_posts_on_all_its_connections(limit: str) -> None:
    body = json.dumps(make_offer("one"))
    for load in (put_load(f"{limit}/bytes/70000", 4, 1), put_load(f"{limit}/nothing", 4, 1, body)):
        assert load.per_s > 0
        assert 0 < load.p50_ms <= load.p99_ms


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_a_load_that_is_refused_is_an_error_and_no_rate(limit: str) -> None:
    with pytest.raises(BenchmarkError, match="failed"):
        put_load(f"{limit}/elsewhere", 2, 1)
