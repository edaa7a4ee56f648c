"""Criteria x budgets x seeds, or scopes x ratios x seeds: every cell a run folder of its own, one record of them all.

Several processes may work on one sweep: each takes the next cell that nobody holds.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from filelock import FileLock, Timeout

from secateur import measures, pipeline
from secateur.cells import Cell, Kind, plan_cells
from secateur.cost.macs import count_macs, count_params
from secateur.deploy.timing import require_packages
from secateur.errors import CheckError, InputError, RecordError, SecateurError
from secateur.measures import evaluation_name, set_label
from secateur.ratio_cells import plan_ratio_cells
from secateur.recipes.recipe import Recipe, parse_recipe, read_recipe
from secateur.records import Record, read_record, write_record
from secateur.report.rendering import require_packages as require_report
from secateur.report.sweeps.page import sweep_markdown, write_sweep_page
from secateur.session import Session, decisive, task_of
from secateur.store.networks import load
from secateur.store.runs import RunFolder, surroundings
from secateur.tasks.task import Task

RECORD = "sweep.json"
_BENCH = "bench.json"
_FRAMES = "frames.json"
_MEASURED = ("ids", "evaluations", "before_recovery")  # keys of a cell's record that hold something for every set
_POLL = 2.0  # seconds between looks at what other processes hold
_OVERHEAD = 3  # scoring, reading and evaluating take about as long as so many epochs


@dataclass(frozen=True)
class _Sweep:
    """What stays the same while a sweep runs."""

    recipe: Recipe
    cells: tuple[Cell, ...]
    sets: Mapping[str, str | None]  # what every network is evaluated on: label and source, None for the run's own
    out: Path
    session: Session
    started: float  # seconds since the epoch
    done: dict[str, Record] = field(default_factory=dict)  # by name; nobody changes them any more

    def say(self, text: str) -> None:
        if self.session.console is not None:
            self.session.console.print(text, highlight=False, soft_wrap=True)


def sweep(recipe: Recipe, out: Path, session: Session) -> Record:
    """Run every cell that ``recipe`` asks for and is not done yet, then measure latency, and write record and page.

    The cells are those of ``recipe.ratios`` where it is given, of ``recipe.sweep`` otherwise.

    A cell that fails is recorded and shown, and the others go on; it is tried again by the next call.

    Settings that make no network may change before a resume: a done cell is measured on what it was not measured on
    yet, without being trained again, and latency is timed again.

    Raises:
        InputError: the folder exists and ``session`` does not resume, or it holds a sweep of other settings; two sets
            have one name; a package of the extras ``deploy`` and ``report`` is missing; or cuts over budgets are to be
            compared for another task than polyps.
        CheckError: a cell failed; record and page are written.
    """
    require_packages(recipe.bench.targets)
    require_report()
    cells, sets = _plan(recipe), _sets(recipe)
    job = _Sweep(recipe, cells, sets, out, replace(session, resume=True, overwrite=False), time.time())
    _begin(job, session)
    try:
        _run_cells(job)
        _measure(job)
    except BaseException as error:
        try:
            _publish(job)
        except Exception as other:  # what stopped the sweep is what has to be seen
            error.add_note(f"record and page could not be written either: {other}")
        raise
    record = _publish(job)
    failed = [cell["name"] for cell in record["cells"] if cell["status"] == "failed"]
    if failed:
        raise CheckError(
            f"{len(failed)} of {len(job.cells)} cells failed: {', '.join(failed)}; {out / 'report.html'} says why. "
            f"Run the command again with --resume to try them once more."
        )
    return record


def report_sweep(folder: Path, out: Path, session: Session) -> Path:
    """Write the page about the sweep in ``folder`` from its record alone."""
    return write_sweep_page(read_sweep(folder), out, command=session.command)


def sweep_tables(folder: Path) -> str:
    """The tables of the sweep in ``folder`` as Markdown."""
    return sweep_markdown(read_sweep(folder))


def read_sweep(folder: Path) -> Record:
    """The record of the sweep in ``folder``; settings that its recipe did not have yet have their defaults."""
    record = read_record(folder / RECORD)
    if "recipe" not in record:
        raise RecordError(f"{folder / RECORD} has no recipe; give the folder of a `secateur sweep`.")
    recipe = parse_recipe(record["recipe"], str(folder / RECORD))
    return {**record, "recipe": recipe.model_dump(mode="json")}


def _publish(job: _Sweep) -> Record:
    """Write the record of a sweep as far as it has come, and its page."""
    record = _collect(job)
    write_record(job.out / RECORD, record)
    write_sweep_page(record, job.out / "report.html", command=job.session.command)
    return record


def _collect(job: _Sweep) -> Record:
    """Recipe, sets, cells, latency: what the recipe asks for, as far as it is there."""
    recipe = job.recipe
    entries = [_entry(job, cell) for cell in job.cells]
    ids: Record = {}
    for entry in entries:
        ids = {**entry.pop("ids", {}), **ids}
    timed = _bench(job)
    return {
        "name": job.out.resolve().name,
        "command": job.session.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
        "synthetic": recipe.data.synthetic,
        "recipe": recipe.model_dump(mode="json"),
        "sets": {
            label: {"source": Path(source or recipe.data.source).name, "split": "test", "ids": ids[label]}
            for label, source in job.sets.items()
            if label in ids
        },
        "cells": entries,
        "bench": timed,
        "frames": timed and _optional(job.out / _FRAMES),
    }


def _entry(job: _Sweep, cell: Cell) -> Record:
    """A cell in the record: what the sweep asks for and no more, and the ids of its cases."""
    found = _read_cell(job, cell)
    if found is None:
        return {**cell.record(), "status": "waiting", "error": None, "seconds": None}
    found = {key: value for key, value in found.items() if key not in ("schema", "sources")}
    for key in _MEASURED:
        if found.get(key):
            wanted = job.sets if key != "before_recovery" or _has_before(job, cell) else ()
            found[key] = {label: found[key][label] for label in wanted if label in found[key]}
    return found


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


def _begin(job: _Sweep, session: Session) -> None:
    """Make the folder, or check that it holds a sweep that this recipe goes on with, before anything is written."""
    out = job.out
    written = out / "recipe.yaml"
    taken = out.exists() and any(not entry.name.endswith(".part") for entry in out.iterdir())
    if taken and not session.resume and not session.overwrite:
        raise InputError(f"{out} exists; give another --out, --resume to go on, or --overwrite to begin again.")
    if taken and (not written.is_file() or (out / "run.json").exists()):
        raise InputError(f"{out} is not the folder of a sweep, so it is left as it is; give another --out.")
    if taken and session.overwrite:
        shutil.rmtree(out)
    for cell in job.cells:
        _status(job, cell)
    job.recipe.write(written)


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
    found = _read_cell(job, cell) or {}
    known = found if _is_made(found) else {}  # its network is there, some measurements are not
    try:
        made = known or _make(job, cell)
        findings = {**made, **_measurements(job, cell, known), "status": "done", "error": None}
    except Exception as error:  # whatever a cell dies of, the others go on and the page shows it
        text = str(error) if isinstance(error, SecateurError) else f"{type(error).__name__}: {error}"
        findings = {**known, "status": "failed", "error": " ".join(text.split())}
        job.say(f"{cell.name} failed: {findings['error']}")
    seconds = time.perf_counter() - began
    # A cell that was resumed trained in earlier processes too.
    seconds = known["seconds"] + seconds if known else max(seconds, findings.pop("training_seconds", 0.0))
    write_record(_record_path(job, cell), {**cell.record(), **findings, "seconds": seconds})


def _make(job: _Sweep, cell: Cell) -> Record:
    """Train or cut the cell's network, and count what it has."""
    path = job.out / cell.name
    task = task_of(cell.recipe)
    rounds = {}
    if cell.is_cut:
        cut_as = pipeline.prune if cell.kind is Kind.PRUNED else pipeline.sparsify
        run = cut_as(RunFolder(job.out / str(cell.needs)), cell.recipe, path, job.session)
    else:
        shape = RunFolder(job.out / cell.needs) if cell.needs else None
        run = pipeline.train(cell.recipe, path, job.session, shape_of=shape)
    if cell.is_cut:
        key = f"val_{task.score}_before"
        rounds = {key: read_record(path / "prune.json")["rounds"][-1][key]}
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
    }


