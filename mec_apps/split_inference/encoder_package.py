"""An encoder's package on disk, as `compiler.torch_modules` writes it: a torch module cut into partitions, its weights mapped.

Counterpart of `model_package` for decoders. Nodes take weights from it, gateways what the input means.
"""

from __future__ import annotations

import json
import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from mec_apps.split_inference.frames import MAX_MESSAGE_BYTES
from mec_apps.split_inference.model_package import ENCODER_FORM, PackageError
from mec_platform.domain.model_shape import ModelShape

_WEIGHTS = "weights.bin"
_FLOAT_BYTES = 4


def is_encoder(package_dir: Path) -> bool:
    """Whether the package in this folder is an encoder's; False where there is none that can be read."""
    try:
        return bool(json.loads((package_dir / "manifest.json").read_text(encoding="utf-8")).get("form") == ENCODER_FORM)
    except (OSError, ValueError, AttributeError):
        return False


class EncoderPackage:
    """One opened package; see `open`. Arrays are views of the mapped file; they are not to be written.

    Attributes:
        boundaries: shapes of the float32 tensor before each partition, and behind the last.
        functions: for each partition the name of the artefact's function that runs it.
        input: what the first tensor means, such as an image of some height, width, mean and deviation.
        note: what users of the encoder must be told; may be empty.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], mapped: mmap.mmap) -> None:
        self.folder = folder
        self.shape = ModelShape(**manifest["shape"])
        self.quantisation: str = manifest["quantisation"]
        self.interface: str = manifest["interface"]
        self.input: dict[str, Any] = dict(manifest["input"])
        self.note = str(manifest["note"])
        self.names = tuple(str(each["name"]) for each in manifest["partitions"])
        self.functions = tuple(f"f{int(each['function'])}" for each in manifest["partitions"])
        self.boundaries = tuple(tuple(int(size) for size in shape) for shape in manifest["boundaries"])
        if len(self.boundaries) != len(self.functions) + 1 or len(self.functions) != self.shape.blocks:
            raise ValueError("its partitions do not fit together")
        largest = max(map(self.boundary_bytes, range(len(self.boundaries))))
        if largest > MAX_MESSAGE_BYTES // 2:
            raise PackageError(
                f"the encoder in {folder} passes {largest / 1e6:.0f} MB between partitions, a frame holds "
                f"{MAX_MESSAGE_BYTES // 2 / 1e6:.0f} MB; cut it elsewhere, or export it for a smaller input"
            )
        self._weights: list[list[np.ndarray]] = [[] for _ in self.functions]
        for entry in manifest["tensors"]:
            array = np.frombuffer(mapped, np.dtype(entry["dtype"]), math.prod(entry["shape"]), entry["offset"])
            self._weights[int(entry["name"].split(".")[1])].append(array.reshape(entry["shape"]))

    @classmethod
    def open(cls, package_dir: Path) -> EncoderPackage:
        """Checks the manifest and the sizes of all files, and maps the weights.

        Raises:
            PackageError: a file is missing, damaged, or does not fit the manifest; or it is no encoder's package.
        """
        advice = "run: mec compile --model FILE.pt2"
        try:
            manifest = json.loads((package_dir / "manifest.json").read_text(encoding="utf-8"))
            if manifest["kind"] != "model-package" or manifest.get("form") != ENCODER_FORM:
                raise PackageError(f"{package_dir} holds no encoder; {advice}")
            for name, facts in manifest["files"].items():
                size = (package_dir / name).stat().st_size
                if size != facts["bytes"]:
                    raise PackageError(f"{package_dir / name} has {size} bytes, not {facts['bytes']}; {advice}")
            with (package_dir / _WEIGHTS).open("rb") as file:
                # Copy-on-write, not read-only: DLPack hands over writable arrays only. A stray write stays here.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return cls(package_dir, manifest, mapped)
        except FileNotFoundError as error:
            raise PackageError(f"no encoder in {package_dir}: {error.filename} is missing; {advice}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise PackageError(f"the encoder in {package_dir} is damaged ({error}); {advice}") from error

    def weights(self, partition: int) -> tuple[np.ndarray, ...]:
        """The packed tensors of a partition, in the order of its function's arguments."""
        return tuple(self._weights[partition])

    def boundary_bytes(self, boundary: int) -> int:
        """Bytes of the tensor in front of partition `boundary`, or behind the last."""
        return _FLOAT_BYTES * math.prod(self.boundaries[boundary])
