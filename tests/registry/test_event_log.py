"""What every event log promises, asked of each adapter: order, compare-and-set, tails, durability, snapshots, history."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.registry.errors import Compacted, LogUnavailable, RevisionConflict
from mec_platform.registry.etcd.event_log import EtcdEventLog
from mec_platform.registry.event_log import AuditRecord, EventLog, LogEntry, LogSnapshot, Record
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.registry.etcd_cluster import EtcdCluster
from tests.registry.marks import needs_etcd

OpenLog: TypeAlias = Callable[[], Awaitable[EventLog]]

ADAPTERS = ["sqlite", pytest.param("etcd", marks=needs_etcd)]


@pytest.fixture(params=ADAPTERS)
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> OpenLog:
    """Opens a log, each time over the same storage, which is empty at first."""
    if request.param == "etcd":
        settings = request.getfixturevalue("etcd_settings")
        return lambda: EtcdEventLog.open(settings)
    return lambda: SqliteEventLog.open(tmp_path / "new folder" / "log.sqlite")


@pytest.fixture
async def log(open_log: OpenLog) -> AsyncIterator[EventLog]:
    log = await open_log()
    yield log
    await log.close()


def record(payload: bytes = b"", kind: str = "kind", subject: str = "", actor: str = "") -> Record:
    return Record(kind, payload, subject, actor, at_unix_ns=1_700_000_000_000_000_000)


async def test_reads_what_was_appended_to_one_stream_in_order(log: EventLog):
    two = [record(b"1", subject="model", actor="control plane"), record(b"2")]
    assert await log.append("plans", two) == 2
    await log.append("registry", [record(b"x")])
    assert await log.append("plans", [record(b"3")]) == 3
    assert await log.read("plans") == [
        LogEntry(1, "plans", two[0]),
        LogEntry(2, "plans", two[1]),
        LogEntry(3, "plans", record(b"3")),
    ]
    assert [entry.payload for entry in await log.read("plans", after_revision=1)] == [b"2", b"3"]
    assert await log.read("nothing here") == []


async def test_revisions_of_each_stream_have_no_gaps_over_concurrent_appends(log: EventLog):
    revisions = await asyncio.gather(*(log.append(f"stream-{n % 3}", [record()]) for n in range(600)))
    assert [revisions[start::3] for start in range(3)] == [list(range(1, 201))] * 3


async def test_any_text_and_any_bytes_come_back_as_they_were(log: EventLog):
    odd = Record("kind", bytes(range(256)), "sub'ject\x00\n\u20ac", 'ac"tor', 2**63 - 1)
    await log.append("registry", [odd])
    assert [entry.record for entry in await log.read("registry")] == [odd]


async def test_text_that_is_none_fails_its_writer_alone(log: EventLog):
    good, bad = await asyncio.gather(
        log.append("registry", [record()]),
        log.append("registry", [record(), record(subject="\ud800")]),
        return_exceptions=True,
    )
    assert good == 1
    assert isinstance(bad, UnicodeEncodeError)
    assert await log.append("registry", [record()]) == 2


async def test_only_one_of_several_writers_wins_a_revision(log: EventLog):
    base = await log.append("plans", [record(b"base")])
    results = await asyncio.gather(
        *(log.append("plans", [record(b"next")], expected_revision=base) for _ in range(5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [int] + [RevisionConflict] * 4
    assert len(await log.read("plans")) == 2


async def test_a_conflict_names_the_revision_to_continue_from(log: EventLog):
    last = await log.append("plans", [record()])
    with pytest.raises(RevisionConflict) as conflict:
        await log.append("plans", [record()], expected_revision=0)
    assert conflict.value.actual == last


async def test_other_streams_do_not_disturb_a_compare_and_set(log: EventLog):
    await log.append("registry", [record()])
    await log.append("plans", [record()], expected_revision=0)


async def test_a_tail_delivers_the_past_then_each_new_entry_once(log: EventLog):
    first = await log.append("plans", [record(b"1")])
    tail = log.tail("plans")
    assert (await anext(tail)).payload == b"1"
    waiting = asyncio.ensure_future(anext(tail))
    await log.append("registry", [record(b"not this one")])
    await log.append("plans", [record(b"2")])
    assert (await waiting).payload == b"2"
    await tail.aclose()
    resumed = log.tail("plans", after_revision=first)
    assert (await anext(resumed)).payload == b"2"
    await resumed.aclose()


async def test_a_waiting_tail_ends_when_the_log_is_closed(open_log: OpenLog):
    log = await open_log()
    waiting = asyncio.ensure_future(anext(log.tail("plans")))
    await log.read("plans")
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await waiting


async def test_a_log_keeps_its_entries_and_its_revisions_over_a_restart(open_log: OpenLog):
    log = await open_log()
    before = await log.append("plans", [record(b"kept")])
    await log.close()
    log = await open_log()
    assert [entry.payload for entry in await log.read("plans")] == [b"kept"]
    assert await log.append("plans", [record()], expected_revision=before) > before
    await log.close()


async def test_closing_waits_for_what_was_accepted_and_refuses_the_rest(open_log: OpenLog):
    log = await open_log()
    appends = [asyncio.ensure_future(log.append("plans", [record()])) for _ in range(20)]
    await log.read("plans")
    await log.close()
    assert len(await asyncio.gather(*appends)) == 20
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await log.append("plans", [record()])


async def test_two_logs_over_one_storage_share_revisions(open_log: OpenLog):
    one = await open_log()
    two = await open_log()
    revision = await one.append("plans", [record()], expected_revision=0)
    with pytest.raises(RevisionConflict):
        await two.append("plans", [record()], expected_revision=0)
    assert await two.append("plans", [record()], expected_revision=revision) > revision
    await one.close()
    await two.close()


async def test_a_snapshot_takes_the_place_of_what_it_sums_up(log: EventLog):
    await log.append("registry", [record(b"1"), record(b"2"), record(b"3")])
    await log.append("plans", [record(b"untouched")])
    assert await log.read_snapshot("registry") is None
    await log.compact("registry", LogSnapshot(2, b"1 and 2"))
    assert await log.read_snapshot("registry") == LogSnapshot(2, b"1 and 2")
    assert [entry.payload for entry in await log.read("registry", after_revision=2)] == [b"3"]
    assert [entry.payload for entry in await log.read("plans")] == [b"untouched"]
    with pytest.raises(Compacted) as compacted:
        await log.read("registry", after_revision=1)
    assert compacted.value.revision == 2


async def test_a_tail_of_what_was_compacted_says_so(log: EventLog):
    await log.append("registry", [record(b"1"), record(b"2")])
    await log.compact("registry", LogSnapshot(2, b""))
    with pytest.raises(Compacted):
        await anext(log.tail("registry"))


async def test_revisions_go_on_behind_a_snapshot_of_everything_also_after_a_restart(open_log: OpenLog):
    log = await open_log()
    await log.append("registry", [record(), record()])
    await log.compact("registry", LogSnapshot(2, b"both"))
    assert await log.append("registry", [record(b"3")], expected_revision=2) == 3
    await log.compact("registry", LogSnapshot(3, b"all"))
    await log.close()
    log = await open_log()
    with pytest.raises(RevisionConflict):
        await log.append("registry", [record()], expected_revision=0)
    assert await log.append("registry", [record()], expected_revision=3) == 4
    await log.close()


async def test_an_older_snapshot_than_the_newest_is_ignored(log: EventLog):
    await log.append("registry", [record(), record(), record()])
    await log.compact("registry", LogSnapshot(2, b"newer"))
    await log.compact("registry", LogSnapshot(1, b"older"))
    assert await log.read_snapshot("registry") == LogSnapshot(2, b"newer")


async def test_a_writer_who_missed_a_compaction_by_another_process_still_loses(open_log: OpenLog):
    one = await open_log()
    two = await open_log()
    await one.append("registry", [record()])
    await two.append("registry", [record(), record()])
    await two.compact("registry", LogSnapshot(3, b""))
    with pytest.raises(RevisionConflict) as conflict:
        await one.append("registry", [record()], expected_revision=1)
    assert conflict.value.actual == 3
    assert await one.append("registry", [record()]) == 4
    await one.close()
    await two.close()


async def test_the_history_tells_who_changed_what_newest_first_and_outlives_compaction(log: EventLog):
    for n in range(1, 6):
        await log.append("registry", [record(b"secret", f"kind.{n}", f"subject-{n}", f"actor-{n}")])
    await log.append("plans", [record()])
    before = await log.history("registry")
    assert before[0] == AuditRecord(5, "registry", "kind.5", "subject-5", "actor-5", 1_700_000_000_000_000_000)
    assert [each.revision for each in before] == [5, 4, 3, 2, 1]
    await log.compact("registry", LogSnapshot(3, b""))
    assert await log.history("registry") == before
    assert [each.revision for each in await log.history("registry", before_revision=5, limit=3)] == [4, 3, 2]


async def test_a_large_append_is_one_append(log: EventLog):
    records = [record(b"%d" % n, subject=f"subject-{n}") for n in range(1000)]
    assert await log.append("registry", records) == 1000
    assert [entry.record for entry in await log.read("registry")] == records


async def test_payloads_of_megabytes_are_one_append_and_one_snapshot(log: EventLog):
    large = [record(bytes([n]) * 700_000) for n in range(5)]
    async with aclosing(log.tail("registry")) as tail:
        assert await log.append("registry", large) == 5
        assert [(await anext(tail)).record for _ in large] == large
    assert [entry.record for entry in await log.read("registry", after_revision=3)] == large[3:]
    await log.compact("registry", LogSnapshot(4, b"s" * 3_000_000))
    assert await log.read_snapshot("registry") == LogSnapshot(4, b"s" * 3_000_000)
    assert [entry.record for entry in await log.read("registry", after_revision=4)] == large[4:]
    await log.compact("registry", LogSnapshot(5, b""))
    assert [each.revision for each in await log.history("registry")] == [5, 4, 3, 2, 1]


async def test_no_records_are_no_entry(log: EventLog):
    assert await log.append("registry", []) == 0
    await log.append("registry", [record()])
    assert await log.append("registry", [], expected_revision=1) == 1
    assert len(await log.read("registry")) == 1


async def test_a_stream_may_have_any_name(log: EventLog):
    names = ["a", "a/b", "a%2Fb", "\u20ac", ""]
    for name in names:
        await log.append(name, [record(name.encode())])
    assert [[entry.payload for entry in await log.read(name)] for name in names] == [[name.encode()] for name in names]


async def test_the_history_pages_over_batches_of_any_size_and_over_the_edge_of_what_was_compacted(log: EventLog):
    for size in (1, 7, 1, 1, 30, 2):
        await log.append("registry", [record() for _ in range(size)])
    await log.compact("registry", LogSnapshot(12, b""))
    pages: list[list[int]] = []
    before = None
    while page := await log.history("registry", before, limit=5):
        pages.append([each.revision for each in page])
        before = page[-1].revision
    assert [revision for page in pages for revision in page] == list(range(42, 0, -1))
    assert {len(page) for page in pages[:-1]} == {5}
    assert await log.history("nothing here") == []


async def test_a_shared_log_is_followed_over_appends_of_others(open_log: OpenLog):
    one, two = await open_log(), await open_log()
    if one.is_shared:
        async with aclosing(one.tail("registry")) as tail:
            for number in range(20):
                await two.append("registry", [record(b"%d" % number)] * 3)
            assert [(await anext(tail)).revision for _ in range(60)] == list(range(1, 61))
    assert one.is_reachable
    await one.close()
    await two.close()


@dataclass(frozen=True, slots=True)
class Attempt:
    """An append by one of two writers; `behind` is by how much what it expects is older than the log, None for nothing."""

    writer: int
    size: int
    behind: int | None


ROUNDS = st.lists(
    st.lists(
        st.builds(Attempt, st.integers(0, 1), st.integers(1, 3), st.sampled_from([None, 0, 0, 1, 2])),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_whatever_writers_do_at_once_the_log_is_what_those_who_won_appended(
    adapter: str, request: pytest.FixtureRequest
):
    cluster: EtcdCluster | None = request.getfixturevalue("etcd") if adapter == "etcd" else None
    prefixes = (f"property/{number}" for number in itertools.count())

    @settings(max_examples=25, derandomize=True, database=None)
    @given(rounds=ROUNDS)
    def check(rounds: Sequence[Sequence[Attempt]]) -> None:
        with tempfile.TemporaryDirectory() as folder:

            async def open_log() -> EventLog:
                if cluster is not None:
                    return await EtcdEventLog.open(cluster.settings(prefix, deadline_s=20.0))
                return await SqliteEventLog.open(Path(folder) / "log.sqlite")

            prefix = next(prefixes)
            asyncio.run(play(open_log, rounds))

    check()


async def play(open_log: OpenLog, rounds: Sequence[Sequence[Attempt]]) -> None:
    """Attempts of a round run at once; the model is the list of payloads."""
    logs = [await open_log(), await open_log()]
    model: list[bytes] = []
    numbers = itertools.count()
    for attempts in rounds:
        payloads = [[b"%d" % next(numbers) for _ in range(each.size)] for each in attempts]
        expected = [None if each.behind is None else max(len(model) - each.behind, 0) for each in attempts]
        outcomes = await asyncio.gather(
            *(
                logs[attempt.writer].append("registry", [record(each) for each in mine], expecting)
                for attempt, mine, expecting in zip(attempts, payloads, expected, strict=True)
            ),
            return_exceptions=True,
        )
        won: list[tuple[int, int]] = []
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, RevisionConflict):
                assert expected[number] not in (None, outcome.actual)
            else:
                assert isinstance(outcome, int)
                won.append((outcome, number))
        for revision, number in sorted(won):
            assert expected[number] in (None, len(model))
            model += payloads[number]
            assert revision == len(model)
    for log in logs:
        assert [entry.payload for entry in await log.read("registry")] == model
        await log.close()
