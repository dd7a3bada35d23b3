"""What is wrong after kills is counted, criteria are those of what was measured, and answers put together are read as such."""

from __future__ import annotations

import pytest

from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.grpc import wire
from mec_platform.rpc.v1 import registry_pb2 as pb
from tests.benchmarks.registry_crowd import Client, Watcher
from tests.benchmarks.registry_kills import judge
from tests.registry.histories import Seen

HAPPENED = [Seen(revision, ChangeType.ADDED, f"id-{revision}", "") for revision in (2, 3, 4)]
LISTED = {each.service_id: f"client-0-{each.revision}" for each in HAPPENED}


def watcher_that_saw(*seen: Seen, up_to: int = 4) -> Watcher:
    watcher = Watcher(1)
    watcher.histories[0].seen += seen
    watcher.histories[0].up_to = up_to
    return watcher


def client_with(*ids: str) -> Client:
    return Client("client-0", "app", {f"client-0-{number}": each for number, each in enumerate(ids)})


def test_who_has_seen_all_and_finds_all_has_nothing_to_complain_of() -> None:
    survived = judge([client_with("id-2", "id-4")], [watcher_that_saw(*HAPPENED)], [LISTED], HAPPENED, 4)
    assert (survived.acknowledged, survived.lost, survived.doubled, survived.relisted) == (2, 0, 0, 0)
    assert survived.complaints == []


def test_a_service_that_was_acknowledged_and_is_gone_is_lost_on_each_platform_that_lacks_it() -> None:
    survived = judge([client_with("id-2", "id-9")], [], [LISTED, LISTED], HAPPENED, 4)
    assert survived.lost == 2


def test_two_services_of_one_key_are_one_too_many() -> None:
    assert judge([], [], [LISTED | {"id-5": LISTED["id-2"]}], HAPPENED, 4).doubled == 1


@pytest.mark.parametrize(
    "seen",
    [HAPPENED[:2], [HAPPENED[1], HAPPENED[0], HAPPENED[2]], [*HAPPENED[:1], *HAPPENED]],
    ids=["missing", "out of order", "repeated"],
)
def test_a_history_that_is_not_what_happened_is_complained_of(seen: list[Seen]) -> None:
    assert judge([], [watcher_that_saw(*seen)], [LISTED], HAPPENED, 4).complaints


def test_a_watcher_that_stays_behind_is_complained_of() -> None:
    assert judge([], [watcher_that_saw(*HAPPENED[:1], up_to=2)], [LISTED], HAPPENED, 4).complaints


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 100_000])
def test_pieces_of_every_length_are_read_as_the_message_that_they_make(size: int) -> None:
    inner = pb.RegisterReply(service=pb.ServiceRecord(service_id="s" * size), revision=size)
    written = wire.nested(1, inner.service.SerializeToString()) + wire.unsigned(2, size)
    assert pb.RegisterReply.FromString(written) == inner
    assert pb.RankedService.FromString(wire.double(2)(0.25)) == pb.RankedService(score=0.25)
