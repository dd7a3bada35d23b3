"""From a model's name to a package and an artefact in the cache: the one function that the CLI and tests call.

TVM and the readers of model files are imported only where something has to be built: finding a finished entry costs a
few checks, and hashing the model file where it is new.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import CompilerError, ModelFileError
from compiler.imported import find_import, imported_package
from compiler.models.locate import find_model_file, hash_model
from compiler.models.spec import ArchitectureDims
from compiler.packing import LAYOUT_VERSION, PACKAGE_VERSION
from compiler.quantisation import AUTO, find_quantisation
from compiler.targets.choice import detect_local_target, find_target, require_cpu
from compiler.targets.gpu import NVCC_OPTIONS, GpuTarget
from compiler.targets.row import CompileTarget
from compiler.tunings import tuned_row
from mec_platform.content_store.entries import ARTEFACTS, MODELS, content_key, read_entry, write_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS

if TYPE_CHECKING:
    from compiler.models.model_file import ModelFile

Report = Callable[[str, int, int], None]
"""Learns of each step how much of it is done: its name, done, total."""

TORCH_SUFFIX = ".pt2"
"""Files of torch.export.save: torch modules, which are cut and compiled by `compiler.torch_modules`."""


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """The two folders that a node loads; `was_built` is False where both were in the cache."""

    package_dir: Path
    artefact_dir: Path
    was_built: bool


@dataclass(frozen=True, slots=True)
class CompiledTarget:
    """One target of a model: its artefact's folder, or why there is none."""

    target: str
    artefact_dir: Path | None
    was_built: bool
    failure: CompilerError | None = None


@dataclass(frozen=True, slots=True)
class CompiledTargets:
    """A model's package, and how each of its targets came out."""

    package_dir: Path
    package_was_built: bool
    targets: tuple[CompiledTarget, ...]


def compile_model(
    model: str = "smollm2",
    quantisation: str = AUTO,
    target: str | None = None,
    cache: Path | None = None,
    on_progress: Report | None = None,
) -> CompiledModel:
    """Package and artefact of `model` (a known name, a .gguf file, a Hugging Face folder, or a torch module as .pt2).

    `target` is this machine's where None; `quantisation` is "auto" for the smallest that keeps what the file has.

    Raises:
        ModelFileError, QuantisationError, TargetError, BuildError: with a message of one line that says what to do.
    """
    targets = () if target is None else (target,)
    compiled = compile_targets(model, quantisation, targets, ContentStore(cache), on_progress)
    (outcome,) = compiled.targets
    if outcome.failure is not None:
        raise outcome.failure
    assert outcome.artefact_dir is not None
    return CompiledModel(compiled.package_dir, outcome.artefact_dir, compiled.package_was_built or outcome.was_built)


def compile_targets(
    model: str,
    quantisation: str,
    targets: Sequence[str],
    store: ContentStore,
    on_progress: Report | None = None,
) -> CompiledTargets:
    """One package and an artefact per target (this machine's where none is named); one that fails stops no other.

    Raises:
        ModelFileError, QuantisationError: the model cannot be packaged. TargetError: no such target.
    """
    names = tuple(dict.fromkeys(targets)) or (detect_local_target(),)
    for name in names:
        find_target(name)
    progress = on_progress or _silent
    if model.endswith(TORCH_SUFFIX):
        from compiler.torch_modules.build import compile_torch_file

        rows = [find_target(name) for name in names]
        return compile_torch_file(find_model_file(model), quantisation, rows, store, progress)
    package_dir, package_built = ensure_model_package(model, quantisation, store, progress)
    with store.hold_folder(package_dir):
        manifest = read_entry(package_dir)
        if manifest is None:
            raise OSError(f"{package_dir} was damaged while it was used; run the command again")
        dims = ArchitectureDims(**manifest["dims"])
        outcomes = [_compile_target(dims, manifest["quantisation"], name, store, progress) for name in names]
    return CompiledTargets(package_dir, package_built, tuple(outcomes))


def _compile_target(
    dims: ArchitectureDims, quantisation: str, target: str, store: ContentStore, progress: Report
) -> CompiledTarget:
    try:
        folder, built = ensure_artefact(dims, quantisation, target, store, progress)
    except CompilerError as error:
        return CompiledTarget(target, None, was_built=False, failure=error)
    return CompiledTarget(target, folder, built)


