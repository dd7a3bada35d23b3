"""The CPU rows. Adding a target is adding a row.

Best first: of the rows that a machine can run and that name it equally well, it gets the first.

`features` lists what LLVM may use for `mcpu`; what a row switches off in `mattr` it does not ask for. The stated limits
come from the vendors' data sheets (memory channels) and optimisation guides (operations a cycle), for the machine in the
comment; `int8` counts what the row's own `dot` can do, its additions included.
"""

from __future__ import annotations

from compiler.targets.row import ByteDot, CpuTarget, TargetLimits

_X86_V2 = frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_X86_V3 = _X86_V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_X86_V4 = _X86_V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_VNNI = _X86_V4 | {"avx512_vnni"}
_ICELAKE = _VNNI | {
    "avx512_bitalg",
    "avx512_vbmi2",
    "avx512_vpopcntdq",
    "avx512ifma",
    "avx512vbmi",
    "gfni",
    "vaes",
    "vpclmulqdq",
}
_NEON = frozenset({"asimd", "fp"})
_NEON_HALF = _NEON | {"asimdhp", "fphp"}
_DOTPROD = _NEON_HALF | {"asimddp"}
# Kernels use NEON of 128 bits alone; what these would add is switched off, so that no machine needs to have it.
_NO_SVE = ("-sve", "-sve2")
_NO_SHA3 = ("-sha3",)


def _limits(memory_gb_per_s: float, clock_ghz: float, float32_per_cycle: float, int8_per_cycle: float) -> TargetLimits:
    return TargetLimits(memory_gb_per_s * 1e9, clock_ghz * 1e9 * float32_per_cycle, clock_ghz * 1e9 * int8_per_cycle)


def _x86(
    name: str,
    summary: str,
    mcpu: str,
    dot: ByteDot,
    features: frozenset[str],
    limits: TargetLimits,
    *,
    mattr: tuple[str, ...] = (),
    tile_rows: tuple[int, ...] = (2, 1),
    tile_queries: int = 4,
    machines: tuple[str, ...] = (),
) -> CpuTarget:
    return CpuTarget(
        name=name,
        summary=summary,
        arch="x86_64",
        mtriple="x86_64-linux-gnu",
        mcpu=mcpu,
        mattr=mattr,
        dot=dot,
        tile_rows=tile_rows,
        tile_queries=tile_queries,
        features=features,
        limits=limits,
        machines=machines,
    )


def _arm(
    name: str,
    summary: str,
    mcpu: str,
    dot: ByteDot,
    features: frozenset[str],
    limits: TargetLimits,
    *,
    mattr: tuple[str, ...] = (),
    machines: tuple[str, ...] = (),
    cores: int | None = None,
) -> CpuTarget:
    return CpuTarget(
        name=name,
        summary=summary,
        arch="aarch64",
        mtriple="aarch64-linux-gnu",
        mcpu=mcpu,
        mattr=mattr,
        dot=dot,
        tile_rows=(2, 1),
        tile_queries=4,
        features=features,
        limits=limits,
        machines=machines,
        cores=cores,
    )


_X86_ROWS = (
    # Xeon Platinum 8480+: 8 channels DDR5-4800, two 512-bit FMA units, 2.6 GHz under AVX-512.
    _x86(
        "sapphirerapids",
        "Intel Xeon of the 4th generation and later, without using AMX",
        "sapphirerapids",
        "vpdpbusd-512",
        _ICELAKE | {"avx512_bf16", "avx512_fp16", "avx_vnni"},
        _limits(307.2, 2.6, 64, 256),
        mattr=("-amx-tile", "-amx-int8", "-amx-bf16"),  # virtual machines often hide AMX
        tile_rows=(8, 4, 2, 1),
        tile_queries=12,
    ),
    # Ryzen 9 7950X: 2 channels DDR5-5200, 512-bit operations as two halves of 256, two units, 5 GHz.
    _x86(
        "zen4",
        "AMD Ryzen 7000 and EPYC 9004, and later",
        "znver4",
        "vpdpbusd-512",
        _ICELAKE | {"avx512_bf16"},
        _limits(83.2, 5.0, 32, 128),
        mattr=("-sse4a",),
        tile_rows=(8, 4, 2, 1),
        tile_queries=12,
        machines=("AMD ",),
    ),
    # Xeon Gold 6248: 6 channels DDR4-2933, two 512-bit units, 2.5 GHz.
    _x86(
        "cascadelake",
        "Intel Xeon of the 2nd and 3rd generation, and others with AVX-512 VNNI",
        "cascadelake",
        "vpdpbusd-512",
        _VNNI,
        _limits(140.8, 2.5, 64, 256),
        tile_rows=(8, 4, 2, 1),
        tile_queries=12,
    ),
    # Xeon Gold 6148: 6 channels DDR4-2666, 2.2 GHz; three instructions for 64 products, two a cycle.
    _x86(
        "x86-64-v4",
        "AVX-512 without VNNI, as Intel Xeon of the 1st scalable generation",
        "x86-64-v4",
        "pmaddubsw-512",
        _X86_V4,
        _limits(128, 2.2, 64, 85),
        mattr=("-prefer-256-bit",),
        tile_rows=(8, 4, 2, 1),
        tile_queries=12,
    ),
    # Core i9-12900K: 2 channels DDR5-4800, performance cores with two 256-bit units, 4.9 GHz.
    _x86(
        "alderlake",
        "AVX-VNNI without AVX-512: Intel Core of the 12th generation and later",
        "alderlake",
        "vpdpbusd-256",
        _X86_V3 | {"avx_vnni", "gfni", "vaes", "vpclmulqdq"},
        _limits(76.8, 4.9, 32, 128),
    ),
    # Core i7-4770: 2 channels DDR3-1600, two 256-bit FMA units, 3.4 GHz; one multiplier for bytes, used twice.
    _x86(
        "x86-64-v3",
        "AVX2, as Intel since Haswell (2013) and AMD since Zen (2017)",
        "x86-64-v3",
        "pmaddubsw-256",
        _X86_V3,
        _limits(25.6, 3.4, 32, 32),
    ),
    # Core i7-860: 2 channels DDR3-1333, a 128-bit multiplier and an adder, 2.8 GHz; three instructions for 16 products.
    _x86(
        "x86-64-v2",
        "SSE4.2, no AVX: the safe baseline, as Intel since 2008 and every Atom since 2013",
        "x86-64-v2",
        "pmaddubsw-128",
        _X86_V2,
        _limits(21.3, 2.8, 8, 21),
    ),
)

