""".pt2 files: what comes back from them, and that none of them runs code while it is read."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from compiler.errors import ModelFileError
from compiler.torch_modules.program import export_program, load_program, save_program


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.pt2"
    facts = {"kind": "image", "height": 2}
    program = export_program(nn.Linear(3, 2), torch.ones(1, 3), "small", cut_points=["a"], input=facts, note="random")
    save_program(program, path)
    return path


def rewrite(path: Path, change: Callable[[str, bytes], dict[str, bytes]]) -> Path:
    """A copy whose members are what `change` makes of them."""
    changed = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            for new, content in change(name, source.read(name)).items():
                target.writestr(new, content)
    return changed


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("code ran",)


def test_a_program_comes_back_from_its_file_with_its_facts(saved: Path) -> None:
    program = load_program(saved, "small")
    assert (program.cut_points, program.note) == (("a",), "random")
    assert program.input == {"kind": "image", "height": 2}
    assert program.exported.module()(torch.ones(1, 3)).shape == (1, 2)


def test_example_inputs_that_would_run_code_are_refused(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = io.BytesIO()
    torch.save(_Bomb(), bomb)
    changed = rewrite(saved, lambda name, old: {name: bomb.getvalue() if "sample_inputs" in name else old})
    with pytest.raises(ModelFileError, match="no tensors"):
        load_program(changed, "small")
    assert "code ran" not in capsys.readouterr().out


def test_pickled_weights_are_refused(saved: Path) -> None:
    def mark(name: str, old: bytes) -> dict[str, bytes]:
        return {name: old.replace(b'"use_pickle": false', b'"use_pickle": true')}

    with pytest.raises(ModelFileError, match="pickled data for weight"):
        load_program(rewrite(saved, mark), "small")


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/aotinductor/model/code.so"])
def test_members_that_torch_would_run_are_refused(saved: Path, name: str) -> None:
    folder = zipfile.ZipFile(saved).namelist()[0].partition("/")[0]
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(f"{folder}/{name}", pickle.dumps(_Bomb()))
    with pytest.raises(ModelFileError, match=r"pickled weights|more than a graph"):
        load_program(saved, "small")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as error:
        load_program(path, "other")
    assert "\n" not in str(error.value)
