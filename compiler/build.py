"""From a model's name to a package and an artefact in the cache: the one function that the CLI and tests call.

TVM and the readers of model files are imported only where something has to be built: finding a finished entry costs a
few checks, and hashing the model file where it is new.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.models.locate import find_model_file, hash_model
from compiler.models.spec import ArchitectureDims
from compiler.packing import LAYOUT_VERSION, PACKAGE_VERSION
from compiler.quantisation import AUTO, find_quantisation
from compiler.targets.choice import detect_local_target, find_cpu_target, find_target
from mec_platform.content_store.entries import ARTEFACTS, MODELS, content_key, read_entry, write_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS

if TYPE_CHECKING:
    from compiler.models.model_file import ModelFile

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """The two folders that a node loads; `was_built` is False where both were in the cache."""

    package_dir: Path
    artefact_dir: Path
    was_built: bool


def compile_model(
    model: str = "smollm2",
    quantisation: str = AUTO,
    target: str | None = None,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> CompiledModel:
    """Package and artefact of `model` (a known name, a .gguf file or a Hugging Face folder).

    `target` is this machine's where None; `quantisation` is "auto" for the smallest that keeps what the file has.

    Raises:
        ModelFileError, QuantisationError, TargetError, BuildError: with a message of one line that says what to do.
    """
    store = ContentStore(cache)
    row = target or detect_local_target()
    find_target(row)
    progress = on_progress or _silent
    package_dir, package_built = ensure_model_package(model, quantisation, store, progress)
    with store.hold_folder(package_dir):
        manifest = read_entry(package_dir)
        if manifest is None:
            raise OSError(f"{package_dir} was damaged while it was used; run the command again")
        dims = ArchitectureDims(**manifest["dims"])
        artefact_dir, artefact_built = ensure_artefact(dims, manifest["quantisation"], row, store, progress)
    return CompiledModel(package_dir, artefact_dir, package_built or artefact_built)


def ensure_model_package(model: str, quantisation: str, store: ContentStore, progress: Progress) -> tuple[Path, bool]:
    """Folder of the model's package, and whether it had to be built."""
    if quantisation != AUTO:
        find_quantisation(quantisation)
    path = find_model_file(model)
    name = model if path.name != Path(model).name else (path.resolve().name if path.is_dir() else path.stem)
    source = [hash_model(path, store.root), source_hash("compiler.models")]

    @functools.cache
    def open_once() -> ModelFile:
        progress("reading the model file", 0, 1)
        opened = _open_model(path, name)
        progress("reading the model file", 1, 1)
        return opened

    chosen = _resolve_auto(source, open_once, store) if quantisation == AUTO else quantisation
    key = content_key(source, name, chosen, LAYOUT_VERSION, PACKAGE_VERSION)

    def build(fresh: Path) -> None:
        from compiler.model_package import write_model_package

        write_model_package(fresh, open_once(), find_quantisation(chosen), progress)

    built = store.ensure(MODELS, key, build)
    return store.folder(MODELS, key), built


def _resolve_auto(source: list[Any], open_once: Callable[[], ModelFile], store: ContentStore) -> str:
    """Name of the quantisation that "auto" stands for; kept, so that later starts need not open the model."""
    kind, key = "quantisations", content_key(source)

    def build(fresh: Path) -> None:
        from compiler.models.precision import choose_quantisation

        chosen = choose_quantisation(open_once()).name
        write_manifest(fresh, {"kind": "quantisation", "quantisation": chosen})

    store.ensure(kind, key, build)
    return str((store.find(kind, key) or {})["quantisation"])


def _open_model(path: Path, name: str) -> ModelFile:
    if path.is_dir():
        from compiler.models.hugging_face import HuggingFaceModel

        return HuggingFaceModel(path, name)
    from compiler.models.gguf_file import GgufModel

    return GgufModel(path, name)


def ensure_artefact(
    dims: ArchitectureDims, quantisation: str, target: str, store: ContentStore, progress: Progress
) -> tuple[Path, bool]:
    """Folder of the artefact, and whether it had to be built."""
    scheme, row = find_quantisation(quantisation), find_cpu_target(target)
    key = content_key(
        dims.as_dict(),
        quantisation,
        row.name,
        row.llvm(),
        row.dot,
        row.tile_rows,
        row.tile_queries,
        LAYOUT_VERSION,
        [KERNEL_VERSION, PAGE_TOKENS],
        source_hash("compiler.kernels"),
    )

    def build(fresh: Path) -> None:
        progress("compiling kernels", 0, 1)
        from compiler.artefact import write_artefact

        write_artefact(fresh, dims, scheme, row)
        progress("compiling kernels", 1, 1)

    built = store.ensure(ARTEFACTS, key, build)
    return store.folder(ARTEFACTS, key), built


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
