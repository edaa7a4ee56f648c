"""Run a sweep: take the next cell that nobody holds until none is left, then time the networks.

Several processes may work on one sweep.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from secateur import measures
from secateur.deploy.timing import require_packages
from secateur.errors import CheckError, SecateurError
from secateur.recipes.recipe import Recipe
from secateur.records import Record
from secateur.report.rendering import require_report
from secateur.session import Session
from secateur.store.runs import RunFolder
from secateur.sweeps.cells import Cell
from secateur.sweeps.check import require_possible
from secateur.sweeps.folder import Status, SweepFolder, is_made
from secateur.sweeps.making import make_network, measure
from secateur.sweeps.pace import announcement
from secateur.sweeps.plan import Plan, plan_sweep
from secateur.sweeps.record import PAGE, publish

_POLL = 2.0  # seconds between looks at what other processes hold


@final
@dataclass(frozen=True)
class _Job:
    """What stays the same while a sweep runs."""

    plan: Plan
    folder: SweepFolder
    session: Session

    def say(self, text: str) -> None:
        if self.session.console is not None:
            self.session.console.print(text, highlight=False, soft_wrap=True)


def sweep(recipe: Recipe, out: Path, session: Session) -> Record:
    """Run every cell that ``recipe`` asks for and is not done yet, then measure latency, and write record and page.

    The cells are those of ``recipe.ratios`` where it is given, of ``recipe.sweep`` otherwise. A cell that fails is
    recorded and shown, and the others go on; it is tried again by the next call. Settings that make no network may
    change before a resume: a done cell is measured on what it was not measured on yet, without being trained again,
    and latency is timed again.

    Raises:
        InputError: the folder exists and ``session`` does not resume, or it holds a sweep of other settings; two sets
            have one name; data, network or a cut are impossible (`require_possible`); a package of the extras
            ``deploy`` and ``report`` is missing; or cuts over budgets are to be compared for another task than polyps.
        CheckError: a cell failed; record and page are written.
    """
    require_packages(recipe.bench.targets)
    require_report()
    plan = plan_sweep(recipe)
    folder = SweepFolder(out, plan, started=time.time())
    folder.require_fit(session)
    require_possible(plan, plan.cells if session.overwrite else folder.waiting())
    folder.begin(session)
    job = _Job(plan, folder, replace(session, resume=True, overwrite=False))
    try:
        _run_cells(job)
        _time_networks(job)
    except BaseException as error:
        try:
            publish(folder, session.command)
        except Exception as other:  # what stopped the sweep is what has to be seen
            error.add_note(f"record and page could not be written either: {other}")
        raise
    record = publish(folder, session.command)
    failed = [cell["name"] for cell in record["cells"] if cell["status"] == Status.FAILED]
    if failed:
        raise CheckError(
            f"{len(failed)} of {len(plan.cells)} cells failed: {', '.join(failed)}; {out / PAGE} says why. "
            f"Run the command again with --resume to try them once more."
        )
    return record


def _run_cells(job: _Job) -> None:
    """Take cells in their order until none is left that could be run; wait for those that others hold."""
    while True:
        status = {cell.name: job.folder.status(cell) for cell in job.plan.cells}
        ready = [
            cell
            for cell in job.plan.cells
            if status[cell.name] is Status.WAITING and (cell.needs is None or status[cell.needs] is Status.DONE)
        ]
        if not ready:
            return
        for cell in ready:
            with job.folder.held(cell.name) as mine:
                if mine and job.folder.status(cell) is Status.WAITING:
                    job.say(announcement(cell, job.plan.cells, job.folder.done))
                    _run_cell(job, cell)
                    break
        else:
            time.sleep(_POLL)


def _run_cell(job: _Job, cell: Cell) -> None:
    """Make and measure a cell's network, or what is missing of that, and record it or what it died of."""
    began, out = time.perf_counter(), job.folder.path
    found = job.folder.read(cell) or {}
    known = found if is_made(found) else {}
    made: Record = known
    try:
        made = made or make_network(cell, out, job.session)
        measured = measure(cell, out, job.plan, job.session, known=known)
        findings = {**made, **measured, "status": Status.DONE.value, "error": None}
    except Exception as error:  # whatever a cell dies of, the others go on and the page shows it
        text = str(error) if isinstance(error, SecateurError) else f"{type(error).__name__}: {error}"
        findings = {**made, "status": Status.FAILED.value, "error": " ".join(text.split())}
        job.say(f"{cell.name} failed: {findings['error']}")
    seconds = time.perf_counter() - began
    # A cell that was resumed trained in earlier processes too.
    seconds = known["seconds"] + seconds if known else max(seconds, findings.pop("training_seconds", 0.0))
    job.folder.write(cell, {**findings, "seconds": seconds})


def _time_networks(job: _Job) -> None:
    """Latency of the first dense network and some of its cuts, when nothing else is running.

    A sweep that has grown since is timed again, and so is one whose settings for that are others.
    """
    status = {cell.name: job.folder.status(cell) for cell in job.plan.cells}
    if Status.WAITING in status.values():
        return
    chosen = [cell.name for cell in job.plan.cells if status[cell.name] is Status.DONE and job.plan.is_timed(cell)]
    with job.folder.held("bench") as mine:
        bench, _ = job.folder.bench()
        timed = {model["name"] for each in (bench or {"benches": []})["benches"] for model in each["models"]}
        if mine and len(chosen) > 1 and timed != set(chosen):
            job.say(f"latency of {len(chosen)} networks")
            runs = {name: RunFolder(job.folder.path / name) for name in chosen}
            bench = measures.latencies(runs, job.plan.recipe)
            frames = measures.frame_rates(runs, job.plan.recipe) if job.plan.recipe.ratios is None else None
            job.folder.write_bench(bench, frames)
