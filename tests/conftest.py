"""Fixtures that several folders share. The compiled default model comes from the user's cache where it is there."""

from __future__ import annotations

import pytest

from compiler.build import CompiledModel, compile_model


@pytest.fixture(scope="session")
def compiled_model_dirs() -> CompiledModel:
    """Package and artefact of the default model, int4, for this machine."""
    return compile_model("smollm2", "int4")
