"""`mec models`: what the content store holds of models; list, inspect, import, remove."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from mec_apps.cli.compile import quantisation_option, run_compiler
from mec_apps.cli.requests import CliError, json_option, print_json
from mec_apps.cli.stored_models import (
    StoredModel,
    entries_only_of,
    latest_builds,
    models_called,
    names_of,
    read_models,
)
from mec_platform.content_store.entries import MODELS, NAMES
from mec_platform.content_store.partial_weights import PartialWeights
from mec_platform.content_store.store import ContentStore
from mec_platform.content_store.weights import WEIGHTS, ManifestError, hash_part, weight_parts


@click.group(invoke_without_command=True, epilog="Example: mec models inspect smollm2")
@json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """The compiled models in the content store (default: list them).

    The store keeps 20 GB ($MEC_CACHE_LIMIT, as in 500MiB or none): what was not used for longest makes room, never what is
    in use.
    """
    if context.invoked_subcommand is None:
        _list(show_all=False, as_json=as_json)


@models.command("list", epilog="Example: mec models list --json")
@click.option("--all", "show_all", is_flag=True, help="Also builds of earlier releases and files.")
@json_option
def list_command(show_all: bool, as_json: bool) -> None:
    """List packages with their artefacts per target, sizes, and last use (to the hour, UTC); with --json all of them."""
    _list(show_all, as_json)


@models.command(epilog="Example: mec models inspect smollm2 --json")
@click.argument("name")
@json_option
def inspect(name: str, as_json: bool) -> None:
    """Show a model's packages and verify every byte of them. NAME is a model's name or the start of a package's key."""
    store = ContentStore()
    reports = [_inspect(model) for model in _find(store, name)[0]]
    if as_json:
        print_json(reports)
        return
    for report in reports:
        for key, value in report.items():
            if key not in ("artefacts", "missing", "damaged"):
                click.echo(f"{key:16} {value}")
        for key in ("missing", "damaged"):
            click.echo(f"{key:16} {', '.join(report[key]) or 'nothing'}")
        for artefact in report["artefacts"]:
            click.echo(f"artefact         {artefact['target']}  {_size(artefact)}  {artefact['artefact']}")


@models.command("import", epilog="Example: mec models import ~/models/mistral-7b.Q4_0.gguf --name mistral")
@click.argument("source", metavar="FILE_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--name", help="What to call it from now on, with --model (default: the file's name).")
@quantisation_option
@json_option
def import_command(source: Path, name: str | None, quantisation: str, as_json: bool) -> None:
    """Package a .gguf file or a Hugging Face folder, and keep it under a name that --model takes."""
    called = name or (source.resolve().name if source.is_dir() else source.stem)
    facts, code = run_compiler(["--model", str(source), "--quantisation", quantisation, "--import-as", called])
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{facts['name']}  {facts['quantisation']}  {facts['package']}")
        click.echo(f"next: mec compile --model {facts['name']}")
    raise click.exceptions.Exit(code)


@models.command(epilog="Example: mec models remove mistral --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove(name: str, yes: bool, as_json: bool) -> None:
    """Remove a model's packages, the artefacts that only they need, and its imported name. Refused while in use."""
    store = ContentStore()
    found, everything = _find(store, name)
    entries = entries_only_of(found, everything)
    size = sum(entry.bytes_on_disk for entry in entries) / 1e6
    in_use = [f"{entry.kind}/{entry.key}" for entry in entries if entry.is_in_use]
    if in_use:
        raise CliError(
            f"{name} is in use ({', '.join(in_use)}); stop the nodes and gateways that run it, and try again"
        )
    if not yes:
        click.confirm(
            f"remove {len(found)} packages and {len(entries) - len(found)} artefacts, {size:.0f} MB?", abort=True
        )
    for _, key in list(names_of(store, {model.entry.key for model in found})):
        store.remove(NAMES, key)
    for entry in entries:
        store.remove(entry.kind, entry.key)
    removed = [f"{entry.kind}/{entry.key}" for entry in entries]
    if as_json:
        print_json({"removed": removed, "bytes": sum(entry.bytes_on_disk for entry in entries)})
    else:
        click.echo(f"removed {len(removed)} entries, {size:.0f} MB")


def _list(show_all: bool, as_json: bool) -> None:
    found, damaged = read_models(ContentStore())
    for folder in damaged:
        click.echo(f"{folder} is damaged; delete the folder, mec compile makes it again", err=True)
    if as_json:
        print_json([model.facts() for model in found])
        return
    if not found:
        click.echo("no compiled model in the cache; run: mec compile")
    shown, left_out = (found, 0) if show_all else latest_builds(found)
    for model in shown:
        facts = model.facts()
        part = "" if facts["is_whole"] else "  in part"
        click.echo(
            f"{facts['name']}  {facts['quantisation']}  {facts['blocks']} blocks  {_size(facts)}{part}  "
            f"{_use(facts)}  {facts['package']}"
        )
        for artefact in facts["artefacts"]:
            click.echo(f"  {artefact['target']}  {_size(artefact)}  {_use(artefact)}  {artefact['artefact']}")
    if left_out:
        click.echo(
            f"and {left_out} entries of earlier builds, which make room in time; mec models list --all shows them"
        )


def _find(store: ContentStore, name: str) -> tuple[list[StoredModel], list[StoredModel]]:
    """Packages of that name, and all of them. Raises CliError where there is none."""
    everything, _ = read_models(store)
    found = models_called(everything, name)
    if not found:
        known = ", ".join(sorted({model.name for model in everything})) or "none"
        raise CliError(f"no model '{name}' in {store.root}; there are: {known}")
    return found, everything


def _inspect(model: StoredModel) -> dict[str, Any]:
    """Facts of a package, and which parts of its weights are missing or not what they were."""
    try:
        parts = weight_parts(model.manifest)
    except ManifestError as error:
        return {**model.facts(), "interface": model.manifest.get("interface"), "missing": [], "damaged": [str(error)]}
    folder = model.entry.folder
    present = set(parts) if model.entry.kind == MODELS else PartialWeights(folder, model.manifest).whole_parts()
    damaged = []
    with _bar(f"verifying {model.name}", sum(parts[name].size for name in present)) as advance:
        for name in parts:
            if name in present:
                if hash_part(folder / WEIGHTS, parts[name]) != parts[name].sha256:
                    damaged.append(name)
                advance(parts[name].size)
    missing = [name for name in parts if name not in present]
    return {**model.facts(), "interface": model.manifest["interface"], "missing": missing, "damaged": damaged}


@contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)


def _size(facts: dict[str, Any]) -> str:
    return f"{facts['bytes_on_disk'] / 1e6:.1f} MB"


def _use(facts: dict[str, Any]) -> str:
    return "in use" if facts["in_use"] else f"used {facts['used_at'].removesuffix('+00:00')}"
