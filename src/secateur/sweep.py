"""Criteria x budgets x seeds, or scopes x ratios x seeds: every cell a run folder of its own, one record of them all.

Several processes may work on one sweep: each takes the next cell that nobody holds.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from filelock import FileLock, Timeout

from secateur import measures, pipeline
from secateur.cells import Cell, Kind, plan_cells
from secateur.cost.macs import count_macs, count_params
from secateur.errors import CheckError, InputError, SecateurError
from secateur.measures import set_label
from secateur.ratio_cells import plan_ratio_cells
from secateur.recipes.recipe import Recipe, read_recipe
from secateur.records import Record, read_record, write_record
from secateur.report.sweeps.page import sweep_markdown, write_sweep_page
from secateur.session import Session, decisive, task_of
from secateur.store.networks import load
from secateur.store.runs import RunFolder, surroundings
from secateur.tasks.task import Task

RECORD = "sweep.json"
_BENCH = "bench.json"
_FRAMES = "frames.json"
_POLL = 2.0  # seconds between looks at what other processes hold
_OVERHEAD = 3  # scoring, reading and evaluating take about as long as so many epochs


@dataclass(frozen=True)
class _Sweep:
    """What stays the same while a sweep runs."""

    recipe: Recipe
    cells: tuple[Cell, ...]
    out: Path
    session: Session
    started: float  # seconds since the epoch

    def say(self, text: str) -> None:
        if self.session.console is not None:
            self.session.console.print(text, highlight=False, soft_wrap=True)


def sweep(recipe: Recipe, out: Path, session: Session) -> Record:
    """Run every cell that ``recipe`` asks for and is not done yet, then measure latency, and write record and page.

    The cells are those of ``recipe.ratios`` where it is given, of ``recipe.sweep`` otherwise.

    A cell that fails is recorded and shown, and the others go on; it is tried again by the next call.

    Raises:
        InputError: the folder exists and ``session`` does not resume, or it holds a sweep of other settings; or cuts
            over budgets are to be compared for another task than polyps.
        CheckError: a cell failed; record and page are written.
    """
    cells = _plan(recipe)
    _begin(recipe, cells, out, session)
    job = _Sweep(recipe, cells, out, replace(session, resume=True, overwrite=False), time.time())
    try:
        _run_cells(job)
        _measure(job)
    finally:
        record = collect(recipe, job.cells, out, session.command)
        write_record(out / RECORD, record)
        write_sweep_page(record, out / "report.html", command=session.command)
    failed = [cell["name"] for cell in record["cells"] if cell["status"] == "failed"]
    if failed:
        raise CheckError(
            f"{len(failed)} of {len(job.cells)} cells failed: {', '.join(failed)}; {out / 'report.html'} says why. "
            f"Run the command again with --resume to try them once more."
        )
    return record


def report_sweep(folder: Path, out: Path, session: Session) -> Path:
    """Write the page about the sweep in ``folder`` from its record alone."""
    return write_sweep_page(read_record(folder / RECORD), out, command=session.command)


def sweep_tables(folder: Path) -> str:
    """The tables of the sweep in ``folder`` as Markdown."""
    return sweep_markdown(read_record(folder / RECORD))


def collect(recipe: Recipe, cells: Sequence[Cell], out: Path, command: list[str]) -> Record:
    """The record of a sweep as far as it has come: recipe, sets, cells, latency. `write_sweep_page` shows it."""
    found = {cell.name: _read_cell(out, cell) for cell in cells}
    sources = _sets(recipe)
    ids: Record = next((entry["ids"] for entry in found.values() if entry and entry["ids"]), {})
    waiting = {"status": "waiting", "error": None, "seconds": None}
    entries = [found[cell.name] or {**cell.record(), **waiting} for cell in cells]
    return {
        "name": out.resolve().name,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
        "synthetic": recipe.data.synthetic,
        "recipe": recipe.model_dump(mode="json"),
        "sets": {
            label: {"source": Path(source or recipe.data.source).name, "split": "test", "ids": ids[label]}
            for label, source in sources.items()
            if label in ids
        },
        "cells": [{key: value for key, value in entry.items() if key not in ("schema", "ids")} for entry in entries],
        "bench": _optional(out / _BENCH),
        "frames": _optional(out / _FRAMES),
    }


def _plan(recipe: Recipe) -> tuple[Cell, ...]:
    if recipe.ratios is not None and recipe.task != "nuclei":
        raise InputError(
            f"a sweep over ratios compares the mask, the distances and the nuclei of task 'nuclei', not of "
            f"{recipe.task!r}; leave ratios out of the recipe, or cut single runs with `secateur prune`."
        )
    if recipe.ratios is not None:
        return plan_ratio_cells(recipe, recipe.ratios)
    if recipe.task != "polyp":
        raise InputError(
            f"a sweep over budgets compares the Dice and the lost polyps of task 'polyp', not of {recipe.task!r}; give "
            f"the recipe ratios instead, as nuclei-study does: their structured_keep_ratios are budgets too."
        )
    return plan_cells(recipe)


def _begin(recipe: Recipe, cells: Sequence[Cell], out: Path, session: Session) -> None:
    """Make the folder, or check that it holds a sweep that this recipe goes on with, before anything is written."""
    written = out / "recipe.yaml"
    taken = out.exists() and any(not entry.name.endswith(".part") for entry in out.iterdir())
    if taken and not session.resume and not session.overwrite:
        raise InputError(f"{out} exists; give another --out, --resume to go on, or --overwrite to begin again.")
    if taken and (not written.is_file() or (out / "run.json").exists()):
        raise InputError(f"{out} is not the folder of a sweep, so it is left as it is; give another --out.")
    if taken and session.overwrite:
        shutil.rmtree(out)
    for cell in cells:
        _read_cell(out, cell)
    recipe.write(written)


def _run_cells(job: _Sweep) -> None:
    """Take cells in their order until none is left that could be run; wait for those that others hold."""
    while True:
        status = {cell.name: _status(job, cell) for cell in job.cells}
        ready = [
            cell
            for cell in job.cells
            if status[cell.name] == "waiting" and (cell.needs is None or status[cell.needs] == "done")
        ]
        if not ready:
            return
        for cell in ready:
            with _held(job.out, cell.name) as mine:
                if mine and _status(job, cell) == "waiting":
                    _announce(job, cell)
                    _run_cell(job, cell)
                    break
        else:
            time.sleep(_POLL)


def _run_cell(job: _Sweep, cell: Cell) -> None:
    began = time.perf_counter()
    try:
        findings = _make(job, cell)
    except Exception as error:  # whatever a cell dies of, the others go on and the page shows it
        known = isinstance(error, SecateurError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        findings = {"status": "failed", "error": " ".join(text.split()), "ids": {}}
        job.say(f"{cell.name} failed: {findings['error']}")
    # A cell that was resumed trained in earlier processes too.
    seconds = max(time.perf_counter() - began, findings.pop("training_seconds", 0.0))
    write_record(_record_path(job.out, cell), {**cell.record(), **findings, "seconds": seconds})


def _make(job: _Sweep, cell: Cell) -> Record:
    """Train or cut the cell's network, and measure it on every set."""
    path = job.out / cell.name
    task = task_of(cell.recipe)
    cut_from_dense = cell.kind in (Kind.PRUNED, Kind.SPARSE)
    if cut_from_dense:
        cut_as = pipeline.prune if cell.kind is Kind.PRUNED else pipeline.sparsify
        run = cut_as(RunFolder(job.out / str(cell.needs)), cell.recipe, path, job.session)
    else:
        shape = RunFolder(job.out / cell.needs) if cell.needs else None
        run = pipeline.train(cell.recipe, path, job.session, shape_of=shape)
    sets = _sets(job.recipe)
    records = {label: _evaluate(job, run, cell, source) for label, source in sets.items()}
    cut, rounds = None, {}
    if cut_from_dense:
        key = f"val_{task.score}_before"
        rounds = {key: read_record(path / "prune.json")["rounds"][-1][key]}
        if not cell.recovered:
            before = records
        elif job.recipe.ratios is None or job.recipe.ratios.before_recovery:
            before = {label: _evaluate(job, run, cell, source, before_recovery=True) for label, source in sets.items()}
        else:
            before = {}
        cut = {label: _compact(record, task) for label, record in before.items()}
    model, side = load(path), cell.recipe.data.size
    return {
        "status": "done",
        "error": None,
        "macs": count_macs(model, torch.zeros(1, 3, side, side)),
        "params": count_params(model),
        **_sparsity(cell, path),
        "epochs": cell.epochs,
        "training_seconds": run.run["training"]["seconds"],
        f"best_val_{task.score}": run.run["training"][f"best_val_{task.score}"],
        **rounds,
        "ids": {label: [case["id"] for case in record["cases"]] for label, record in records.items()},
        "evaluations": {label: _compact(record, task) for label, record in records.items()},
        "before_recovery": cut,
    }


