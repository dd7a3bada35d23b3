"""The GPU rows. Adding a target is adding a row.

Artefacts hold machine code for one compute capability, and host code for the row's host. Limits come from NVIDIA's data
sheets and architecture white papers, for the board in the comment: memory, float32 without tensor cores, and int8 with
them, dense. The kernels of this product use float32. What an SM holds is from the CUDA programming guide, table
"technical specifications per compute capability".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.targets.cpu import CPU_TARGETS
from compiler.targets.row import CompileTarget, CpuTarget, TargetLimits

REGISTERS_PER_SM = 65536
# Without saving registers, ptxas spills in none of the kernels for any generation; its default level does for sm_100.
NVCC_OPTIONS = ("-O3", "-Xptxas=--register-usage-level=0")
BLOCK_SHARED_BYTES = 48 * 1024  # what a block may use on every generation without asking for more


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTarget(CompileTarget):
    """A GPU beside a host CPU.

    `sm` is the compute capability times ten; None stands for no GPU at all: the host runs the GPU's kernels, simulated.
    `first_cuda` and `last_cuda` are the CUDA releases that compile for it ("" for no known end). `sm_threads` and
    `sm_shared_bytes` are what one multiprocessor holds.
    """

    kind: ClassVar[Literal["cpu", "gpu"]] = "gpu"
    sm: int | None
    host: CpuTarget
    sm_threads: int
    sm_shared_bytes: int
    first_cuda: str = ""
    last_cuda: str = ""

    @property
    def capability(self) -> str:
        """The compute capability as "8.6"; "" where the GPU is simulated."""
        return "" if self.sm is None else f"{self.sm // 10}.{self.sm % 10}"

    def cuda(self) -> dict[str, str | int]:
        """TVM's target description, without the host."""
        return {
            "kind": "cuda",
            "arch": f"sm_{self.sm}",
            "max_threads_per_block": 1024,
            "max_shared_memory_per_block": BLOCK_SHARED_BYTES,
            "thread_warp_size": 32,
        }


@dataclass(frozen=True, slots=True)
class _Generation:
    """Threads and shared memory (KiB) of an SM, and the CUDA releases that compile for it."""

    threads: int
    shared_kib: int
    first_cuda: str
    last_cuda: str = ""


_GENERATIONS = {
    72: _Generation(2048, 96, "10.0", "12.9"),
    75: _Generation(1024, 64, "10.0"),
    80: _Generation(2048, 164, "11.0"),
    86: _Generation(1536, 100, "11.1"),
    87: _Generation(1536, 164, "11.4"),
    89: _Generation(1536, 100, "11.8"),
    90: _Generation(2048, 228, "11.8"),
    100: _Generation(2048, 228, "12.8"),
    120: _Generation(1536, 100, "12.8"),
}


def _gpu(
    name: str, summary: str, sm: int, memory_gb_per_s: float, tflops: float, int8_tops: float, host: str = "x86-64-v3"
) -> GpuTarget:
    cpu, generation = _host(host), _GENERATIONS[sm]
    return GpuTarget(
        name=name,
        summary=summary,
        arch=cpu.arch,
        features=cpu.features,
        limits=TargetLimits(memory_gb_per_s * 1e9, tflops * 1e12, int8_tops * 1e12),
        sm=sm,
        host=cpu,
        sm_threads=generation.threads,
        sm_shared_bytes=generation.shared_kib * 1024,
        first_cuda=generation.first_cuda,
        last_cuda=generation.last_cuda,
    )


def _host(name: str) -> CpuTarget:
    return next(row for row in CPU_TARGETS if row.name == name)


# The usual board of a generation stands first: it is what a GPU that no row names compiles for.
GPU_TARGETS = (
    # GeForce RTX 2080 Ti.
    _gpu("rtx-20", "GeForce RTX 20 and Quadro RTX (Turing, sm_75)", 75, 616, 13.4, 215),
    _gpu("t4", "NVIDIA T4 (Turing, sm_75)", 75, 320, 8.1, 130),
    # A100 80 GB SXM.
    _gpu("a100", "NVIDIA A100 and A30 (Ampere, sm_80)", 80, 2039, 19.5, 624),
    # GeForce RTX 3090.
    _gpu("rtx-30", "GeForce RTX 30 and RTX A (Ampere, sm_86)", 86, 936, 35.6, 284),
    _gpu("a10", "NVIDIA A10 (Ampere, sm_86)", 86, 600, 31.2, 250),
    # Jetson AGX Orin 64 GB, its GPU alone.
    _gpu("jetson-orin", "NVIDIA Jetson Orin (Ampere, sm_87), 64-bit ARM host", 87, 204.8, 5.3, 85, "cortex-a78"),
    # GeForce RTX 4090.
    _gpu("rtx-40", "GeForce RTX 40 and RTX Ada (Ada, sm_89)", 89, 1008, 82.6, 661),
    _gpu("l4", "NVIDIA L4 and L40 (Ada, sm_89)", 89, 300, 30.3, 242),
    # H100 SXM.
    _gpu("h100", "NVIDIA H100 and H200 (Hopper, sm_90)", 90, 3350, 67, 1979),
    # GH200 with 96 GB of HBM3.
    _gpu("gh200", "NVIDIA GH200 (Hopper, sm_90), Grace (64-bit ARM) host", 90, 4000, 67, 1979, "neoverse-v2"),
    _gpu("b200", "NVIDIA B200 (Blackwell, sm_100)", 100, 8000, 75, 4500),
    # GeForce RTX 5090.
    _gpu("rtx-50", "GeForce RTX 50 (Blackwell, sm_120)", 120, 1792, 104.8, 838),
    # Jetson AGX Xavier; its GPU alone. CUDA 13, which TVM's runtime for CUDA is linked to, has left it behind.
    _gpu("jetson-xavier", "NVIDIA Jetson Xavier (Volta, sm_72), 64-bit ARM host", 72, 136.5, 1.4, 22, "carmel"),
)

SIMULATED_GPU = GpuTarget(
    name="simulated-gpu",
    summary="SIMULATED: the GPU's kernels on an x86 CPU, one thread after the other, to check what they compute",
    arch="x86_64",
    features=_host("x86-64-v3").features,
    limits=_host("x86-64-v3").limits,
    sm=None,
    host=_host("x86-64-v3"),
    sm_threads=1024,
    sm_shared_bytes=BLOCK_SHARED_BYTES,
)
