"""`python -m compiler`: compiles a model for one or more targets, or imports it, and says what lies where."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from compiler.build import CompiledTargets, Report, compile_targets, ensure_model_package, find_compiled
from compiler.imported import check_name, record_import
from compiler.models.locate import find_model_file
from compiler.quantisation import AUTO, QUANTISATIONS
from compiler.targets.choice import TARGETS
from compiler.targets.gpu import SIMULATED_GPU
from mec_platform.content_store.entries import read_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.errors import MendableError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m compiler",
        description="Compile a model for hardware targets; finished parts come from the cache.",
        epilog="example: python -m compiler --model smollm2 --quantisation auto --target x86-64-v3 --json",
    )
    parser.add_argument(
        "--model",
        default="smollm2",
        help="'smollm2', an imported name, a .gguf file, a Hugging Face folder, or a .pt2 file",
    )
    parser.add_argument("--quantisation", default=AUTO, choices=[AUTO, *(row.name for row in QUANTISATIONS)])
    names = ", ".join(row.name for row in TARGETS)
    parser.add_argument(
        "--target", action="append", default=[], help=f"one of {names}; repeatable; this machine's by default"
    )
    parser.add_argument("--all-targets", action="store_true", help="every target whose tools are installed here")
    parser.add_argument(
        "--import-as", metavar="NAME", help="only make the model's package, and keep it under this name"
    )
    parser.add_argument("--find", action="store_true", help="only say what the cache has; builds nothing")
    parser.add_argument("--cache", type=Path, help="folder of the cache (default: $MEC_CACHE or ~/.cache/mec)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


@contextmanager
def _progress_bars() -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def _compile(args: argparse.Namespace, store: ContentStore) -> int:
    """Exit code 1 where a target that was asked for failed; of all targets, where none came out."""
    names = [row.name for row in TARGETS if row is not SIMULATED_GPU] if args.all_targets else args.target
    with _progress_bars() as show:
        compiled = compile_targets(args.model, args.quantisation, names, store, show)
    failed = [outcome for outcome in compiled.targets if outcome.failure is not None]
    for outcome in failed:
        word = "skipped" if args.all_targets else "error"
        sys.stderr.write(f"{word}: {outcome.target}: {outcome.failure}\n")
    facts = _facts(compiled)
    if args.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        folders = [facts["package"], *(target["artefact"] for target in facts["targets"] if target["artefact"])]
        sys.stdout.write("\n".join(folders) + "\n")
    return int(len(failed) == len(compiled.targets) if args.all_targets else bool(failed))


def _facts(compiled: CompiledTargets) -> dict[str, Any]:
    first = next((each.artefact_dir for each in compiled.targets if each.artefact_dir is not None), None)
    return {
        "package": str(compiled.package_dir),
        "artefact": None if first is None else str(first),
        "built": compiled.package_was_built or any(each.was_built for each in compiled.targets),
        "targets": [
            {
                "target": each.target,
                "artefact": None if each.artefact_dir is None else str(each.artefact_dir),
                "built": each.was_built,
                "error": None if each.failure is None else str(each.failure),
            }
            for each in compiled.targets
        ],
    }


def _import(args: argparse.Namespace, store: ContentStore) -> int:
    check_name(args.import_as)
    source = find_model_file(args.model).resolve()
    with _progress_bars() as show:
        folder, built = ensure_model_package(str(source), args.quantisation, store, show, args.import_as)
    quantisation = (read_manifest(folder) or {})["quantisation"]
    record_import(args.import_as, source, quantisation, folder.name, store)
    facts = {"name": args.import_as, "package": str(folder), "quantisation": quantisation, "built": built}
    sys.stdout.write((json.dumps(facts) if args.json else str(folder)) + "\n")
    return 0


def main() -> int:
    """Exit code 1 and one line on stderr where the model cannot be compiled."""
    args = _parser().parse_args()
    try:
        store = ContentStore(args.cache)
        if args.find:
            found = find_compiled(args.model, args.quantisation, next(iter(args.target), None), store)
            sys.stdout.write(json.dumps(found) + "\n")
            return 0
        return _compile(args, store) if args.import_as is None else _import(args, store)
    except (MendableError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