def _sparsity(cell: Cell, path: Path) -> Record:
    """Of a sparse network: what is left where, what died, and what it takes on disk."""
    if cell.kind is not Kind.SPARSE:
        return {}
    pruned = read_record(path / "prune.json")
    return {"sparsity": {key: pruned[key] for key in ("reached", "masks", "sizes", "warnings")}}


def _evaluate(job: _Sweep, run: RunFolder, cell: Cell, source: str | None, *, before_recovery: bool = False) -> Record:
    return measures.evaluate(
        run,
        job.session,
        source=source,
        before_recovery=before_recovery,
        keep_predictions=cell.kind is Kind.DENSE,
    )


def _compact(evaluation: Record, task: Task) -> Record:
    """What comparisons pair, case by case, and the summary of everything else."""
    cases = evaluation["cases"]
    paired = {name: [case[name] for case in cases] for name in task.paired}
    summaries = {key: value for key, value in evaluation.items() if isinstance(value, dict)}
    return {**paired, **summaries}


def _measure(job: _Sweep) -> None:
    """Latency of the first dense network and some of its cuts, when nothing else is running."""
    if any(_status(job, cell) == "waiting" for cell in job.cells):
        return
    first = [cell for cell in job.cells if cell.seed == job.cells[0].seed and _status(job, cell) == "done"]
    timed = [cell.name for cell in first if _is_timed(job.recipe, cell)]
    with _held(job.out, "bench") as mine:
        if mine and len(timed) > 1 and _timed(job) != set(timed):
            job.say(f"latency of {len(timed)} networks")
            runs = {name: RunFolder(job.out / name) for name in timed}
            bench = measures.latencies(runs, job.recipe)
            if job.recipe.ratios is None:
                write_record(job.out / _FRAMES, measures.frame_rates(runs, job.recipe))
            write_record(job.out / _BENCH, bench)  # last: it says that all is there


