"""Searches the tiling that is fastest on this machine within a budget of seconds, and keeps it where it is a gain.

Half of the budget goes to the kernel that multiplies rows, of which a candidate takes a second or two; then whole artefacts
are compiled, of the best found and with other counts of query heads. What wins is measured once more against the default.
Candidates are built in a folder of the store that becomes the tuning's entry at the end: a search that is stopped, or
killed, leaves nothing that the store does not clear away.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from compiler.build import artefact_key, ensure_row_artefact
from compiler.errors import BuildError
from compiler.models.spec import ArchitectureDims
from compiler.quantisation import find_quantisation
from compiler.targets.choice import detect_local_target, find_cpu_target
from compiler.targets.row import CpuTarget
from compiler.tunings import building_tuning, write_tuning
from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.requests import print_json
from mec_apps.cli.tune.candidates import Comparison, query_changes, row_changes
from mec_apps.cli.tune.trial import RowsTrial, WholeTrial, run_pairs
from mec_apps.split_inference.node.cores import available_cores
from mec_platform.content_store.entries import ARTEFACTS, read_manifest
from mec_platform.content_store.store import ContentStore

_ROWS_SHARE, _WHOLE_SHARE = 0.5, 0.8

Show = Callable[[str, int], None]
"""Learns of the best so far, and how many candidates were tried."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search has come to. `artefact` is the winner's, or the default's where nothing was faster."""

    target: str
    threads: int
    candidates: int
    seconds: float
    default: dict[str, Any]
    winner: dict[str, Any] | None
    gain: float
    noise: float
    artefact: Path


def tune_and_show(
    model: str, quantisation: str, target: str | None, budget_s: float, threads: int | None, as_json: bool
) -> None:
    """Tunes, and says what came of it: a gain, or none."""
    found = tune(model, quantisation, target, budget_s, threads or available_cores())
    if as_json:
        print_json({**asdict(found), "artefact": str(found.artefact)})
        return
    click.echo(f"{found.candidates} candidates in {found.seconds:.0f} s on {found.threads} threads")
    click.echo(f"default   {found.default}")
    if found.winner is None:
        click.echo("no gain: nothing was faster than the default beyond the noise; nothing is kept")
    else:
        click.echo(f"winner    {found.winner}")
        click.echo(
            f"gain      x{found.gain:.3f} over the default (noise {found.noise:.1%}), measured again in turns; "
            "mec compile takes it from now on"
        )
    click.echo(f"artefact  {found.artefact}")


def tune(model: str, quantisation: str, target: str | None, budget_s: float, threads: int) -> Tuned:
    """Tunes the target (this machine's where None) for a model on `threads` threads; the winner is kept.

    Raises:
        TargetError: not a CPU's. ArtefactError: this machine cannot run the target.
    """
    row = find_cpu_target(target or detect_local_target())
    package = ensure_compiled(model, quantisation, row.name).package
    manifest = read_manifest(package) or {}
    dims, chosen, store = ArchitectureDims(**manifest["dims"]), str(manifest["quantisation"]), ContentStore()
    default, _ = ensure_row_artefact(dims, chosen, row, store, _silent)
    try:
        with building_tuning(row, dims, chosen, store) as fresh, _progress_bar(row.name, budget_s) as show:
            workshop = fresh / "workshop"
            search = _Search(row, dims, chosen, package, default, ContentStore(workshop), threads, budget_s, show)
            winner, artefact = search.run()
            confirmed = search.confirm(artefact) if winner is not None else Comparison(1.0, 0.0)
            if winner is None or not confirmed.is_faster:
                raise _NoGain(search.outcome(None, confirmed, default))
            key = artefact_key(dims, chosen, winner)

            def copy(entry: Path) -> None:
                shutil.copytree(artefact, entry, dirs_exist_ok=True)

            store.ensure(ARTEFACTS, key, copy)
            shutil.rmtree(workshop)
            write_tuning(fresh, row, winner, chosen, confirmed.gain)
            return search.outcome(winner, confirmed, store.folder(ARTEFACTS, key))
    except _NoGain as none:
        return none.outcome


