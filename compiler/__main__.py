"""`python -m compiler`: compiles a model and prints the two folders that a node loads."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from compiler.build import CompiledModel, compile_model
from compiler.errors import CompilerError
from compiler.quantisation import AUTO, QUANTISATIONS
from compiler.targets.choice import TARGETS
from mec_platform.domain.errors import MendableError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m compiler",
        description="Compile a model for a hardware target; finished parts come from the cache.",
        epilog="example: python -m compiler --model smollm2 --quantisation auto --target x86-64-v3 --json",
    )
    parser.add_argument("--model", default="smollm2", help="'smollm2', a .gguf file, or a Hugging Face folder")
    parser.add_argument("--quantisation", default=AUTO, choices=[AUTO, *(row.name for row in QUANTISATIONS)])
    parser.add_argument("--target", help=f"one of {', '.join(row.name for row in TARGETS)}; this machine's by default")
    parser.add_argument("--cache", type=Path, help="folder of the cache (default: $MEC_CACHE or ~/.cache/mec)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _compile_with_progress(args: argparse.Namespace) -> CompiledModel:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        return compile_model(args.model, args.quantisation, args.target, args.cache, show)


def main() -> int:
    """Exit code 1 and one line on stderr where the model cannot be compiled."""
    args = _parser().parse_args()
    try:
        compiled = _compile_with_progress(args)
    except (CompilerError, MendableError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    folders = {"package": str(compiled.package_dir), "artefact": str(compiled.artefact_dir)}
    if args.json:
        sys.stdout.write(json.dumps({**folders, "built": compiled.was_built}) + "\n")
    else:
        sys.stdout.write("\n".join(folders.values()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
