"""A disk without room for the weights: one line, and nothing half-written. A limit on file sizes stands for the disk."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

ROOM_BYTES = 128 << 10  # of which the tokenizer takes a part, and one block more than the rest


def test_weights_without_room(tiny_model_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compiler", "--model", str(tiny_model_file), "--cache", str(tmp_path), "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES)),
    )
    assert done.returncode == 1
    assert "no room for" in done.stderr
    assert "MEC_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.endswith(".lock")] == []