class _NoGain(Exception):
    """Ends a search whose folder is not to be kept."""

    def __init__(self, outcome: Tuned) -> None:
        super().__init__("no gain")
        self.outcome = outcome


class _Search:
    """One search: its clock starts when it is made."""

    def __init__(
        self,
        row: CpuTarget,
        dims: ArchitectureDims,
        quantisation: str,
        package: Path,
        default: Path,
        workshop: ContentStore,
        threads: int,
        budget_s: float,
        show: Show,
    ) -> None:
        self._row, self._dims, self._quantisation = row, dims, quantisation
        self._default, self._workshop, self._threads = default, workshop, threads
        self._budget_s, self._show = budget_s, show
        self._started = time.monotonic()
        self._tried = 0
        self._whole = WholeTrial(package, threads)
        self._default_cases = self._whole.cases(default)

    def run(self) -> tuple[CpuTarget | None, Path]:
        """The fastest row found and its artefact; no row where nothing beats the default."""
        return self._search_whole(self._search_rows())

    def confirm(self, artefact: Path) -> Comparison:
        """The winner against the default once more, in many pairs."""
        return run_pairs(self._default_cases, self._whole.cases(artefact), is_last=True)

    def outcome(self, winner: CpuTarget | None, found: Comparison, artefact: Path) -> Tuned:
        """What is said of the search."""
        return Tuned(
            target=self._row.name,
            threads=self._threads,
            candidates=self._tried,
            seconds=round(time.monotonic() - self._started, 1),
            default=self._row.tiling(),
            winner=None if winner is None else winner.tiling(),
            gain=round(found.gain, 4),
            noise=round(found.noise, 4),
            artefact=artefact,
        )

    def _has_time(self, share: float) -> bool:
        return time.monotonic() - self._started < share * self._budget_s

    def _search_rows(self) -> CpuTarget:
        scheme = find_quantisation(self._quantisation)
        trial = RowsTrial(self._dims, scheme, self._threads)
        best, cases = self._row, trial.cases(self._row)
        gain = 1.0
        for change in row_changes(self._row, not scheme.is_float):
            if not self._has_time(_ROWS_SHARE):
                break
            candidate = change(best)
            new = trial.cases(candidate)
            found = run_pairs(cases, new)
            self._tried += 1
            if found.is_faster:
                best, cases, gain = candidate, new, gain * found.gain
            self._show(f"best x{gain:.3f} (rows alone) {_describe(best, self._row)}", self._tried)
        return best

    def _search_whole(self, best: CpuTarget) -> tuple[CpuTarget | None, Path]:
        winner, artefact, gain = None, self._default, 1.0
        first = () if best == self._row else (best,)
        for candidate in (*first, *query_changes(best)):
            if not self._has_time(_WHOLE_SHARE):
                break
            try:
                folder, _ = ensure_row_artefact(self._dims, self._quantisation, candidate, self._workshop, _silent)
            except BuildError:
                continue  # a tiling that the linker or LLVM refuses is no candidate
            found = run_pairs(self._default_cases, self._whole.cases(folder))
            self._tried += 1
            if found.is_faster and found.gain > gain:
                winner, artefact, gain = candidate, folder, found.gain
            shown = "no gain yet" if winner is None else f"best x{gain:.3f} {_describe(winner, self._row)}"
            self._show(shown, self._tried)
        return winner, artefact


def _describe(row: CpuTarget, default: CpuTarget) -> str:
    """What differs from the default."""
    changed = {name: value for name, value in row.tiling().items() if value != default.tiling()[name]}
    return ", ".join(f"{name} {value}" for name, value in changed.items()) or "the default"


@contextmanager
def _progress_bar(target: str, budget_s: float) -> Iterator[Show]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"tuning {target}", total=budget_s)

        def show(best: str, tried: int) -> None:
            spent = min(time.monotonic() - started, budget_s)
            bar.update(task, completed=spent, description=f"tuning {target}: {tried} tried, {best}")

        yield show
        bar.update(task, completed=budget_s)


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass
