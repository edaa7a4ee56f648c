"""The main job, stage by stage: train, prune; then what `secateur.measures` says of both.

Every stage reads run folders and writes its records there, so that any of them can be done again, alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.cost.macs import count_macs, count_params
from secateur.deploy.parity import SHIPPING
from secateur.deploy.timing import require_packages
from secateur.errors import InputError, ProofError
from secateur.measures import bench, evaluate, export, report
from secateur.nets.spec import ModelSpec
from secateur.prune.plan import PruningPlan
from secateur.recipes.recipe import Recipe, read_recipe
from secateur.records import Record, write_record
from secateur.report.rendering import require_report
from secateur.rounds import PruningJob, prune_in_rounds, trace_within_reach, training_record
from secateur.session import Session, decisive, parent_of, read_run_recipe, require_side, require_trained, task_of
from secateur.sparsify import SparsityJob, require_rewindable, sparsify_in_rounds, weights_within_reach
from secateur.store.networks import load, read_architecture, save
from secateur.store.runs import RunFolder
from secateur.tasks.task import Task, TaskSet
from secateur.train.checkpoint import checkpoint_path
from secateur.train.fresh import draw_anew_
from secateur.train.loop import fit
from secateur.train.progress import watched


def main_job(recipe: Recipe, out: Path, session: Session) -> Path:
    """From data to page: dense network, its cuts, their evaluation, export, latency and report.

    The networks of nuclei lose single weights and, in another run, whole filters; those of polyps whole filters.

    Raises:
        InputError: an extra that a later stage needs is missing, before anything is trained.
    """
    require_packages((*SHIPPING, *recipe.bench.targets))
    require_report()
    dense = train(recipe, out / "dense", session)
    cuts = [sparsify(dense, recipe, out / "sparse", session)] if recipe.task == "nuclei" else []
    cuts.append(prune(dense, recipe, out / "pruned", session))
    for run in cuts:
        evaluate(run, session)
        export(run, session)
    bench([dense, *cuts], session)
    return report([dense, *cuts], out / "report.html", session)


def train(recipe: Recipe, out: Path, session: Session, *, shape_of: RunFolder | None = None) -> RunFolder:
    """Train the dense network of ``recipe`` into the run folder ``out``.

    With ``shape_of``, the folder of a pruned run, the network has its shape and fresh weights: the baseline that
    tells what pruning a trained network was worth.
    """
    task = task_of(recipe)
    cases = task.load_cases(recipe.data)
    seed = recipe.training.seed
    model, spec, plan = _untrained(recipe, shape_of)
    require_side(model, recipe.data.size)
    task.require(model)
    train_set, val_set = _training_sets(task, cases, recipe, session, seed=seed)
    with watched(cases["test"], "read test", session.console) as shown:
        for case in shown:  # training does not need them, the evaluation after it does
            case.read()
    role, parent = ("dense", None) if shape_of is None else ("scratch", parent_of(shape_of))
    run = _begin(out, recipe, cases, session, role=role, parent=parent, seed=seed)
    result = fit(
        model,
        loss=task.loss,
        train_set=train_set,
        validate=lambda network: task.validate(network, val_set),
        score=task.score,
        recipe=recipe.training,
        folder=run.path,
        resume=session.resume,
        console=session.console,
    )
    save(model, run.path, spec=spec, plan=plan)
    task = task.tuned(model, cases["val"]) if shape_of is None else task
    training = training_record([result], (recipe.training,), score=task.score)
    run.add(training=training, constants=task.constants, size=_size(run.path, recipe.data.size))
    return run


def prune(dense: RunFolder, recipe: Recipe, out: Path, session: Session) -> RunFolder:
    """Cut filters of the network in ``dense`` as ``recipe.pruning`` says, into the run folder ``out``."""
    ground = _ground(dense, recipe, out)
    graph = trace_within_reach(ground.model, recipe.data.size, recipe.pruning)
    seed = recipe.pruning.seed
    train_set, val_set = _training_sets(ground.task, ground.cases, recipe, session, seed=seed)
    run = _begin(out, recipe, ground.cases, session, role="pruned", parent=dense, seed=seed)
    job = PruningJob(
        dense=ground.model,
        graph=graph,
        spec=ground.spec,
        task=ground.task,
        train_set=train_set,
        val_set=val_set,
        recipe=recipe.pruning,
        seed=seed,
        folder=out,
        resume=session.resume,
        console=session.console,
    )
    with _abandoned_without_proof(run):
        result = prune_in_rounds(job)
    save(result.model, out, spec=ground.spec, plan=result.plan)
    write_record(out / "prune.json", result.record)
    run.add(training=result.training)
    return run


def sparsify(dense: RunFolder, recipe: Recipe, out: Path, session: Session) -> RunFolder:
    """Take single weights out of the network in ``dense`` as ``recipe.sparsity`` says, into the run folder ``out``.

    Filters of which nothing is left are removed for real; the rest is stored with its zeros left out.
    """
    ground = _ground(dense, recipe, out)
    epoch = recipe.sparsity.rewind_epoch
    kept = epoch is None or checkpoint_path(dense.path, "train", epoch).is_file()
    require_rewindable(recipe.sparsity, recipe.training, dense=str(dense.path), kept=kept)
    weights_within_reach(ground.model, recipe.data.size, recipe.sparsity)
    seed = recipe.sparsity.seed
    train_set, val_set = _training_sets(ground.task, ground.cases, recipe, session, seed=seed)
    run = _begin(out, recipe, ground.cases, session, role="sparse", parent=dense, seed=seed)
    job = SparsityJob(
        dense=ground.model,
        dense_folder=dense.path,
        training=recipe.training,
        spec=ground.spec,
        task=ground.task,
        train_set=train_set,
        val_set=val_set,
        size=recipe.data.size,
        recipe=recipe.sparsity,
        folder=out,
        resume=session.resume,
        console=session.console,
    )
    result = sparsify_in_rounds(job)
    save(result.model, out, spec=ground.spec, plan=result.plan, sparse=True)
    write_record(out / "prune.json", result.record)
    run.add(training=result.training)
    return run


def _begin(
    out: Path,
    recipe: Recipe,
    cases: dict[str, list[Any]],
    session: Session,
    *,
    role: str,
    parent: RunFolder | None,
    seed: int,
) -> RunFolder:
    run = RunFolder(out)
    facts = {
        "name": out.resolve().name,
        "role": role,
        "parent": None if parent is None else os.path.relpath(parent.path, out),
        "task": recipe.task,
        "synthetic": recipe.data.synthetic,
        "seed": seed,
        "input_size": recipe.data.size,
        "data": {
            "source": Path(recipe.data.source).name,
            "splits": {split: len(members) for split, members in cases.items()},
        },
    }
    written = out / "recipe.yaml"
    if session.resume and written.is_file() and decisive(read_recipe(written), role) != decisive(recipe, role):
        raise InputError(
            f"{out} was begun with another recipe; resume with the same settings, give another --out, or --overwrite."
        )
    run.begin(facts, session.command, resume=session.resume, overwrite=session.overwrite)
    recipe.write(written)
    return run


@dataclass(frozen=True)
class _Ground:
    """What a cut starts from."""

    model: nn.Module
    spec: ModelSpec
    task: Task
    cases: dict[str, list[Any]]


def _ground(dense: RunFolder, recipe: Recipe, out: Path) -> _Ground:
    """Open a dense run to be cut into ``out``, after every check that needs no long work."""
    if dense.path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the dense network that is to be pruned; give another --out.")
    spec, earlier = read_architecture(dense.path)
    if earlier is not None or dense.run["role"] == "sparse":
        raise InputError(f"{dense.path} holds a pruned network; give the run folder of a dense one.")
    require_trained(dense)
    asked, given = (decisive(each, "dense") for each in (recipe, read_run_recipe(dense)))
    changed = [section for section in asked if asked[section] != given[section]]
    if changed:
        names = ", ".join(changed)
        raise InputError(
            f"{dense.path} was made with another {names} than these settings name; what a cut loses is counted against "
            f"the network as it was trained, so leave {names} as its recipe.yaml has it."
        )
    task = task_of(recipe)
    model = load(dense.path)
    require_side(model, recipe.data.size)
    return _Ground(model, spec, task, task.load_cases(recipe.data))


@contextmanager
def _abandoned_without_proof(run: RunFolder) -> Iterator[None]:
    try:
        yield
    except ProofError:
        run.abandon()
        raise


def _size(folder: Path, side: int) -> Record:
    """What the network in ``folder`` costs on its own input, as `prune.json` says it of a cut."""
    model, shape = load(folder), (1, 3, side, side)
    return {"input_shape": list(shape), "macs": count_macs(model, torch.zeros(shape)), "params": count_params(model)}


def _untrained(recipe: Recipe, shape_of: RunFolder | None) -> tuple[nn.Module, ModelSpec, PruningPlan | None]:
    if shape_of is not None:
        spec, plan = read_architecture(shape_of.path)
        if plan is None:
            raise InputError(f"no filters left the network in {shape_of.path}; give the run folder of a pruned one.")
        if decisive(recipe.model_copy(update={"network": spec}), "scratch") != decisive(recipe, "scratch"):
            raise InputError(
                f"{shape_of.path} was cut from another network than the recipe names; give one that names it, such as "
                f"--recipe {shape_of.path / 'recipe.yaml'}."
            )
        model = load(shape_of.path)
        draw_anew_(model, recipe.training.seed)
        return model, spec, plan
    with torch.random.fork_rng():
        torch.manual_seed(recipe.training.seed)
        return recipe.network.build(), recipe.network, None


def _training_sets(
    task: Task, cases: dict[str, list[Any]], recipe: Recipe, session: Session, *, seed: int
) -> tuple[TaskSet, TaskSet]:
    """Read all cases for training and validation, so that a bad file is found before anything is written."""
    with watched(cases["train"], "read train", session.console) as shown:
        train_set = task.training_set(shown, augment=recipe.data.augment, seed=seed)
    with watched(cases["val"], "read val", session.console) as shown:
        return train_set, task.training_set(shown, augment=False)
