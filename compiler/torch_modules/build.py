"""Package and artefact of a .pt2 file in the content store; `compiler.build` calls it for files of that kind.

torch and TVM are imported only where something has to be built. `ensure_encoder` takes a program that another module
has made in memory, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.build import CompiledTarget, CompiledTargets, Report, source_hash
from compiler.errors import BuildError, CompilerError, QuantisationError
from compiler.models.locate import hash_model
from compiler.quantisation import AUTO
from compiler.targets.choice import require_cpu
from compiler.targets.row import CompileTarget
from mec_platform.content_store.entries import ARTEFACTS, MODELS, content_key, read_entry
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS

if TYPE_CHECKING:
    from compiler.torch_modules.cuts import Partition
    from compiler.torch_modules.lowering import LoweredFunction
    from compiler.torch_modules.program import TorchProgram

_QUANTISATIONS = (AUTO, "f32")


def compile_torch_file(
    path: Path, quantisation: str, targets: Sequence[CompileTarget], store: ContentStore, progress: Report
) -> CompiledTargets:
    """Package and artefacts of a .pt2 file.

    Raises:
        ModelFileError, QuantisationError: the module cannot be packaged.
    """
    if quantisation not in _QUANTISATIONS:
        raise QuantisationError(f"'{path.name}' is compiled as f32; leave --quantisation out, not '{quantisation}'")

    def load() -> TorchProgram:
        from compiler.torch_modules.program import load_program

        progress("reading the model file", 0, 1)
        program = load_program(path, path.stem)
        progress("reading the model file", 1, 1)
        return program

    try:
        return ensure_encoder([path.stem, hash_model(path, store.root)], load, targets, store, progress)
    except ImportError as error:
        raise BuildError(f"compiling torch modules needs torch ({error}); run: pip install torch") from error


def ensure_encoder(
    source: Any,
    load: Callable[[], TorchProgram],
    targets: Sequence[CompileTarget],
    store: ContentStore,
    progress: Report,
) -> CompiledTargets:
    """Package and artefacts of the program that `load` gives; `source` stands for everything that decides what it gives.

    Raises:
        ModelFileError: the module cannot be packaged. A target that fails is in the result.
    """

    @functools.cache
    def open_once() -> tuple[TorchProgram, tuple[Partition, ...], dict[str, LoweredFunction]]:
        from compiler.torch_modules.cuts import partition
        from compiler.torch_modules.lowering import import_partitions

        program = load()
        progress("importing operators", 0, 1)
        partitions = partition(program)
        lowered = import_partitions(program.name, partitions)
        progress("importing operators", 1, 1)
        return program, partitions, lowered

    def build_package(fresh: Path) -> None:
        opened = open_once()
        from compiler.torch_modules.package import write_encoder_package

        write_encoder_package(fresh, *opened, progress)

    key = content_key("encoder", source, source_hash("compiler.torch_modules"))
    built = store.ensure(MODELS, key, build_package)
    package = store.folder(MODELS, key)
    with store.hold_folder(package):
        manifest = read_entry(package)
        if manifest is None:
            raise OSError(f"{package} was damaged while it was used; run the command again")
        structures = list(manifest["structures"])
        outcomes = [_compile_target(structures, target, lambda: open_once()[2], store, progress) for target in targets]
    return CompiledTargets(package, built, tuple(outcomes))


def _compile_target(
    structures: Sequence[str],
    target: CompileTarget,
    lower: Callable[[], dict[str, LoweredFunction]],
    store: ContentStore,
    progress: Report,
) -> CompiledTarget:
    def build(fresh: Path) -> None:
        lowered = lower()
        progress("compiling kernels", 0, 1)
        from compiler.torch_modules.package import write_encoder_artefact

        write_encoder_artefact(fresh, structures, lowered, row)
        progress("compiling kernels", 1, 1)

    try:
        row = require_cpu(target)
        versions = [KERNEL_VERSION, PAGE_TOKENS, source_hash("compiler.torch_modules")]
        key = content_key("encoder", structures, row.name, row.llvm(), versions)
        built = store.ensure(ARTEFACTS, key, build)
    except CompilerError as error:
        return CompiledTarget(target.name, None, was_built=False, failure=error)
    return CompiledTarget(target.name, store.folder(ARTEFACTS, key), built)
