"""What is particular to the event log in etcd: lost answers, broken connections, members that refuse, access.

`test_event_log` has what every log promises.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from click.testing import CliRunner

from mec_apps.cli.main import cli
from mec_platform.registry.errors import Compacted, LogUnavailable, RevisionConflict
from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone
from mec_platform.registry.etcd.event_log import LARGEST_APPEND, EtcdEventLog
from mec_platform.registry.etcd.layout import Keys
from mec_platform.registry.etcd.reading import LogReader
from mec_platform.registry.etcd.settings import EtcdAddressError, EtcdSettings, EtcdTls, parse_etcd_address
from mec_platform.registry.event_log import LogSnapshot
from mec_platform.rpc.etcd import etcd_pb2 as pb
from tests.registry.etcd_cluster import EtcdCluster, running_cluster
from tests.registry.lossy_proxy import lossy_proxy
from tests.registry.marks import needs_etcd
from tests.registry.test_event_log import record

pytestmark = needs_etcd


async def test_an_append_whose_answer_was_lost_is_there_once(
    etcd_settings: EtcdSettings, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    async with lossy_proxy(etcd_settings.endpoints[0]) as proxy:
        endpoints = (proxy.address, *etcd_settings.endpoints)
        log = await EtcdEventLog.open(replace(etcd_settings, endpoints=endpoints))
        assert await log.append("registry", [record(b"1")]) == 1
        proxy.loses_answers = True
        assert await log.append("registry", [record(b"2")], expected_revision=1) == 2
        assert [entry.payload for entry in await log.read("registry")] == [b"1", b"2"]
        assert "acknowledged at the second attempt" in caplog.text
        await log.close()


async def test_an_append_whose_answer_never_comes_may_be_there_and_is_not_repeated_unseen(etcd_settings: EtcdSettings):
    direct = await EtcdEventLog.open(etcd_settings)
    async with lossy_proxy(etcd_settings.endpoints[0]) as proxy:
        log = await EtcdEventLog.open(replace(etcd_settings, endpoints=(proxy.address,), deadline_s=1.0))
        await log.append("registry", [record(b"1")])
        proxy.loses_answers = True
        with pytest.raises(LogUnavailable, match="more than half of its members"):
            await log.append("registry", [record(b"2")], expected_revision=1)
        assert not log.is_reachable
        await proxy.cut()
        proxy.loses_answers = False
        await proxy.start()
        assert [entry.payload for entry in await direct.read("registry")] == [b"1", b"2"]
        with pytest.raises(RevisionConflict):
            await log.append("registry", [record(b"2")], expected_revision=1)
        assert await log.append("registry", [record(b"3")]) == 3
        assert log.is_reachable
        await log.close()
    await direct.close()


async def test_a_lost_answer_is_understood_after_the_batch_was_compacted_too(etcd_settings: EtcdSettings):
    log = await EtcdEventLog.open(etcd_settings)
    await log.append("registry", [record(b"1")])
    (kv,) = (await log.client.range(pb.RangeRequest(key=log.keys.batch("registry", 1)))).kvs
    append_id = layout.decode_batch(kv.value).append_id
    await log.compact("registry", LogSnapshot(1, b""))
    assert not (await log.client.range(pb.RangeRequest(key=kv.key))).kvs
    (audit,) = (await log.client.range(pb.RangeRequest(key=log.keys.audit("registry", 1)))).kvs
    assert layout.decode_batch(audit.value).append_id == append_id
    await log.close()


async def test_a_tail_goes_on_over_a_broken_connection_without_a_gap_or_a_repetition(etcd_settings: EtcdSettings):
    direct = await EtcdEventLog.open(etcd_settings)
    async with lossy_proxy(etcd_settings.endpoints[0]) as proxy:
        log = await EtcdEventLog.open(replace(etcd_settings, endpoints=(proxy.address,)))
        async with aclosing(log.tail("registry")) as tail:
            for number in range(5):
                await direct.append("registry", [record(b"%d" % number)] * 2)
                assert [(await anext(tail)).revision for _ in range(2)] == [2 * number + 1, 2 * number + 2]
                await proxy.cut()
                await proxy.start()
        await log.close()
    await direct.close()


async def test_a_tail_whose_store_stays_away_says_so_and_can_be_resumed(etcd_settings: EtcdSettings):
    direct = await EtcdEventLog.open(etcd_settings)
    async with lossy_proxy(etcd_settings.endpoints[0]) as proxy:
        log = await EtcdEventLog.open(replace(etcd_settings, endpoints=(proxy.address,), deadline_s=1.0))
        await direct.append("registry", [record()])
        tail = log.tail("registry")
        assert (await anext(tail)).revision == 1
        await proxy.cut()
        with pytest.raises(LogUnavailable, match="did not answer within 1 s"):
            await anext(tail)
        await direct.append("registry", [record()])
        await proxy.start()
        async with aclosing(log.tail("registry", 1)) as tail:
            assert (await anext(tail)).revision == 2
        await log.close()
    await direct.close()


async def compact_etcd(settings: EtcdSettings, revision: int) -> None:
    """etcd's own compaction: it forgets how things were before a revision."""
    async with grpc.aio.insecure_channel(settings.endpoints[0]) as channel:
        # A CompactionRequest is a number in field 1, as this one.
        call = channel.unary_unary("/etcdserverpb.KV/Compact", pb.LeaseRevokeRequest.SerializeToString)
        await call(pb.LeaseRevokeRequest(ID=revision))