def _is_timed(recipe: Recipe, cell: Cell) -> bool:
    """Dense, small, the leading and the uniform cuts; what magnitude leaves at the ratios of several seeds."""
    if cell.kind is Kind.SPARSE and recipe.ratios is not None and cell.variant is not None:
        shown = recipe.ratios.repeated_compressions or recipe.ratios.compressions
        plain = cell.variant["score"] == "magnitude" and "branch" not in cell.variant
        return plain and cell.variant["compression"] in shown
    leading = (recipe.sweep.criteria[0], "uniform") if recipe.ratios is None else (recipe.pruning.criterion,)
    is_cut = cell.kind is Kind.PRUNED and cell.recovered and cell.variant is None and cell.criterion in leading
    return cell.kind in (Kind.DENSE, Kind.SMALL) or is_cut


def _timed(job: _Sweep) -> set[str]:
    """The networks whose latency is on disk; a sweep that has grown since is measured again."""
    benches = (_optional(job.out / _BENCH) or {"benches": []})["benches"]
    return {model["name"] for bench in benches for model in bench["models"]}


def _sets(recipe: Recipe) -> dict[str, str | None]:
    """What every network is evaluated on: label and source, None for the run's own."""
    return {set_label("test", source): source for source in (None, *(recipe.ratios or recipe.sweep).elsewhere)}


def _status(job: _Sweep, cell: Cell) -> str:
    """``done``, ``failed`` since this process began, or ``waiting``: earlier failures are tried again."""
    record = _read_cell(job.out, cell)
    if record is None:
        return "waiting"
    if record["status"] == "failed" and _record_path(job.out, cell).stat().st_mtime < job.started:
        return "waiting"
    return str(record["status"])


def _record_path(out: Path, cell: Cell) -> Path:
    """Beside the run folder, which a cell that failed may not have."""
    return out / f"{cell.name}.json"


def _read_cell(out: Path, cell: Cell) -> Record | None:
    """What is on disk of a cell, if it was made with the settings it has now."""
    path = out / cell.name
    record = _optional(_record_path(out, cell))
    if record is not None and record["status"] == "done":
        written, asked = read_recipe(path / "recipe.yaml"), cell.recipe
        if decisive(written, record["kind"]) != decisive(asked, cell.kind):
            raise InputError(
                f"{path} was made with other settings than this sweep has; give another --out, or the old settings."
            )
    return record


def _optional(path: Path) -> Record | None:
    return read_record(path) if path.is_file() else None


@contextmanager
def _held(out: Path, name: str) -> Iterator[bool]:
    """Hold a cell while the block runs; False where another process has it. A killed process lets go of its own."""
    lock = FileLock(out / ".locks" / f"{name.replace('/', '.')}.lock", timeout=0)
    (out / ".locks").mkdir(exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _announce(job: _Sweep, cell: Cell) -> None:
    """Say which cell begins, and how long all that is left may take at the pace of those that are done."""
    records = {each.name: _read_cell(job.out, each) for each in job.cells}
    done = [each for each in job.cells if (records[each.name] or {}).get("status") == "done"]
    pace = [((each.keep_ratio or 1.0), _seconds(records[each.name]) / (each.epochs + _OVERHEAD)) for each in done]
    text = f"cell {len(done) + 1} of {len(job.cells)}: {cell.name}"
    if pace:
        left = sum(_estimate(each, pace) for each in job.cells if each not in done)
        text += f"; all that is left takes at most about {_words(left)} in one process"
    else:
        text += "; its time tells how long the others may take"
    job.say(text)


def _estimate(cell: Cell, pace: Sequence[tuple[float, float]]) -> float:
    """Seconds for a cell at the pace of the done cells with the nearest budget that is no smaller."""
    keep = cell.keep_ratio or 1.0
    nearest = min((share for share, _ in pace if share >= keep), default=max(share for share, _ in pace))
    return (cell.epochs + _OVERHEAD) * median(seconds for share, seconds in pace if share == nearest)


def _seconds(record: Record | None) -> float:
    return float((record or {})["seconds"])


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
