"""What all commands that draw ask before a long run: whether they will be able to."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mec_apps.cli.requests import CliError


def check_figure(path: Path | None) -> None:
    """Raises CliError where a figure is wanted that could not be drawn: nobody should learn that only after the run."""
    if path is None:
        return
    if path.suffix not in (".png", ".svg"):
        raise CliError(f"--figure {path}: write a name that ends in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise CliError(f"--figure {path}: there is no folder {path.parent}; make it first")
    if find_spec("matplotlib") is None:
        raise CliError('--figure needs matplotlib; install it with: pip install "mec-platform[plots]"')
