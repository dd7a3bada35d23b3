"""The soak's own parts: what it draws from a seed, and that its checks see what they are for."""

from __future__ import annotations

import os
import socket
from itertools import pairwise
from random import Random

import pytest

from tests.integration.soak.disturbances import (
    BLOCKS,
    MOST_BLOCKS,
    PLATFORM,
    AddChain,
    Hang,
    Kill,
    Layout,
    ReSplit,
    Step,
    draw_step,
)
from tests.integration.soak.growth import MIB, Sample, check_growth
from tests.integration.soak.processes import break_connections
from tests.integration.soak.visits import QUESTIONS, Manner, Reference, check_text, check_tokens, draw_visit
from tests.integration.soak.watch import bad_lines

NODES = ("a", "b", "c", "d", "e")
ANSWER = Reference((5, 6, 7, 8), "an edge node")


def steps(seed: int, count: int = 400, spared: frozenset[str] = frozenset()) -> list[Step]:
    random = Random(seed)
    return [draw_step(random, NODES, spared) for _ in range(count)]


def test_a_seed_plays_the_same_steps_again_and_another_one_others() -> None:
    assert steps(3) == steps(3)
    assert steps(3) != steps(4)


def test_every_kind_of_order_and_blow_is_drawn_alone_and_in_the_middle_of_an_order() -> None:
    drawn = steps(1)
    orders = {type(step.order).__name__ for step in drawn}
    assert orders == {"ReSplit", "AddChain", "DropChain", "NoneType"}
    blows = {"Kill", "Hang", "Disconnect", "Fade", "Starve", "Abort"}
    assert {type(step.blow).__name__ for step in drawn if step.order is None} == blows
    assert {type(step.blow).__name__ for step in drawn if step.order is not None} == {*blows, "NoneType"}
    assert {len(step.blow.names) for step in drawn if isinstance(step.blow, Kill)} == {1, 2}


def test_what_is_spared_is_struck_but_not_killed() -> None:
    drawn = steps(2, spared=frozenset({"a", PLATFORM}))
    killed = {name for step in drawn if isinstance(step.blow, Kill) for name in step.blow.names}
    assert killed == {"b", "c", "d", "e"}
    assert "a" in {step.blow.name for step in drawn if isinstance(step.blow, Hang)}


def test_layouts_cover_the_model_on_free_nodes_that_have_room() -> None:
    for step in steps(5):
        if not isinstance(step.order, ReSplit | AddChain):
            continue
        stages = step.order.layout.stages({"a", "c", "d"})
        assert {node for node, _, _ in stages} <= {"a", "c", "d"}
        assert (stages[0][1], stages[-1][2]) == (0, BLOCKS)
        assert all(before[2] == after[1] for before, after in pairwise(stages))
        if len(stages) == 2:
            assert all(stop - start <= MOST_BLOCKS for _, start, stop in stages)
    assert Layout(("a", "b"), (15,)).stages({"b"}) == []


def test_visits_are_drawn_in_every_manner_and_of_every_question() -> None:
    random = Random(1)
    visits = [draw_visit(random) for _ in range(300)]
    assert {visit.manner for visit in visits} == set(Manner)
    assert {visit.question for visit in visits} == set(range(len(QUESTIONS)))
    assert all(1 <= visit.after_tokens < QUESTIONS[visit.question].max_tokens for visit in visits)


@pytest.mark.parametrize(
    ("tokens", "ended", "reason"),
    [
        ([5, 6, 7, 8], True, None),
        ([5, 6], False, None),
        ([5, 6, 7], True, "token 3 is missing, not 8"),  # the last one lost
        ([5, 7, 8], False, "token 1 is 7, not 6"),  # one in the middle lost
        ([5, 5, 6], False, "token 1 is 5, not 6"),  # repeated
        ([5, 6, 7, 8, 8], True, "token 4 is 8, not any"),
        ([5, 6, 7, 8, 9], False, "token 4 is 9, not any"),
    ],
)
def test_a_lost_repeated_or_other_token_is_seen(tokens: list[int], ended: bool, reason: str | None) -> None:
    found = check_tokens(tokens, ANSWER, ended=ended)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("text", "right"), [("", True), ("an edge", True), ("an  edge", False), ("an edge node!", False)]
)
def test_text_is_the_beginning_of_the_answer_s(text: str, right: bool) -> None:
    assert (check_text(text, ANSWER) is None) is right


def samples(anonymous_mib: list[float], descriptors: list[int]) -> list[Sample]:
    held = zip(anonymous_mib, descriptors, strict=True)
    return [Sample(30.0 * at, int(mib * MIB), count, 20, 15) for at, (mib, count) in enumerate(held)]


def test_a_process_that_settles_has_not_grown_and_one_that_goes_on_has() -> None:
    steady, noisy = [20] * 12, [20, 24, 19, 22, 20, 25, 19, 23, 20, 22, 19, 24]
    settled = [100.0, 120, 130, 131, 131, 132, 131, 160, 132, 133, 132, 133]  # with one sample out of line
    assert list(check_growth("x", samples(settled, noisy))) == []
    leaking = [100.0 + 3 * at for at in range(12)]
    (line,) = check_growth("x", samples(leaking, steady))
    assert line.startswith("x: anonymous_bytes has grown by 15728640 in 2.5 minutes")
    assert list(check_growth("x", samples(leaking, steady), kv_bytes=8 * MIB)) == []
    (line,) = check_growth("x", samples(settled, [20 + 2 * at for at in range(12)]))
    assert line.startswith("x: descriptors has grown by 10 in 2.5 minutes")


def test_a_process_that_was_seldom_seen_is_not_judged() -> None:
    assert list(check_growth("x", samples([1.0, 50, 100, 150, 200], [1, 9, 99, 999, 9999]))) == []


def test_errors_and_tracebacks_are_seen_in_a_log() -> None:
    log = """2026-01-01 00:00:00,001 WARNING mec.gateway: session lost its stages (ERROR in the reason)
2026-01-01 00:00:00,002 ERROR asyncio: Task was destroyed but it is pending!
Traceback (most recent call last):
  File "x.py", line 1, in <module>
<sys>:0: RuntimeWarning: coroutine 'x' was never awaited
"""
    assert [line.split(":")[0] for line in bad_lines(log)] == [
        "2026-01-01 00",
        "Traceback (most recent call last)",
        "<sys>",
    ]


def test_only_connections_to_the_named_ports_are_broken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port = one.getsockname()[1]
        with (
            socket.create_connection(one.getsockname()) as to_one,
            one.accept()[0] as at_one,
            socket.create_connection(other.getsockname()) as to_other,
            other.accept()[0] as at_other,
        ):
            assert break_connections(os.getpid(), frozenset({port})) == 1
            assert at_one.recv(1) == b""
            assert to_one.recv(1) == b""
            to_other.sendall(b"x")
            assert at_other.recv(1) == b"x"
