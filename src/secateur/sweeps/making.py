"""One cell: its network is made by the ordinary stages, counted, and measured on every set."""

from pathlib import Path

import torch

from secateur import measures, pipeline
from secateur.cost.macs import count_macs, count_params
from secateur.records import Record, read_record
from secateur.roles import Role
from secateur.session import Session, task_of
from secateur.store.networks import load
from secateur.store.runs import RunFolder
from secateur.sweeps.cells import Cell
from secateur.sweeps.plan import Plan
from secateur.tasks.task import Task


def make_network(cell: Cell, out: Path, session: Session) -> Record:
    """Train or cut the cell's network below ``out``, and count what it has."""
    path, task = out / cell.name, task_of(cell.recipe)
    if cell.role.is_cut:
        cut_as = pipeline.prune if cell.role is Role.PRUNED else pipeline.sparsify
        run = cut_as(RunFolder(out / str(cell.needs)), cell.recipe, path, session)
    else:
        shape = RunFolder(out / cell.needs) if cell.needs else None
        run = pipeline.train(cell.recipe, path, session, shape_of=shape)
    model, side = load(path), cell.recipe.data.size
    training = run.run["training"]
    return {
        "macs": count_macs(model, torch.zeros(1, 3, side, side)),
        "params": count_params(model),
        "epochs": cell.epochs,
        "training_seconds": training["seconds"],
        f"best_val_{task.score}": training[f"best_val_{task.score}"],
        **(_cut(cell, path, task) if cell.role.is_cut else {}),
    }


def measure(cell: Cell, out: Path, plan: Plan, session: Session, *, known: Record) -> Record:
    """The cell's network on every set, after recovery and, where that is asked for, before.

    What its record ``known`` has of it stays as it is.
    """
    task, run = task_of(cell.recipe), RunFolder(out / cell.name)

    def evaluate(source: str | None, *, before_recovery: bool = False) -> Record:
        keep = cell.role is Role.DENSE
        return measures.evaluate(run, session, source=source, before_recovery=before_recovery, keep_predictions=keep)

    ids, after = dict(known.get("ids") or {}), dict(known.get("evaluations") or {})
    before = dict(known.get("before_recovery") or {}) if cell.role.is_cut else None
    for label, source in plan.sets.items():
        if label not in after:
            record = evaluate(source)
            ids[label], after[label] = [case["id"] for case in record["cases"]], _compact(record, task)
        if before is not None and not cell.recovered:
            before[label] = after[label]
        elif before is not None and label not in before and plan.has_before(cell):
            before[label] = _compact(evaluate(source, before_recovery=True), task)
    sources = {**known.get("sources", {}), **plan.sets}
    return {"ids": ids, "sources": sources, "evaluations": after, "before_recovery": before}


def _cut(cell: Cell, path: Path, task: Task) -> Record:
    """Of a cut: its score before recovery; of a sparse network also what is left where, what died, what it takes."""
    pruned = read_record(path / "prune.json")
    score = f"val_{task.score}_before"
    found = {score: pruned["rounds"][-1][score]}
    if cell.role is Role.SPARSE:
        found["sparsity"] = {key: pruned[key] for key in ("reached", "masks", "sizes", "warnings")}
    return found


def _compact(evaluation: Record, task: Task) -> Record:
    """What comparisons pair, case by case, and the summary of everything else."""
    cases = evaluation["cases"]
    paired = {name: [case[name] for case in cases] for name in task.paired}
    summaries = {key: value for key, value in evaluation.items() if isinstance(value, dict)}
    return {**paired, **summaries}