async def test_what_etcd_compacts_itself_is_read_anew_and_nothing_is_lost(etcd_settings: EtcdSettings):
    log = await EtcdEventLog.open(etcd_settings)
    reader = LogReader(log.client, log.keys)
    for _ in range(3):
        await log.append("registry", [record(b"x" * 3_000_000)])
    _, early = await reader.entries("registry", 3)
    async with aclosing(log.tail("registry")) as tail:
        assert (await anext(tail)).revision == 1
        await log.append("registry", [record()])
        _, late = await reader.entries("registry", 4)
        await compact_etcd(etcd_settings, late)
        with pytest.raises(HistoryGone):
            async for _ in reader.pages(log.keys.up_to("batch", "registry", 4), early):
                pass
        with pytest.raises(HistoryGone):
            async for _ in log.client.watch(pb.WatchCreateRequest(key=log.keys.head("registry"), start_revision=early)):
                pass
        assert [(await anext(tail)).revision for _ in range(3)] == [2, 3, 4]
    assert len(await log.read("registry")) == 4
    await log.close()


async def test_a_compaction_that_broke_off_is_finished_by_the_next(etcd_settings: EtcdSettings):
    log = await EtcdEventLog.open(etcd_settings)
    for number in range(200):
        await log.append("registry", [record(b"%d" % number)])
    # A compaction that has told which snapshot counts, and no more.
    kept = [
        *(log.keys.part("snapshot-part", "registry", 150, b"id", 0), b"150"),
        *(log.keys.snapshot("registry"), layout.encode(layout.SnapshotPointer(150, b"id", 1))),
    ]
    await log.client.txn([layout.put(*kept[:2]), layout.put(*kept[2:])])
    assert await log.read_snapshot("registry") == LogSnapshot(150, b"150")
    with pytest.raises(Compacted):
        await log.read("registry", 149)
    before = await log.history("registry", limit=200)
    await log.compact("registry", LogSnapshot(180, b"180"))
    assert await log.history("registry", limit=200) == before
    left = await log.client.range(
        pb.RangeRequest(**dict(zip(("key", "range_end"), log.keys.up_to("batch", "registry", 180), strict=True)))
    )
    assert not left.kvs
    assert [each.revision for each in await log.read("registry", 180)] == list(range(181, 201))
    await log.close()


async def test_refuses_a_layout_of_a_newer_version_and_one_that_is_being_imported(etcd_settings: EtcdSettings):
    client, keys = EtcdClient(etcd_settings), Keys(etcd_settings.prefix)
    for found, message in ((b"99", "layout 99"), (layout.BEING_IMPORTED, "mec store migrate")):
        await client.txn([layout.put(keys.format(), found)])
        with pytest.raises(LogUnavailable, match=message):
            await EtcdEventLog.open(etcd_settings)
    await client.close()


async def test_more_records_than_the_history_could_keep_are_refused_at_once(etcd_settings: EtcdSettings):
    log = await EtcdEventLog.open(etcd_settings)
    with pytest.raises(ValueError, match="too many"):
        await log.append("registry", [record()] * (LARGEST_APPEND + 1))
    await log.close()


