"""From a model's name to a package and an artefact in the cache: the one function that the CLI and tests call.

TVM and the GGUF reader are imported only where something has to be built: finding a finished entry takes the time of
hashing the model file.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compiler.models.locate import find_model_file, hash_file
from compiler.models.spec import ArchitectureDims
from compiler.packing import LAYOUT_VERSION
from compiler.quantisation import find_quantisation
from compiler.store import content_key, default_cache, ensure_entry, read_entry
from compiler.targets import detect_local_target, find_target

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """The two folders that a node loads; `was_built` is False where both were in the cache."""

    package_dir: Path
    artefact_dir: Path
    was_built: bool


def compile_model(
    model: str = "smollm2",
    quantisation: str = "int4",
    target: str | None = None,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> CompiledModel:
    """Package and artefact of `model` (a known name or a .gguf file); `target` is this machine's where None.

    Raises:
        ModelFileError, QuantisationError, TargetError, BuildError: with a message of one line that says what to do.
    """
    root = cache or default_cache()
    row = target or detect_local_target()
    find_target(row)
    progress = on_progress or _silent
    package_dir, package_built = ensure_model_package(model, quantisation, root, progress)
    manifest = read_entry(package_dir)
    if manifest is None:
        raise OSError(f"{package_dir} was damaged while it was used; run the command again")
    dims = ArchitectureDims(**manifest["dims"])
    artefact_dir, artefact_built = ensure_artefact(dims, quantisation, row, root, progress)
    return CompiledModel(package_dir, artefact_dir, package_built or artefact_built)


def ensure_model_package(model: str, quantisation: str, cache: Path, progress: Progress) -> tuple[Path, bool]:
    """Folder of the model's package, and whether it had to be built."""
    scheme = find_quantisation(quantisation)
    path = find_model_file(model)
    name = model if path.name != Path(model).name else path.stem
    key = content_key(hash_file(path), name, quantisation, LAYOUT_VERSION, source_hash("compiler.models"))
    folder = cache / "models" / key

    def build(fresh: Path) -> None:
        progress("reading the model file", 0, 1)
        from compiler.model_package import write_model_package
        from compiler.models.gguf_file import GgufModel

        model_file = GgufModel(path, name)
        progress("reading the model file", 1, 1)
        write_model_package(fresh, model_file, scheme, progress)

    return folder, ensure_entry(folder, build)


def ensure_artefact(
    dims: ArchitectureDims, quantisation: str, target: str, cache: Path, progress: Progress
) -> tuple[Path, bool]:
    """Folder of the artefact, and whether it had to be built."""
    scheme, row = find_quantisation(quantisation), find_target(target)
    key = content_key(
        dims.as_dict(), quantisation, row.name, row.llvm(), row.dot, LAYOUT_VERSION, source_hash("compiler.kernels")
    )
    folder = cache / "artefacts" / key

    def build(fresh: Path) -> None:
        progress("compiling kernels", 0, 1)
        from compiler.artefact import write_artefact

        write_artefact(fresh, dims, scheme, row)
        progress("compiling kernels", 1, 1)

    return folder, ensure_entry(folder, build)


def source_hash(package: str) -> str:
    """Hash over the source of a package, without importing its modules."""
    module = importlib.import_module(package)
    digest = hashlib.sha256()
    for path in sorted(Path(folder) for folder in module.__path__):
        for file in sorted(path.glob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _silent(stage: str, done: int, total: int) -> None:
    pass