def _measurements(job: _Sweep, cell: Cell, known: Record) -> Record:
    """The cell's network on every set, after recovery and, where that is asked for, before; ``known`` ones are kept."""
    task, run = task_of(cell.recipe), RunFolder(job.out / cell.name)
    ids, after = dict(known.get("ids") or {}), dict(known.get("evaluations") or {})
    before = dict(known.get("before_recovery") or {}) if cell.is_cut else None
    for label, source in job.sets.items():
        if label not in after:
            record = _evaluate(job, run, cell, source)
            ids[label], after[label] = [case["id"] for case in record["cases"]], _compact(record, task)
        if before is not None and not cell.recovered:
            before[label] = after[label]
        elif before is not None and label not in before and _has_before(job, cell):
            before[label] = _compact(_evaluate(job, run, cell, source, before_recovery=True), task)
    sources = {**known.get("sources", {}), **job.sets}
    return {"ids": ids, "sources": sources, "evaluations": after, "before_recovery": before}


def _has_before(job: _Sweep, cell: Cell) -> bool:
    """Whether the sweep asks what the cell's network was before its recovery."""
    ratios = job.recipe.ratios
    return cell.is_cut and (not cell.recovered or ratios is None or ratios.before_recovery)


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
            # last: it says that all is there
            write_record(job.out / _BENCH, {**bench, "settings": _bench_settings(job.recipe)})


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
    benches = (_bench(job) or {"benches": []})["benches"]
    return {model["name"] for bench in benches for model in bench["models"]}


