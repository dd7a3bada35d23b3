"""Modules compiled for this machine once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from compiler.targets.choice import detect_local_target, find_target
from compiler.torch_modules.build import ensure_encoder
from compiler.torch_modules.program import export_program
from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.node.compiled_encoder import CompiledEncoder
from mec_platform.content_store.store import ContentStore
from tests.compiler.torch_modules.modules import MODULES


@dataclass(frozen=True)
class Compiled:
    """A module, what torch makes of an input, and the folders of what was compiled."""

    given: np.ndarray
    expected: np.ndarray
    package_dir: Path
    artefact_dir: Path

    def open(self, threads: int = 1) -> tuple[EncoderPackage, CompiledEncoder]:
        """For the calling thread."""
        package = EncoderPackage.open(self.package_dir)
        return package, CompiledEncoder(package, self.artefact_dir, threads=threads)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Compiled]:
    store = ContentStore(tmp_path_factory.mktemp("torch-modules"))
    done: dict[str, Compiled] = {}

    def get(name: str) -> Compiled:
        if name not in done:
            torch.manual_seed(5)
            module, given = MODULES[name]()
            program = export_program(module, given, name)
            target = find_target(detect_local_target())
            folders = ensure_encoder(name, lambda: program, [target], store, lambda *_: None)
            (outcome,) = folders.targets
            assert outcome.artefact_dir is not None
            with torch.no_grad():
                expected = module(given).numpy()
            done[name] = Compiled(given.numpy(), expected, folders.package_dir, outcome.artefact_dir)
        return done[name]

    return get
