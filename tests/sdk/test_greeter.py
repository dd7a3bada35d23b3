"""The example application does what its documentation says."""

from __future__ import annotations

from click.testing import CliRunner

from mec_apps.examples.greeter import SERVICE, greet_others, main, serve_greeting
from mec_apps.sdk import MecApplication


async def test_the_second_greeter_is_greeted_by_the_first(platform):
    async with (
        serve_greeting("alice") as alice_uri,
        serve_greeting("bob") as bob_uri,
        MecApplication(platform.url, name="alice") as alice,
        MecApplication(platform.url, name="bob") as bob,
    ):
        await alice.offer_service(SERVICE, alice_uri, version="1.0")
        own = await bob.offer_service(SERVICE, bob_uri, version="1.0")
        assert await greet_others(bob, own) == ["hello from alice"]


def test_says_what_to_do_when_there_is_no_platform():
    result = CliRunner().invoke(main, ["--platform", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "mec serve" in result.output
    assert "Traceback" not in result.output
