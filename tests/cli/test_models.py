"""`mec models`: what lies in the store is listed, verified, imported under a name, and removed unless it is in use."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compiler import build
from compiler.build import CompiledModel, compile_model, compile_targets, ensure_model_package
from compiler.errors import BuildError
from mec_apps.cli.models import models
from mec_platform.content_store.partial_weights import PartialWeights, create_partial_weights
from mec_platform.content_store.store import ContentStore
from mec_platform.content_store.weights import weight_parts
from tests.compiler.conftest import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContentStore:
    monkeypatch.setenv("MEC_CACHE", str(tmp_path))
    return ContentStore()


@pytest.fixture
def package(store: ContentStore, tiny: Path) -> Path:
    return ensure_model_package(str(tiny), "int4", store, lambda *step: None)[0]


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(models, arguments, input=answer)


def run_json(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_packages_are_listed_with_size_and_last_use(package: Path) -> None:
    (listed,) = run_json("list")
    assert (listed["name"], listed["quantisation"], listed["blocks"]) == ("tiny", "int4", 4)
    assert listed["bytes_on_disk"] > listed["weights_bytes"] > 0
    assert (listed["package"], listed["in_use"], listed["artefacts"]) == (str(package), False, [])
    assert run_json() == [listed]


def test_an_artefact_is_listed_with_every_package_that_it_can_run(
    store: ContentStore, package: Path, compiled_model_dirs: CompiledModel
) -> None:
    manifest = json.loads((compiled_model_dirs.artefact_dir / "manifest.json").read_text())
    folder = shutil.copytree(compiled_model_dirs.artefact_dir, store.folder("artefacts", "k1"))
    interface = json.loads((package / "manifest.json").read_text())["interface"]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"interface": interface, "target": "toaster"}))
    (listed,) = run_json("list")
    assert [artefact["target"] for artefact in listed["artefacts"]] == ["toaster"]
    assert "toaster" in run("list").stdout


def test_of_earlier_builds_only_their_count_is_listed(store: ContentStore, package: Path) -> None:
    earlier = shutil.copytree(package, store.folder("models", "earlier"))
    long_ago = package.stat().st_mtime - 86_400
    for path in (earlier, *earlier.iterdir()):
        os.utime(path, (long_ago, long_ago))
    listed = run("list").stdout
    assert str(package) in listed
    assert str(earlier) not in listed
    assert "1 entries of earlier builds" in listed
    assert str(earlier) in run("list", "--all").stdout
    assert len(run_json("list")) == 2


def test_an_intact_package_has_nothing_missing_and_nothing_damaged(package: Path) -> None:
    (report,) = run_json("inspect", "tiny")
    assert (report["missing"], report["damaged"]) == ([], [])
    assert run_json("inspect", package.name[:8]) == [report]


def test_a_block_that_has_changed_is_named(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    tensor = next(each for each in manifest["tensors"] if each["name"] == "blocks.qkv.q")
    with (package / "weights.bin").open("r+b") as file:
        file.seek(tensor["offset"] + tensor["bytes"] // 4 * 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    (report,) = run_json("inspect", "tiny")
    assert report["damaged"] == ["block.2"]


@pytest.mark.parametrize("command", ["inspect", "remove"])
def test_an_unknown_name_is_told_the_known_ones(package: Path, command: str) -> None:
    done = run(command, "nosuch")
    assert "no model 'nosuch'" in str(done.exception)
    assert str(done.exception).endswith("there are: tiny")


def test_an_imported_model_is_known_by_its_name_even_without_its_file(
    store: ContentStore, tiny: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(tiny, tmp_path / "copy.gguf")
    imported = run_json("import", str(copy), "--name", "mine-1.0", "--quantisation", "int4")
    Path(copy).unlink()
    folder, built = ensure_model_package("mine-1.0", "auto", store, lambda *step: None)
    assert (str(folder), built) == (imported["package"], False)
    assert [model["name"] for model in run_json("list")] == ["mine-1.0"]
    assert run("remove", "mine-1.0", "--yes").exit_code == 0
    assert store.entries() == []


@pytest.mark.parametrize("name", ["smollm2", "a/b", ""])
def test_a_name_that_cannot_be_given_is_refused(store: ContentStore, tiny: Path, name: str) -> None:
    assert run("import", str(tiny), "--name", name or " ").exit_code == 1
    assert store.entries() == []


def test_removing_asks_first(store: ContentStore, package: Path) -> None:
    assert run("remove", "tiny", answer="n\n").exit_code == 1
    assert package.is_dir()
    assert run("remove", "tiny", answer="y\n").exit_code == 0
    assert not package.exists()


def test_a_model_in_use_is_not_removed(store: ContentStore, package: Path) -> None:
    with store.hold_folder(package):
        done = run("remove", "tiny", "--yes")
    assert "tiny is in use" in str(done.exception)
    assert package.is_dir()


def test_a_target_that_cannot_be_compiled_stops_no_other(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_model(str(tiny), "int4")
    ensure = build.ensure_artefact

    def without_tools(dims: Any, quantisation: str, target: str, *rest: Any) -> tuple[Path, bool]:
        if target == "x86-64-v3":
            raise BuildError("no linker for x86-64-v3")
        return ensure(dims, quantisation, target, *rest)

    monkeypatch.setattr(build, "ensure_artefact", without_tools)
    local = build.detect_local_target()
    outcomes = compile_targets(str(tiny), "int4", ["x86-64-v3", local], ContentStore()).targets
    assert [str(each.failure) for each in outcomes] == ["no linker for x86-64-v3", "None"]
    assert outcomes[1].artefact_dir == compiled.artefact_dir


def test_a_package_in_part_says_which_parts_are_missing(store: ContentStore, package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    part = weight_parts(manifest)["block.2"]

    def build(folder: Path) -> None:
        for name in ("tokenizer.json", "chat_template.jinja", "manifest.json"):
            shutil.copy(package / name, folder)
        create_partial_weights(folder, manifest)

    store.ensure("partial_models", "p1", build)
    weights = PartialWeights(store.folder("partial_models", "p1"), manifest)
    whole, position = (package / "weights.bin").read_bytes(), 0
    for extent in part.extents:
        weights.write(part, position, whole[extent.offset : extent.offset + extent.size])
        position += extent.size
    assert weights.finish(part)
    store.remove("models", package.name)
    (report,) = run_json("inspect", "tiny")
    assert not report["is_whole"]
    assert report["missing"] == ["block.0", "block.1", "block.3", "embed", "head", "rope"]
    assert report["damaged"] == []
    assert "in part" in run("list").stdout