def ensure_model_package(
    model: str, quantisation: str, store: ContentStore, progress: Report, name: str | None = None
) -> tuple[Path, bool]:
    """Folder of the model's package, and whether it had to be built. `model` may have been imported under its name.

    `name` is what the package calls the model: its file's name, or the name that `model` is known by, where None.
    """
    key = imported_package(model, quantisation, store)
    if key is not None:
        return store.folder(MODELS, key), False
    wanted = _identify(model, quantisation, store, progress, name)

    def build(fresh: Path) -> None:
        from compiler.model_package import write_model_package

        write_model_package(fresh, wanted.open_once(), find_quantisation(wanted.quantisation), progress)

    built = store.ensure(MODELS, wanted.key, build)
    return store.folder(MODELS, wanted.key), built


def find_compiled(model: str, quantisation: str, target: str | None, store: ContentStore) -> dict[str, str | None]:
    """What is in the store, without building: folders of package and artefact, or None; the package's key where the model is
    known here; and the hash of the code that an artefact would be compiled from.
    """
    found: dict[str, str | None] = {"source": kernel_source(), "package": None, "artefact": None}
    try:
        key = imported_package(model, quantisation, store) or _identify(model, quantisation, store, _silent).key
    except ModelFileError:
        return {**found, "package_key": None}
    manifest = store.find(MODELS, key)
    if manifest is not None:
        found["package"] = str(store.folder(MODELS, key))
        dims = ArchitectureDims(**manifest["dims"])
        row = tuned_row(find_target(target or detect_local_target()), dims, manifest["quantisation"], store)
        artefact = artefact_key(dims, manifest["quantisation"], row)
        if store.find(ARTEFACTS, artefact) is not None:
            found["artefact"] = str(store.folder(ARTEFACTS, artefact))
    return {**found, "package_key": key}


@dataclass(frozen=True, slots=True)
class _Identified:
    """A package before it is built."""

    key: str
    quantisation: str
    open_once: Callable[[], ModelFile]


def _identify(
    model: str, quantisation: str, store: ContentStore, progress: Report, name: str | None = None
) -> _Identified:
    if quantisation != AUTO:
        find_quantisation(quantisation)
    imported = find_import(model, store)
    if imported is not None:
        model, name = imported.source, model
    path = find_model_file(model)
    if name is None:
        name = model if path.name != Path(model).name else (path.resolve().name if path.is_dir() else path.stem)
    source = [hash_model(path, store.root), source_hash("compiler.models")]

    @functools.cache
    def open_once() -> ModelFile:
        progress("reading the model file", 0, 1)
        opened = _open_model(path, name)
        progress("reading the model file", 1, 1)
        return opened

    chosen = _resolve_auto(source, open_once, store) if quantisation == AUTO else quantisation
    return _Identified(content_key(source, name, chosen, LAYOUT_VERSION, PACKAGE_VERSION), chosen, open_once)


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


def artefact_key(dims: ArchitectureDims, quantisation: str, row: CompileTarget) -> str:
    """Hash over everything that decides an artefact."""
    return content_key(
        dims.as_dict(),
        quantisation,
        row.name,
        *_key_of(row),
        LAYOUT_VERSION,
        [KERNEL_VERSION, PAGE_TOKENS],
        kernel_source(),
    )


def kernel_source() -> str:
    """Hash over the code that kernels are made from."""
    return content_key([source_hash(f"compiler.{package}") for package in ("kernels", "kernels.gpu", "passes")])


def ensure_artefact(
    dims: ArchitectureDims, quantisation: str, target: str, store: ContentStore, progress: Report
) -> tuple[Path, bool]:
    """Folder of the artefact, and whether it had to be built; tuned where the target was tuned on this machine."""
    row = tuned_row(find_target(target), dims, quantisation, store)
    return ensure_row_artefact(dims, quantisation, row, store, progress)


def ensure_row_artefact(
    dims: ArchitectureDims,
    quantisation: str,
    row: CompileTarget,
    store: ContentStore,
    progress: Report,
    *,
    count_instructions: bool = False,
) -> tuple[Path, bool]:
    """The same for a row as it is; `count_instructions`: see `write_artefact`."""
    scheme = find_quantisation(quantisation)
    key = artefact_key(dims, quantisation, row)

    def build(fresh: Path) -> None:
        progress(f"compiling kernels for {row.name}", 0, 1)
        from compiler.artefact import write_artefact

        write_artefact(fresh, dims, scheme, row, kernel_source(), count_instructions=count_instructions)
        progress(f"compiling kernels for {row.name}", 1, 1)

    built = store.ensure(ARTEFACTS, key, build)
    return store.folder(ARTEFACTS, key), built


def _key_of(row: CompileTarget) -> list[Any]:
    """What a row decides of an artefact."""
    if isinstance(row, GpuTarget):
        return [row.cuda(), row.host.llvm(), NVCC_OPTIONS]
    cpu = require_cpu(row)
    return [cpu.llvm(), cpu.dot, cpu.tiling()]


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
