"""The wrong artefact on the wrong node: every reason is one line that names both sides and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mec_apps.split_inference.node.artefact_check import (
    ArtefactError,
    ArtefactFacts,
    MachineFacts,
    PackageFacts,
    check_artefact,
    check_library,
    read_artefact_facts,
)
from mec_apps.split_inference.node.machine import read_machine
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS

MACHINE = MachineFacts(
    "edge-1", "aarch64", "linux-gnu", "Cortex-A76", frozenset({"asimd", "asimddp"}), "cortex-a76", "0.27.0.post1"
)
PACKAGE = PackageFacts("smollm2", "int4", "abc")
MANIFEST: dict[str, Any] = {
    "kind": "artefact",
    "target": "cortex-a76",
    "arch": "aarch64",
    "system": "linux-gnu",
    "features": ["asimd"],
    "kernel_version": KERNEL_VERSION,
    "page_tokens": PAGE_TOKENS,
    "tvm": "0.27.0.post1",
    "interface": "abc",
    "quantisation": "int4",
    "functions": {},
    "regions": [],
    "files": {"lib.so": {"bytes": 5, "sha256": "f" * 64}},
}


def facts(**changes: Any) -> ArtefactFacts:
    return read_artefact_facts("k1", MANIFEST | changes)


def refusal(artefact: ArtefactFacts, machine: MachineFacts = MACHINE, package: PackageFacts = PACKAGE) -> str:
    with pytest.raises(ArtefactError) as caught:
        check_artefact(artefact, machine, package)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_artefact_that_fits_is_taken() -> None:
    check_artefact(facts(), MACHINE, PACKAGE)


def test_missing_features_are_named_with_both_sides() -> None:
    wanting = facts(target="neoverse-v2", features=["asimd", "i8mm"])
    assert refusal(wanting) == (
        "artefact k1 was compiled for neoverse-v2 (aarch64); edge-1 is cortex-a76 (aarch64) and lacks i8mm; "
        "compile with: mec compile --target cortex-a76"
    )


def test_a_machine_without_a_target_is_named_by_its_cpu() -> None:
    said = refusal(facts(features=["sve"]), replace(MACHINE, target=""))
    assert said.endswith("edge-1 is Cortex-A76 (aarch64) and lacks sve; run on it: mec compile")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "x86_64"}, ["(x86_64)", "edge-1 is cortex-a76 (aarch64)", "--target cortex-a76"]),
        ({"system": "windows-msvc"}, ["on windows-msvc", "on linux-gnu"]),
        ({"gpu": "8.7"}, ["GPU sm_87", "has no GPU that can be used"]),
        (
            {"kernel_version": KERNEL_VERSION + 1},
            [f"kernel version {KERNEL_VERSION + 1}", "edge-1 calls kernel version"],
        ),
        ({"page_tokens": 32}, ["32 tokens a page", f"({PAGE_TOKENS})"]),
        ({"tvm": "0.28.1"}, ["TVM 0.28.1", "runtime 0.27.0.post1", "pip install apache-tvm==0.28.1"]),
        ({"interface": "xyz"}, ["interface xyz", "package of smollm2", "has abc"]),
    ],
)
def test_every_other_difference_is_named_with_both_sides(changes: dict[str, Any], words: list[str]) -> None:
    said = refusal(facts(**changes))
    assert said.startswith("artefact k1 was compiled for cortex-a76")
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("gpus", "runs"),
    [(("8.6",), True), (("8.7",), True), (("8.0",), False), (("9.0",), False), (("7.5", "8.9"), True), ((), False)],
)
def test_machine_code_runs_on_its_own_generation_from_its_revision_on(gpus: tuple[str, ...], runs: bool) -> None:
    machine = replace(MACHINE, gpus=gpus)
    if runs:
        check_artefact(facts(gpu="8.6"), machine, PACKAGE)
    else:
        assert "GPU sm_86" in refusal(facts(gpu="8.6"), machine)


def test_a_runtime_of_the_same_minor_release_is_taken() -> None:
    check_artefact(facts(tvm="0.27.3"), MACHINE, PACKAGE)


@pytest.mark.parametrize("lost", sorted(MANIFEST.keys() - {"kind"}))
def test_a_manifest_that_says_less_is_refused(lost: str) -> None:
    with pytest.raises(ArtefactError, match=f"damaged or from another release .it lacks {lost}"):
        read_artefact_facts("k1", {name: value for name, value in MANIFEST.items() if name != lost})


@pytest.mark.parametrize("changes", [{"files": []}, {"features": 5}, {"kernel_version": "one"}, {"kind": "models"}])
def test_a_manifest_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match="run: mec compile"):
        facts(**changes)


@pytest.mark.parametrize(
    ("elf_machine", "size", "sha256", "words"),
    [
        (183, 4, "f" * 64, "has 4 bytes, not 5"),
        (62, 5, "f" * 64, "compiled for aarch64, but its library is x86_64"),
        (999, 5, "f" * 64, "ELF machine 999"),
        (None, 5, "f" * 64, "no ELF library"),
        (183, 5, "0" * 64, "has the hash 0{16}, its manifest says f{16}"),
    ],
)
def test_a_library_that_is_not_the_manifests_is_refused(
    elf_machine: int | None, size: int, sha256: str, words: str
) -> None:
    with pytest.raises(ArtefactError, match=words):
        check_library(facts(), elf_machine, size, sha256)
    check_library(facts(), 183, 5, "f" * 64)


def test_this_machine_is_described() -> None:
    machine = read_machine("edge-1")
    assert machine.system == "linux-gnu"
    assert machine.features
    assert machine.tvm.startswith("0.")
