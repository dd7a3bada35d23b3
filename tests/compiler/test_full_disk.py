"""A disk without room for weights or an artefact: one line, and nothing half-written. A limit on file sizes stands for the disk."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

WEIGHTS_ROOM_BYTES = 128 << 10  # of which the tokenizer takes a part, and one block more than the rest
ARTEFACT_ROOM_BYTES = 1 << 20  # enough for the package; less than an artefact asks for


@pytest.mark.parametrize("part", ["weights", "an artefact"])
def test_a_disk_without_room_for(part: str, tiny_model_file: Path, tmp_path: Path) -> None:
    room = WEIGHTS_ROOM_BYTES if part == "weights" else ARTEFACT_ROOM_BYTES
    command = [sys.executable, "-m", "compiler", "--model", str(tiny_model_file), "--cache", str(tmp_path), "--json"]
    done = subprocess.run(
        [*command, "--quantisation", "int4"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 1
    assert "no room" in done.stderr
    assert "MEC_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    kind = "models" if part == "weights" else "artefacts"
    assert [path.name for path in (tmp_path / kind).iterdir() if not path.name.endswith((".lock", ".use"))] == []