def _bench(job: _Sweep) -> Record | None:
    """Latency, if it was measured with the settings of now. A file that does not name its settings is measured again:
    what it says itself leaves out how long was measured, and minutes are cheaper than a wrong number."""
    found = _optional(job.out / _BENCH)
    return found if found and found.get("settings") == _bench_settings(job.recipe) else None


def _bench_settings(recipe: Recipe) -> Record:
    return recipe.model_dump(mode="json", include={"bench", "bench_size"})


def _sets(recipe: Recipe) -> dict[str, str | None]:
    """What every network is evaluated on: label and source, None for the run's own."""
    elsewhere = (recipe.ratios or recipe.sweep).elsewhere
    sets = {set_label("test", source): source for source in (None, *elsewhere)}
    for source in elsewhere:
        other = sets[set_label("test", source)]
        if other != source:
            raise InputError(
                f"elsewhere names {source} and {other}, which would both be called '{Path(source).name}' in the "
                f"record; rename a folder, or leave one out."
            )
    return sets


def _status(job: _Sweep, cell: Cell) -> str:
    """``done``, ``failed`` since this process began, or ``waiting``: earlier failures are tried again."""
    record = _read_cell(job, cell)
    if record is None:
        return "waiting"
    if record["status"] == "failed":
        return "waiting" if _record_path(job, cell).stat().st_mtime < job.started else "failed"
    wanted = [record["evaluations"], *([record["before_recovery"]] if _has_before(job, cell) else [])]
    if any(label not in (found or {}) for found in wanted for label in job.sets):
        return "waiting"
    job.done[cell.name] = record
    return "done"


def _record_path(job: _Sweep, cell: Cell) -> Path:
    """Beside the run folder, which a cell that failed may not have."""
    return job.out / f"{cell.name}.json"


def _read_cell(job: _Sweep, cell: Cell) -> Record | None:
    """What is on disk of a cell, if it was made with the settings it has now.

    What was measured on another source of the same name is left out.
    """
    if cell.name in job.done:
        return job.done[cell.name]
    record = _optional(_record_path(job, cell))
    if record is None or not _is_made(record):
        return record
    path = job.out / cell.name
    if decisive(read_recipe(path / "recipe.yaml"), record["kind"]) != decisive(cell.recipe, cell.kind):
        raise InputError(
            f"{path} was made with other settings than this sweep has; give another --out, or the old settings."
        )
    sources = record.get("sources") or {  # older records leave it to the evaluations
        label: read_record(file).get("source")
        for label in record["ids"]
        if (file := path / evaluation_name(label)).is_file()
    }
    stale = {label for label, source in job.sets.items() if label in sources and sources[label] != source}
    measured = {
        key: {label: found for label, found in record[key].items() if label not in stale}
        for key in _MEASURED
        if record[key]
    }
    return {**record, "sources": sources, **measured}


def _is_made(record: Record) -> bool:
    """Whether the network is there, and only measurements may be missing."""
    return "macs" in record


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
    done = [each for each in job.cells if each.name in job.done]
    pace = [((each.keep_ratio or 1.0), job.done[each.name]["seconds"] / (each.epochs + _OVERHEAD)) for each in done]
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


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
