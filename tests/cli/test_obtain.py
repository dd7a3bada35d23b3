"""Where a node's model comes from: the local store first, then the platform, then the compiler, or a clear word."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.build import CompiledModel
from mec_apps.cli import obtain
from mec_apps.cli.obtain import ModelRequest, obtain_model
from mec_apps.cli.requests import CliError
from mec_apps.split_inference.node.machine import read_machine
from mec_platform.content_store.store import ContentStore

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def store(tmp_path: Path, compiled_model_dirs: CompiledModel) -> ContentStore:
    """The default model for this machine, without its weights' bytes: nobody reads them here."""
    store = ContentStore(tmp_path)
    shutil.copytree(compiled_model_dirs.artefact_dir, tmp_path / "artefacts" / compiled_model_dirs.artefact_dir.name)
    package = tmp_path / "models" / compiled_model_dirs.package_dir.name
    shutil.copytree(compiled_model_dirs.package_dir, package, ignore=shutil.ignore_patterns("weights.bin"))
    with (package / "weights.bin").open("wb") as file:
        file.truncate((compiled_model_dirs.package_dir / "weights.bin").stat().st_size)
    return store


@pytest.fixture
def request_(store: ContentStore) -> ModelRequest:
    return ModelRequest(
        "edge-1", "smollm2", "int4", None, None, "auto", store.root, NOWHERE, 0.0, read_machine("edge-1")
    )


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [True, False])
def test_what_the_store_has_is_taken_with_and_without_a_compiler(
    request_: ModelRequest,
    store: ContentStore,
    compiled_model_dirs: CompiledModel,
    compiler: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(obtain, "has_compiler", lambda: compiler)
    found = obtain_model(request_)
    assert found.package == store.folder("models", compiled_model_dirs.package_dir.name)
    assert found.artefact == store.folder("artefacts", compiled_model_dirs.artefact_dir.name)
    gateway = obtain_model(replace(request_, machine=None))
    assert gateway.package == found.package


def test_without_platform_and_compiler_it_is_said_what_to_do(
    request_: ModelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "has_compiler", lambda: False)
    for source in ("auto", "platform"):
        with pytest.raises(CliError) as caught:
            obtain_model(replace(request_, model="nosuch", source=source))
        said = str(caught.value)
        assert "nosuch is not in" in said
        assert "the platform: " in said
        assert "mec compile" in said
        assert "mec-platform[compiler]" in said
        assert "\n" not in said


def test_package_and_artefact_go_together(request_: ModelRequest, tmp_path: Path) -> None:
    with pytest.raises(CliError, match="go together"):
        obtain_model(replace(request_, package=tmp_path))
