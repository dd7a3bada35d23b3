"""Linking an artefact says what is missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from compiler.artefact import link_shared
from compiler.errors import BuildError

pytestmark = pytest.mark.slow  # imports the compiler


def test_a_machine_without_a_linker_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match="install gcc, or run: pip install ziglang"):
        link_shared(str(tmp_path / "lib.so"), [])


def test_a_failing_linker_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="linking the artefact failed"):
        link_shared(str(tmp_path / "lib.so"), [str(tmp_path / "missing.o")])