_ARM_ROWS = (
    # Graviton 4: 12 channels DDR5-5600, four 128-bit units, 2.8 GHz.
    _arm(
        "neoverse-v2",
        "AWS Graviton 4, NVIDIA Grace, and others with 8-bit matrix instructions (i8mm)",
        "neoverse-v2",
        "usdot",
        _DOTPROD | {"i8mm"},
        _limits(537.6, 2.8, 32, 128),
        mattr=(*_NO_SVE, *_NO_SHA3, "-bf16"),
        machines=("Neoverse-V2",),
    ),
    # Graviton 2: 8 channels DDR4-3200, two 128-bit units, 2.5 GHz.
    _arm(
        "neoverse-n1",
        "AWS Graviton 2, Ampere Altra, and others with dot products",
        "neoverse-n1",
        "sdot",
        _DOTPROD,
        _limits(204.8, 2.5, 16, 64),
        machines=("Neoverse-N1",),
    ),
    # RK3588: 64 bits LPDDR4X-4224, two 128-bit units, 2.4 GHz.
    _arm(
        "cortex-a76",
        "Cortex-A76, as in Rockchip RK3588 boards",
        "cortex-a76",
        "sdot",
        _DOTPROD,
        _limits(33.8, 2.4, 16, 64),
        machines=("Cortex-A76",),
    ),
    # Raspberry Pi 5: 32 bits LPDDR4X-4267, two 128-bit units, 2.4 GHz.
    _arm(
        "raspberry-pi-5",
        "Raspberry Pi 5: four Cortex-A76",
        "cortex-a76",
        "sdot",
        _DOTPROD,
        _limits(17.1, 2.4, 16, 64),
        machines=("Raspberry Pi 5", "Raspberry Pi Compute Module 5", "Raspberry Pi 500"),
        cores=4,
    ),
    # Jetson AGX Orin 64 GB: 256 bits LPDDR5-6400, two 128-bit units, 2.2 GHz.
    _arm(
        "cortex-a78",
        "Cortex-A78 and A78AE, as in NVIDIA Jetson Orin",
        "cortex-a78",
        "sdot",
        _DOTPROD,
        _limits(204.8, 2.2, 16, 64),
        machines=("Cortex-A78",),
    ),
    # Snapdragon 888: 64 bits LPDDR5-6400, four 128-bit units, 2.84 GHz.
    _arm(
        "cortex-x1",
        "Cortex-X1, as the large core of phones and laptops of 2021",
        "cortex-x1",
        "sdot",
        _DOTPROD,
        _limits(51.2, 2.84, 32, 128),
        machines=("Cortex-X1",),
    ),
    # Apple M1: 128 bits LPDDR4X-4266, four 128-bit units, 3.2 GHz.
    _arm(
        "apple-m",
        "Apple M1 and later, under Linux",
        "apple-m1",
        "sdot",
        _DOTPROD,
        _limits(68.3, 3.2, 32, 128),
        mattr=_NO_SHA3,
        machines=("Apple ",),
    ),
    # Jetson AGX Xavier: 256 bits LPDDR4X-4266, two 128-bit units, 2.26 GHz; a widening product is one of 8 bytes.
    _arm(
        "carmel",
        "NVIDIA Carmel, as in Jetson Xavier: half floats, no dot products",
        "carmel",
        "smull",
        _NEON_HALF,
        _limits(136.5, 2.26, 16, 32),
        machines=("Carmel",),
    ),
    # Raspberry Pi 3: 32 bits LPDDR2-900, 1.2 GHz.
    _arm(
        "cortex-a53",
        "any 64-bit ARM: the safe baseline, tuned for Cortex-A53",
        "cortex-a53",
        "smull",
        _NEON,
        _limits(3.6, 1.2, 8, 16),
    ),
    # NXP LX2160A: 2 channels DDR4-3200, one 128-bit multiply-add a cycle, 2.0 GHz.
    _arm(
        "cortex-a72",
        "Cortex-A72, as in AWS Graviton 1 and NXP Layerscape",
        "cortex-a72",
        "smull",
        _NEON,
        _limits(51.2, 2.0, 8, 16),
        machines=("Cortex-A72",),
    ),
    # Raspberry Pi 4: 32 bits LPDDR4-3200, 1.5 GHz.
    _arm(
        "raspberry-pi-4",
        "Raspberry Pi 4 and 400: four Cortex-A72",
        "cortex-a72",
        "smull",
        _NEON,
        _limits(12.8, 1.5, 8, 16),
        machines=("Raspberry Pi 4", "Raspberry Pi Compute Module 4"),
        cores=4,
    ),
)

CPU_TARGETS = (*_X86_ROWS, *_ARM_ROWS)
# Every machine of the architecture that the product supports runs these.
BASELINES = {"x86_64": "x86-64-v2", "aarch64": "cortex-a53"}
