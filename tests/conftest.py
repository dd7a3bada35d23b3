"""Fixtures that several folders share. The compiled default model comes from the user's cache where it is there."""

from __future__ import annotations

import pytest
from hypothesis import settings

from compiler.build import CompiledModel, compile_model

# A deadline is a wall clock, and machines that run tests are busy.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

# Marker: why its tests run only where `-m` names it.
OPT_IN = {
    "arm": "runs nodes of another machine under an emulator; run deploy/arm_sandbox.sh DIR as root, then: "
    "MEC_ARM_SANDBOX=DIR pytest -m arm",
    "cuda_compile": "compiles GPU kernels in all their forms, some minutes; run: pytest -m cuda_compile",
    "thorough": "more cases of what is tested by an example; run: pytest -m thorough",
    "gpu": "runs on an NVIDIA GPU; run: pytest -m gpu tests/hardware",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what has to be asked for. What takes minutes begins first, so that all else runs beside it.

    What may take as long as it is told to has deadlines of its own.
    """
    asked = config.getoption("-m")
    items.sort(key=lambda item: item.get_closest_marker("soak") is None)
    for item in items:
        for marker, reason in OPT_IN.items():
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("soak") or item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def compiled_model_dirs() -> CompiledModel:
    """Package and artefact of the default model, int4, for this machine."""
    return compile_model("smollm2", "int4")
