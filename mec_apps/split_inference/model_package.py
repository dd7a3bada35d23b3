"""A model package on disk, as `compiler` writes it: opened, checked, and mapped; layer ranges come out as slices.

Knows the manifest's format and nothing else: no compiler, no TVM. The weights stay in the page cache, shared by all
processes of a machine that map them.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mec_platform.domain.errors import MendableError
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape

ENCODER_FORM = "encoder"
"""The `form` that manifests of encoders name; `encoder_package` opens those."""

_WEIGHTS = "weights.bin"
_BLOCK_PREFIX = "blocks."


class PackageError(MendableError):
    """The folder holds no usable model package; the message says what to do."""


@dataclass(frozen=True, slots=True)
class PackagedSpec:
    """Facts of the packaged model. `context` in tokens; ids that the model does not have are None.

    `stop_ids` are all tokens that end an answer; `add_bos` says whether a sequence begins with `bos_id`.
    """

    name: str
    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rms_eps: float
    tied_embedding: bool
    qkv_bias: bool
    qk_norm: bool
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None
    stop_ids: tuple[int, ...]
    add_bos: bool
    chat_template: str


@dataclass(frozen=True, slots=True)
class PackagedDims:
    """Dimensions as the kernels see them: the model's own, padded (see `compiler.models.spec`)."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    norm_width: int
    score_width: int
    rms_eps: float
    qkv_bias: bool
    qk_norm: bool


class ModelPackage:
    """One opened package; see `open`. All arrays are views of the mapped file; they are not to be written."""

    def __init__(self, folder: Path, manifest: dict[str, Any], mapped: mmap.mmap) -> None:
        self.folder = folder
        spec = manifest["spec"]
        self.spec = PackagedSpec(**{**spec, "stop_ids": tuple(spec["stop_ids"])})
        self.dims = PackagedDims(**manifest["dims"])
        self.shape = ModelShape(**manifest["shape"])
        self.quantisation: str = manifest["quantisation"]
        self.interface: str = manifest["interface"]
        self.special_tokens: dict[str, int] = manifest["special_tokens"]
        self.tokenizer_path = folder / "tokenizer.json"
        self.chat_template = self.spec.chat_template
        self._block_sha256: list[str] = manifest["block_sha256"]
        self._tensors = {
            entry["name"]: np.frombuffer(
                mapped, np.dtype(entry["dtype"]), math.prod(entry["shape"]), entry["offset"]
            ).reshape(entry["shape"])
            for entry in manifest["tensors"]
        }

    @classmethod
    def open(cls, package_dir: Path) -> ModelPackage:
        """Checks the manifest and the sizes of all files, and maps the weights.

        Raises:
            PackageError: a file is missing, damaged, or does not fit the manifest.
        """
        advice = "run: mec compile"
        try:
            manifest = json.loads((package_dir / "manifest.json").read_text())
            if manifest["kind"] != "model-package":
                raise PackageError(f"{package_dir} holds a {manifest['kind']}, not a model package; {advice}")
            if manifest.get("form") == ENCODER_FORM:
                raise PackageError(
                    f"{package_dir} holds an encoder, which answers no questions by itself; name a language model with "
                    "--model, and this one with --encoder"
                )
            for name, facts in manifest["files"].items():
                size = (package_dir / name).stat().st_size
                if size != facts["bytes"]:
                    raise PackageError(
                        f"{package_dir / name} has {size} bytes, not {facts['bytes']}; delete the folder and {advice}"
                    )
            with (package_dir / _WEIGHTS).open("rb") as file:
                # Copy-on-write, not read-only: DLPack hands over writable arrays only. A stray write stays here.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return cls(package_dir, manifest, mapped)
        except FileNotFoundError as error:
            raise PackageError(f"no model package in {package_dir}: {error.filename} is missing; {advice}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PackageError(f"the model package in {package_dir} is damaged ({error}); {advice}") from error

    @property
    def layers(self) -> LayerRange:
        """All blocks of the model."""
        return LayerRange(0, self.spec.blocks)

    def tensor(self, name: str, layers: LayerRange | None = None) -> np.ndarray:
        """A packed tensor; for a tensor of the blocks, the slice of `layers` (all by default).

        The matrix of a tied head is stored once, under the embedding's name.

        Raises:
            PackageError: no such tensor.
        """
        if name not in self._tensors and self.spec.tied_embedding:
            name = name.replace("head.", "embed.")
        if name not in self._tensors:
            raise PackageError(f"the model package in {self.folder} has no tensor {name}; run: mec compile")
        whole = self._tensors[name]
        return whole[layers.start : layers.stop] if layers and name.startswith(_BLOCK_PREFIX) else whole

    def block_is_intact(self, block: int) -> bool:
        """Whether the bytes of one block are those that were packed; reads all of them."""
        digest = hashlib.sha256()
        for name, value in self._tensors.items():
            if name.startswith(_BLOCK_PREFIX):
                digest.update(value[block].data)
        return digest.hexdigest() == self._block_sha256[block]
