"""Memory of a device, and the only two ways across to it: `upload` and `download`, which count what they copy.

The device may be the CPU: that is how a simulated GPU runs the same code.
"""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np

Tensor = Any
"""A tensor of tvm_ffi on the device."""


class DeviceMemory:
    """Tensors on one device.

    Attributes:
        uploads, downloads: copies made so far in each direction.
    """

    def __init__(self, ffi: ModuleType, device: str) -> None:
        """`device` as "cuda:0" or "cpu:0"."""
        self.uploads = 0
        self.downloads = 0
        self._ffi = ffi
        self._device = ffi.device(device)
        self._allocate = ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        self._view = ffi.get_global_func("runtime.TVMTensorCreateView")
        self._copy_in = ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        self._copy_out = ffi.get_global_func("runtime.TVMTensorCopyToBytes")

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """A tensor whose content is undefined. It is freed when nothing refers to it.

        Raises:
            MemoryError: the device has no room for it.
        """
        try:
            return self._allocate(self._ffi.Shape(shape), self._ffi.dtype(dtype), self._device, None)
        except RuntimeError as error:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
            raise MemoryError(f"cannot allocate {size / 1e6:.1f} MB on {self._device} ({reason})") from error

    def upload(self, array: np.ndarray) -> Tensor:
        """A new tensor with the content of a contiguous array. Raises MemoryError."""
        tensor = self.allocate(array.shape, array.dtype.name)
        self.put(tensor, array)
        return tensor

    def put(self, tensor: Tensor, array: np.ndarray) -> None:
        """One copy: a contiguous array to the beginning of a tensor of its type."""
        self._copy_in(self._beginning(tensor, array), ctypes.c_void_p(array.ctypes.data), array.nbytes)
        self.uploads += 1

    def wipe(self, tensor: Tensor, row: int, shape: tuple[int, ...], dtype: str) -> None:
        """Zeros in place of one row of a tensor whose rows have this shape; one upload."""
        zeros = np.zeros(shape, dtype)
        view = self._view(tensor, self._ffi.Shape(shape), self._ffi.dtype(dtype), row * zeros.nbytes)
        self._copy_in(view, ctypes.c_void_p(zeros.ctypes.data), zeros.nbytes)
        self.uploads += 1

    def get(self, tensor: Tensor, array: np.ndarray) -> None:
        """One copy: the beginning of a tensor into a contiguous array of its type, after all kernels that ran before."""
        self._copy_out(self._beginning(tensor, array), ctypes.c_void_p(array.ctypes.data), array.nbytes)
        self.downloads += 1

    def _beginning(self, tensor: Tensor, array: np.ndarray) -> Tensor:
        return self._view(tensor, self._ffi.Shape(array.shape), self._ffi.dtype(array.dtype.name), 0)
