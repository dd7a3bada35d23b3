"""Application instances from a file: made once, with credentials that their deployer may choose."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from mec_platform.app_seeds import SeedError, plant_seeds, read_seeds
from mec_platform.credential_files import CredentialFileError
from mec_platform.enablement_api.life_cycle.instantiation import Instantiation

EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "apps.toml"


@pytest.fixture
def plant(host, tmp_path):
    """Plants this text as a file of seeds."""

    async def plant(text: str) -> None:
        path = tmp_path / "apps.toml"
        path.write_text(text)
        await plant_seeds(path, host, Instantiation(host.applications, host.credentials))

    return plant


async def test_the_shipped_example_makes_instances_with_rules_and_credentials(host, plant, tmp_path):
    await plant(EXAMPLE.read_text())
    faces, greeter = host.applications.all()
    assert (faces.app_instance_id, len(faces.dns_rules), len(faces.traffic_rules)) == ("faces-1", 1, 1)
    assert (greeter.name, greeter.owner) == ("greeter", "greeter-1")
    file = tmp_path / "faces-1.credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    credentials = json.loads(file.read_text())
    assert host.credentials.find("faces-1", credentials["client_secret"]) is not None


async def test_the_same_file_at_every_start_changes_nothing(host, plant):
    await plant(EXAMPLE.read_text())
    revision = host.registry.state.revision
    await plant(EXAMPLE.read_text())
    assert host.registry.state.revision == revision


async def test_credentials_that_are_there_are_taken_over_and_may_be_shared(host, plant, tmp_path):
    file = tmp_path / "team.json"
    file.write_text(json.dumps({"client_id": "team", "client_secret": "s" * 32}))
    file.chmod(0o600)
    seed = '[[apps]]\nappInstanceId = "{}"\nappName = "x"\ncredentialsFile = "team.json"\n'
    await plant(seed.format("a") + seed.format("b"))
    assert [app.owner for app in host.applications.all()] == ["team", "team"]
    assert host.credentials.find("team", "s" * 32) is not None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("apps = 3", "apps"),
        ("[[apps]", "no TOML file"),
        ('[[apps]]\nappName = "x"', "appInstanceId"),
        ('[[apps]]\nappInstanceId = "a"', "appName"),
        ('[[apps]]\nappInstanceId = "a"\nappName = "x"\ncredentialFile = "y"', "credentialFile"),
        ('[[apps]]\nappInstanceId = "a"\nappName = "x"\nclientId = "y"\ncredentialsFile = "z"', "credentialsFile"),
        ('[[apps]]\nappInstanceId = "a"\nappName = "x"\n' * 2, "given twice"),
        ('[[app]]\nappInstanceId = "a"', "app"),
    ],
)
async def test_refuses_a_file_that_makes_no_instances_and_names_file_and_entry(host, plant, text, named):
    with pytest.raises(SeedError) as raised:
        await plant(text)
    assert named in str(raised.value)
    assert "apps.toml" in str(raised.value)
    assert host.applications.all() == []


async def test_refuses_what_the_registry_refuses_and_names_the_entry(plant):
    with pytest.raises(SeedError, match="a: clientId"):
        await plant('[[apps]]\nappInstanceId = "a"\nappName = "x"\nclientId = "nobody"')


async def test_refuses_a_missing_file_and_credentials_that_others_can_read(plant, tmp_path):
    with pytest.raises(SeedError, match="cannot read"):
        read_seeds(tmp_path / "none.toml")
    (tmp_path / "a.json").write_text(json.dumps({"client_id": "a", "client_secret": "short"}))
    (tmp_path / "a.json").chmod(0o600)
    with pytest.raises(CredentialFileError, match="shorter"):
        await plant('[[apps]]\nappInstanceId = "a"\nappName = "x"\ncredentialsFile = "a.json"')
