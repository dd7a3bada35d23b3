"""Loads TVM for a node: the runtime library alone, so that the compiler library and torch stay out of the process.

The models of this package call what it loads; nothing else of the product touches TVM at run time.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from mec_apps.split_inference.node.artefact import LIBRARY
from mec_apps.split_inference.node.artefact_check import ArtefactError

_MAX_THREADS = 256


def load_runtime() -> ModuleType:
    """tvm_ffi with TVM's runtime library, without `import tvm`.

    Raises:
        ArtefactError: TVM is not installed.
    """
    # Read by the libraries when they start. Stages share cores: pinned or long-spinning workers would fight over them.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "20000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    library = _library_folder() / "libtvm_runtime.so"
    # tvm_ffi imports torch where it is installed, for 200 MB that a node does not need: None makes that import fail.
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm_ffi
    finally:
        if absent:
            del sys.modules["torch"]
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ArtefactError(f"cannot load TVM's runtime ({error}); reinstall apache-tvm") from error
    return tvm_ffi  # type: ignore[no-any-return]


def load_cuda_part() -> None:
    """The part of TVM's runtime that talks to an NVIDIA GPU; `load_runtime` comes first.

    Raises:
        ArtefactError: CUDA's driver or runtime is missing.
    """
    try:
        ctypes.CDLL(str(_library_folder() / "libtvm_runtime_cuda.so"), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ArtefactError(
            f"TVM's CUDA runtime cannot be loaded ({error}); install NVIDIA's driver and the CUDA 13 runtime"
        ) from error


def _library_folder() -> Path:
    found = importlib.util.find_spec("tvm")
    if found is None or found.origin is None:
        raise ArtefactError("TVM's runtime is not installed; run: pip install 'mec-platform[node]'")
    return Path(found.origin).parent / "lib"


def load_library(ffi: ModuleType, artefact_dir: Path) -> Any:
    """The library of an artefact that `open_artefact` has checked. Raises ArtefactError where it cannot be loaded."""
    try:
        return ffi.load_module(str((artefact_dir / LIBRARY).resolve()))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtefactError(f"cannot load {artefact_dir / LIBRARY} ({reason}); run: mec compile") from error


_pool = threading.local()  # .threads: what this thread's pool is configured to


class ThreadPool:
    """The pool of `threads` workers that TVM keeps for the thread that calls its functions.

    Raises:
        ValueError: a number of threads that TVM cannot keep.
    """

    def __init__(self, ffi: ModuleType, threads: int) -> None:
        if not 1 <= threads <= _MAX_THREADS:
            raise ValueError(f"threads must be between 1 and {_MAX_THREADS}, not {threads}")
        self.threads = threads
        self._configure = ffi.get_global_func("runtime.config_threadpool")
        self._owner: int | None = None

    def enter(self) -> None:
        """Called before every kernel: checks the calling thread and makes its pool the one of this size.

        Raises:
            RuntimeError: another thread than the one that called first.
        """
        caller = threading.get_ident()
        if self._owner is None:
            self._owner = caller
        elif self._owner != caller:
            raise RuntimeError("a model is called from one thread only: the one that called it first")
        if getattr(_pool, "threads", None) != self.threads:
            # The calling thread's pool is made here, with as many workers as this says. One that has more than it uses
            # waits for them spinning: on cores that share their units, a model on one thread then runs half as fast.
            os.environ["TVM_NUM_THREADS"] = str(self.threads)
            self._configure(1, self.threads)
            _pool.threads = self.threads
