"""What must hold between files: stubs match their protobuf sources, imports go one way, constraints pin what is asked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mec_platform.rpc.generate import REPOSITORY, generate_stubs

STUBS = (Path("mec_platform/rpc/v1"), Path("mec_platform/rpc/etcd"))


def test_committed_stubs_are_those_that_the_protobuf_files_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # protoc finds its plugins on the PATH; those of this environment are meant, activated or not.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    generate_stubs(tmp_path)
    fresh, committed = (
        {path.name: path.read_text() for stubs in STUBS for path in (root / stubs).glob("*_pb2*")}
        for root in (tmp_path, REPOSITORY)
    )
    stale = sorted(name for name in fresh | committed if fresh.get(name) != committed.get(name))
    assert stale == [], "run `python -m mec_platform.rpc.generate` and commit what it writes"


def test_imports_keep_to_the_contracts():
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_constraints_pin_everything_that_the_project_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [each for extra in project["optional-dependencies"].values() for each in extra]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {normalised(line.split("==")[0]) for line in lines if "==" in line}
    assert {normalised(requirement) for requirement in asked} <= pinned


def test_only_one_module_creates_tasks():
    pattern = re.compile(r"\bcreate_task\(")
    found = [
        str(path.relative_to(REPOSITORY))
        for folder in ("mec_platform", "mec_apps", "compiler")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if pattern.search(path.read_text())
    ]
    assert found == ["mec_platform/background.py"]


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()
