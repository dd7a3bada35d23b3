"""Links object files into the shared library of an artefact, for this machine or, without a C toolchain, for another.

An artefact needs nothing from a C compiler's start files: what it calls of libc and libm is resolved when a node loads
it. So any linker that knows the architecture will do. The result depends on the objects alone: no build id, no paths.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable

from compiler.errors import BuildError

# Sections that nothing refers to go; so do symbols, which hold the names of temporary files.
_PLAIN = ("-shared", "--build-id=none", "--hash-style=gnu", "--gc-sections", "--strip-all")
_DRIVEN = ("-shared", "-fPIC", *(f"-Wl,{option}" for option in _PLAIN[1:]))
# What GNU's linkers and LLVM's call the format.
_EMULATIONS = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}


def link_for(arch: str) -> Callable[..., None]:
    """A function that links for `arch` (as `uname -m` prints it), in the form that TVM's export calls.

    It raises BuildError where there is no linker for `arch`, or it fails.
    """

    def link(output: str, objects: list[str], options: list[str] | None = None, **_: object) -> None:
        command = [*_linker(arch), "-o", output, *objects, *(options or [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BuildError(f"linking the artefact for {arch} failed ({last}); check that {command[0]} works")

    return link


def _linker(arch: str) -> list[str]:
    """The command to link for `arch`: this machine's compiler for its own, any linker that knows the format for others."""
    if arch == platform.machine():
        for name in ("cc", "gcc", "clang"):
            if found := shutil.which(name):
                return [found, *_DRIVEN]
    emulation = ("-m", _EMULATIONS[arch])
    for name in (f"{arch}-linux-gnu-ld", "ld.lld"):
        if found := shutil.which(name):
            return [found, *emulation, *_PLAIN]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "ld.lld", *emulation, *_PLAIN]
    if arch == platform.machine():
        raise BuildError("no linker for the artefact; install gcc, or run: pip install 'mec-platform[cross]'")
    raise BuildError(
        f"no linker for {arch} artefacts on this machine; run: pip install 'mec-platform[cross]', "
        f"or install binutils-{arch.replace('_', '-')}-linux-gnu or lld"
    )
