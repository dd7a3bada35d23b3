"""A registration may be repeated: the same key gives the same service, whatever happened in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.quotas import Quotas
from mec_platform.registry.errors import RegistrationKeyUsed
from mec_platform.registry.event_codec import decode_event
from mec_platform.registry.event_log import LogEntry, Record
from mec_platform.registry.idempotency import digest_of, is_key
from tests.registry.services import CAPABILITIES, GREETING, make_app, running_host


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_repeated_registration_gives_the_same_service_over_restarts_and_compaction(clock, tmp_path, compacted):
    async with running_host(clock, tmp_path / "log") as host:
        app_id = await make_app(host)
        first = await host.services.register_service(app_id, GREETING, "key-1")
        if compacted:
            await host.registry.compact()
    async with running_host(clock, tmp_path / "log") as host:
        revision = host.registry.state.revision
        assert await host.services.register_service(app_id, GREETING, "key-1") == first
        assert host.registry.state.revision == revision
        assert list(host.registry.state.services) == [first.service_id]


async def test_registrations_that_race_under_one_key_give_one_service(clock):
    async with running_host(clock, quotas=Quotas(services_per_app=1)) as host:
        app_id = await make_app(host)
        services = await asyncio.gather(*(host.services.register_service(app_id, GREETING, "key-1") for _ in range(20)))
        assert len({service.service_id for service in services}) == 1


async def test_a_used_key_with_another_description_is_refused_and_changes_nothing(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        first = await host.services.register_service(app_id, GREETING, "key-1")
        with pytest.raises(RegistrationKeyUsed, match="key-1"):
            await host.services.register_service(app_id, replace(GREETING, version="2.0"), "key-1")
        assert dict(host.registry.state.services) == {first.service_id: first}


async def test_an_update_leaves_the_key_and_a_repeated_registration_gives_what_it_made_of_the_service(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        first = await host.services.register_service(app_id, GREETING, "key-1")
        await host.services.update_service(app_id, first.service_id, replace(GREETING, version="2.0"))
        assert (await host.services.register_service(app_id, GREETING, "key-1")).version == "2.0"


async def test_keys_are_each_applications_own_and_free_again_once_the_service_is_gone(clock):
    async with running_host(clock) as host:
        app_id, other_id = await make_app(host), await make_app(host)
        first = await host.services.register_service(app_id, GREETING, "key-1")
        other = await host.services.register_service(other_id, GREETING, "key-1")
        await host.services.remove_service(app_id, first.service_id)
        again = await host.services.register_service(app_id, GREETING, "key-1")
        assert len({first.service_id, other.service_id, again.service_id}) == 3


async def test_without_a_key_every_registration_is_a_new_service(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        services = [await host.services.register_service(app_id, GREETING) for _ in range(2)]
        assert len({service.service_id for service in services}) == 2


async def test_what_an_update_does_not_say_stays_and_what_it_says_counts(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        service = await host.services.register_service(app_id, GREETING)
        silent = replace(GREETING, capabilities=None, evict_after_intervals=None, liveness_interval_s=None)
        after = await host.services.update_service(app_id, service.service_id, silent)
        assert after == service
        said = replace(silent, capabilities=Capabilities(), evict_after_intervals=0)
        after = await host.services.update_service(app_id, service.service_id, said)
        assert (after.capabilities, after.evict_after_intervals) == (Capabilities(), 0)


async def test_events_of_before_there_were_keys_stay_readable(clock):
    async with running_host(clock) as host:
        app_id = await make_app(host)
        service = await host.services.register_service(app_id, replace(GREETING, evict_after_intervals=None))
    written = msgspec.to_builtins({"service": service})
    for name in ("registration", "evict_after_intervals"):
        del written["service"][name]
    old = LogEntry(1, "registry", Record("service.registered", msgspec.json.encode(written)))
    assert decode_event(old).event.service == service


def test_the_digest_goes_by_what_is_said_and_not_by_how_labels_are_ordered():
    def labelled(labels):
        return digest_of(replace(GREETING, capabilities=replace(CAPABILITIES, labels=labels)))

    assert labelled({"a": "1", "b": "2"}) == labelled({"b": "2", "a": "1"})
    assert len({labelled({}), labelled({"a": "1"}), labelled({"a": "2"}), digest_of(GREETING)}) == 4
    intervals = [digest_of(replace(GREETING, liveness_interval_s=each)) for each in (None, 0, 1)]
    assert len(set(intervals)) == 3


@pytest.mark.parametrize(
    ("text", "fits"), [("k", True), ("", False), ("k" * 128, True), ("k" * 129, False), ("a\0b", False)]
)
def test_a_key_is_short_and_printable(text, fits):
    assert is_key(text) is fits