async def test_nobody_there_is_said_within_the_deadline_and_what_to_do(etcd_settings: EtcdSettings):
    nowhere = EtcdSettings(("127.0.0.1:9", "127.0.0.1:10"), deadline_s=0.5)
    with pytest.raises(LogUnavailable, match=r"etcd://127.0.0.1:9,127.0.0.1:10/mec did not answer within 0.5 s"):
        await EtcdEventLog.open(nowhere)


async def test_speaks_tls_and_shows_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["init"], ["issue", "member", "--host", "127.0.0.1"], ["issue", "me", "--client"]):
        made = CliRunner().invoke(cli, ["certs", *arguments], catch_exceptions=False)
        assert made.exit_code == 0, made.output
    folder = tmp_path / "mec-certs"
    options = [
        *("--cert-file", str(folder / "member.crt"), "--key-file", str(folder / "member.key")),
        *("--trusted-ca-file", str(folder / "ca.crt"), "--client-cert-auth"),
    ]
    with running_cluster(tmp_path, options=options, scheme="https") as cluster:
        tls = EtcdTls(folder / "ca.crt", folder / "me.crt", folder / "me.key")
        log = await EtcdEventLog.open(replace(cluster.settings(deadline_s=20.0), tls=tls))
        assert await log.append("registry", [record()]) == 1
        await log.close()
        with pytest.raises(LogUnavailable):
            await EtcdEventLog.open(replace(cluster.settings(deadline_s=0.5), tls=EtcdTls(folder / "ca.crt")))


async def ask_auth(cluster: EtcdCluster, method: str, first: str = "", second: str = "") -> None:
    """etcd's administration of users: all these requests are one or two texts."""
    async with grpc.aio.insecure_channel(cluster.endpoints[0]) as channel:
        call = channel.unary_unary(f"/etcdserverpb.Auth/{method}", pb.AuthenticateRequest.SerializeToString)
        await call(pb.AuthenticateRequest(name=first, password=second), wait_for_ready=True)


async def test_signs_in_and_says_what_is_missing_where_it_cannot(tmp_path: Path):
    # The cluster's tokens last a second: they have to be asked for again.
    with running_cluster(tmp_path, options=["--auth-token-ttl", "1"]) as cluster:
        for method, *texts in (
            ("UserAdd", "root", "secret"),
            ("UserGrantRole", "root", "root"),
            ("UserAdd", "guest", "guest"),
            ("AuthEnable",),
        ):
            await ask_auth(cluster, method, *texts)
        settings = cluster.settings()
        log = await EtcdEventLog.open(replace(settings, user="root", password="secret"))
        assert await log.append("registry", [record()]) == 1
        cluster.kill(0)
        cluster.start(0)  # It knows none of the tokens that it gave.
        again = EtcdClient(replace(settings, user="root", password="secret", deadline_s=20.0))
        await again.range(pb.RangeRequest(key=b"up again"))
        await again.close()
        assert await log.append("registry", [record()]) == 2
        await log.close()
        for user, password, message in (
            ("", "", "--etcd-user"),
            ("root", "wrong", "check --etcd-user"),
            ("guest", "guest", "grant the user"),
        ):
            with pytest.raises(LogUnavailable, match=message):
                await EtcdEventLog.open(replace(settings, user=user, password=password))


def test_an_address_names_members_and_a_prefix():
    settings = parse_etcd_address("etcd://10.0.0.1,[::1]:2380,etcd.example:1/hosts/one/")
    assert settings == EtcdSettings(("10.0.0.1:2379", "[::1]:2380", "etcd.example:1"), "hosts/one")
    assert str(settings) == "etcd://10.0.0.1:2379,[::1]:2380,etcd.example:1/hosts/one"
    assert parse_etcd_address("etcd://a").prefix == "mec"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("etcd://", "no address"),
        ("etcd:///mec", "no address"),
        ("etcd://a:0", "HOST:PORT"),
        ("etcd://a:99999", "HOST:PORT"),
        ("etcd://a,,b", "HOST:PORT"),
        ("etcd://user:secret@a", "--etcd-user"),
        ("etcd://a/with space", "prefix"),
        ("etcd://a/b//c", "prefix"),
    ],
)
def test_an_address_that_is_none_says_what_one_looks_like(address: str, message: str):
    with pytest.raises(EtcdAddressError, match=message):
        parse_etcd_address(address)
