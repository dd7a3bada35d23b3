"""Whether a node may run an artefact, decided before a byte of its library is loaded: pure, from three sets of facts.

The artefact's come from its manifest (and the header of its library), the machine's from `node.machine`, the package's
from its manifest. The same check decides what a node fetches. It reads no file and loads nothing; `node.artefact` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mec_platform.domain.errors import MendableError
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS

ELF_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64", 40: "arm", 3: "i386", 21: "ppc64le"}
"""What the header of a library calls an architecture, by the numbers of the ELF specification."""


class ArtefactError(MendableError):
    """The artefact cannot be loaded or does not fit; the message says what to do."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a node can run.

    `arch` is as `uname -m` prints it, `system` is the rest of an LLVM triple that matters to a library ("linux-gnu").
    `features` are in the kernel's own names (/proc/cpuinfo); `target` is the row that the machine would compile for, ""
    where nobody said. `tvm` is the runtime's version, "" where none is known; `gpus` are compute capabilities as "8.6".
    """

    name: str
    arch: str
    system: str
    cpu_model: str
    features: frozenset[str]
    target: str = ""
    tvm: str = ""
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        gpus = f", GPU sm_{', sm_'.join(gpu.replace('.', '') for gpu in self.gpus)}" if self.gpus else ""
        return f"{self.name} is {self.target or self.cpu_model} ({self.arch}{gpus})"


@dataclass(frozen=True, slots=True)
class ArtefactFacts:
    """What an artefact's manifest says. `gpu` is "8.6" for an artefact with kernels for sm_86, "" without a GPU."""

    key: str
    target: str
    arch: str
    system: str
    features: frozenset[str]
    gpu: str
    kernel_version: int
    page_tokens: int
    tvm: str
    interface: str
    quantisation: str
    library_bytes: int
    library_sha256: str

    def __str__(self) -> str:
        gpu = f", GPU sm_{self.gpu.replace('.', '')}" if self.gpu else ""
        return f"artefact {self.key} was compiled for {self.target} ({self.arch}{gpu})"


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """What a package asks of an artefact."""

    name: str
    quantisation: str
    interface: str


def read_artefact_facts(key: str, manifest: dict[str, Any]) -> ArtefactFacts:
    """The facts of a manifest, which may have come over the network.

    Raises:
        ArtefactError: it is not the manifest of an artefact, or from a release whose manifests said less.
    """
    try:
        if manifest["kind"] != "artefact":
            raise ArtefactError(f"{key} is a {manifest['kind']}, not an artefact; run: mec compile")
        library, _, _ = manifest["files"]["lib.so"], manifest["functions"], manifest["regions"]
        return ArtefactFacts(
            key=key,
            target=str(manifest["target"]),
            arch=str(manifest["arch"]),
            system=str(manifest["system"]),
            features=frozenset(map(str, manifest["features"])),
            gpu=str(manifest.get("gpu", "")),
            kernel_version=int(manifest["kernel_version"]),
            page_tokens=int(manifest["page_tokens"]),
            tvm=str(manifest["tvm"]),
            interface=str(manifest["interface"]),
            quantisation=str(manifest["quantisation"]),
            library_bytes=int(library["bytes"]),
            library_sha256=str(library["sha256"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"the manifest of artefact {key} is damaged or from another release ({_lacking(error)}); run: mec compile"
        ) from error


def check_artefact(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> None:
    """Decides whether `machine` may run `artefact` for `package`; the first reason against it is raised.

    Raises:
        ArtefactError: one line that names both sides and what to do.
    """
    for check in _CHECKS:
        reason = check(artefact, machine, package)
        if reason:
            raise ArtefactError(reason)


def check_library(artefact: ArtefactFacts, elf_machine: int | None, library_bytes: int, sha256: str) -> None:
    """Decides whether a library is the one that its manifest describes, from its header (None: no ELF file) and hash.

    Raises:
        ArtefactError: one line that names both sides and what to do.
    """
    advice = "delete the folder and run: mec compile"
    if library_bytes != artefact.library_bytes:
        raise ArtefactError(
            f"artefact {artefact.key} is damaged: its library has {library_bytes} bytes, not {artefact.library_bytes}; "
            f"{advice}"
        )
    arch = (
        "no ELF library for 64 bits"
        if elf_machine is None
        else ELF_MACHINES.get(elf_machine, f"ELF machine {elf_machine}")
    )
    if arch != artefact.arch:
        raise ArtefactError(
            f"artefact {artefact.key} says it was compiled for {artefact.arch}, but its library is {arch}; {advice}"
        )
    if sha256 != artefact.library_sha256:
        raise ArtefactError(
            f"artefact {artefact.key} is damaged: its library has the hash {sha256[:16]}, its manifest says "
            f"{artefact.library_sha256[:16]}; {advice}"
        )


Check = Callable[[ArtefactFacts, MachineFacts, PackageFacts], str]


def _check_architecture(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    if artefact.arch == machine.arch:
        return ""
    return f"{artefact}; {machine}; {_compile_for(machine)}"


def _check_system(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    if artefact.system == machine.system:
        return ""
    return f"{artefact} on {artefact.system}; {machine} on {machine.system}; {_compile_for(machine)}"


def _check_features(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    missing = ", ".join(sorted(artefact.features - machine.features))
    return f"{artefact}; {machine} and lacks {missing}; {_compile_for(machine)}" if missing else ""


def _check_gpu(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    """A GPU's machine code runs on its own generation, from the revision that it was compiled for."""
    if not artefact.gpu or any(_runs_on(artefact.gpu, gpu) for gpu in machine.gpus):
        return ""
    found = "has no such GPU" if machine.gpus else "has no GPU that can be used"
    return f"{artefact}; {machine} and {found}; {_compile_for(machine)}"


def _check_kernel_version(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    if (artefact.kernel_version, artefact.page_tokens) == (KERNEL_VERSION, PAGE_TOKENS):
        return ""
    return (
        f"{artefact} with kernel version {artefact.kernel_version} ({artefact.page_tokens} tokens a page); "
        f"{machine.name} calls kernel version {KERNEL_VERSION} ({PAGE_TOKENS}); "
        "compile it again with this node's release: mec compile"
    )


def _check_tvm(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    """Compiled code calls the runtime by an interface that a minor release may change."""
    if not machine.tvm or _series(artefact.tvm) == _series(machine.tvm):
        return ""
    return (
        f"{artefact} by TVM {artefact.tvm}; {machine.name} has TVM's runtime {machine.tvm}; "
        f"run: pip install apache-tvm=={artefact.tvm}, or compile it again"
    )


def _check_interface(artefact: ArtefactFacts, machine: MachineFacts, package: PackageFacts) -> str:
    if artefact.interface == package.interface:
        return ""
    return (
        f"{artefact} for interface {artefact.interface}, {artefact.quantisation}; the package of {package.name} "
        f"({package.quantisation}) has {package.interface}: another model or quantisation; run: mec compile"
    )


_CHECKS: tuple[Check, ...] = (
    _check_architecture,
    _check_system,
    _check_features,
    _check_gpu,
    _check_kernel_version,
    _check_tvm,
    _check_interface,
)


def _compile_for(machine: MachineFacts) -> str:
    return f"compile with: mec compile --target {machine.target}" if machine.target else "run on it: mec compile"


def _runs_on(needed: str, gpu: str) -> bool:
    (major, minor), (gpu_major, gpu_minor) = _capability(needed), _capability(gpu)
    return major == gpu_major and minor <= gpu_minor


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (-1, 0)


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _lacking(error: Exception) -> str:
    return f"it lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)
