"""The main job, stage by stage: train, prune, evaluate, export, measure, report.

Every stage reads run folders and writes its records there, so that any of them can be done again, alone.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from secateur.cost.macs import count_macs, count_params
from secateur.data.cases import Case
from secateur.data.dataset import PolypSet, to_input
from secateur.data.sources import load_cases
from secateur.deploy.frames import time_frames
from secateur.deploy.onnx import ExportedFile, export_onnx
from secateur.deploy.parity import check_parity, require_parity
from secateur.deploy.pt2 import export_pt2
from secateur.deploy.timing import NamedModel, time_models
from secateur.errors import InputError, ProofError, RecordError
from secateur.graph.copying import safe_copy
from secateur.graph.patch import accepts, keeps_sides, side_multiple
from secateur.graph.records import InputSpec
from secateur.nets.spec import ModelSpec
from secateur.prune.plan import PruningPlan
from secateur.recipes.recipe import Recipe, read_recipe
from secateur.records import Record, read_record, write_record
from secateur.report.page import write_report
from secateur.rounds import PruningJob, prune_in_rounds, trace_within_reach, training_record
from secateur.store.networks import load, read_architecture, save
from secateur.store.runs import RunFolder
from secateur.tasks.polyp import PolypTask, overlay, read_predictions, to_mask
from secateur.train.fresh import draw_anew_
from secateur.train.loop import fit
from secateur.train.progress import watched

_TEST = "test"
EXPORTS: Mapping[str, Callable[[nn.Module, torch.Tensor, Path], Sequence[ExportedFile]]] = {
    "onnx": export_onnx,  # for ONNX Runtime and OpenVINO
    "pt2": lambda model, image, folder: [export_pt2(model, image, folder)],  # for PyTorch, without secateur
}
_FRAMES = 20  # different ones that a stream is made of


@dataclass(frozen=True)
class Session:
    """How a command was called: what goes into the records, and where progress is shown."""

    command: list[str]
    console: Console | None = None
    resume: bool = False
    overwrite: bool = False


def main_job(recipe: Recipe, out: Path, session: Session) -> Path:
    """From data to page: dense network, pruned network, their evaluation, export, latency and report."""
    dense = train(recipe, out / "dense", session)
    pruned = prune(dense, recipe, out / "pruned", session)
    evaluate(pruned, session)
    export(pruned, session)
    bench([dense, pruned], session)
    return report([dense, pruned], out / "report.html", session)


def train(recipe: Recipe, out: Path, session: Session, *, shape_of: RunFolder | None = None) -> RunFolder:
    """Train the dense network of ``recipe`` into the run folder ``out``.

    With ``shape_of``, the folder of a pruned run, the network has its shape and fresh weights: the baseline that
    tells what pruning a trained network was worth.
    """
    cases = load_cases(recipe.data)
    task = PolypTask(recipe.data.size)
    seed = recipe.training.seed
    model, spec, plan = _untrained(recipe, shape_of)
    _require_side(model, recipe.data.size)
    train_set, val_set = _training_sets(task, cases, recipe, session, seed=seed)
    role, parent = ("dense", None) if shape_of is None else ("scratch", _parent(shape_of))
    run = _begin(out, recipe, cases, session, role=role, parent=parent, seed=seed)
    result = fit(
        model,
        loss=task.loss,
        train_set=train_set,
        validate=lambda network: task.validate(network, val_set),
        recipe=recipe.training,
        folder=run.path,
        resume=session.resume,
        console=session.console,
    )
    save(model, run.path, spec=spec, plan=plan)
    run.add(training=training_record([result], recipe.training.epochs))
    return run


def prune(dense: RunFolder, recipe: Recipe, out: Path, session: Session) -> RunFolder:
    """Prune the network in ``dense`` as ``recipe.pruning`` says, into the run folder ``out``."""
    if dense.path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the dense network that is to be pruned; give another --out.")
    spec, earlier = read_architecture(dense.path)
    if earlier is not None:
        raise InputError(f"{dense.path} holds a pruned network; give the run folder of a dense one.")
    if recipe.data != read_run_recipe(dense).data:
        raise InputError(
            f"{dense.path} was trained on other data than these settings name; prune on the same, so that what the cut "
            f"loses can be counted, and leave data.* out of --set."
        )
    cases = load_cases(recipe.data)
    seed = recipe.pruning.seed
    model = load(dense.path)
    _require_side(model, recipe.data.size)
    graph = trace_within_reach(model, recipe.data.size, recipe.pruning)
    task = PolypTask(recipe.data.size)
    train_set, val_set = _training_sets(task, cases, recipe, session, seed=seed)
    run = _begin(out, recipe, cases, session, role="pruned", parent=dense, seed=seed)
    job = PruningJob(
        dense=model,
        graph=graph,
        spec=spec,
        task=task,
        train_set=train_set,
        val_set=val_set,
        recipe=recipe.pruning,
        seed=seed,
        folder=out,
        resume=session.resume,
        console=session.console,
    )
    try:
        result = prune_in_rounds(job)
    except ProofError:
        run.abandon()
        raise
    save(result.model, out, spec=spec, plan=result.plan)
    write_record(out / "prune.json", result.record)
    run.add(training=result.training)
    return run


def evaluate(
    run: RunFolder,
    session: Session,
    *,
    split: str = _TEST,
    source: str | None = None,
    before_recovery: bool = False,
    keep_predictions: bool = True,
) -> Record:
    """Measure every case of a split; of a pruned network also what the dense one had found and it lost.

    The run's own test split gives ``evaluation.json``; others ``evaluation.<label>.json``. With ``before_recovery``
    the network is measured as its last cut left it. Predictions are what reports show and what a cut is compared
    with; a sweep keeps the dense networks' alone.
    """
    recipe = read_run_recipe(run)
    data = recipe.data if source is None else recipe.data.model_copy(update={"source": source})
    cases = load_cases(data)
    if split not in cases:
        raise InputError(f"there is no split {split!r}; give one of {', '.join(cases)}.")
    label = set_label(split, source)
    dense_predictions = None
    parent = _parent(run)
    if parent is not None:
        if not _evaluated(parent, label, source):
            evaluate(parent, session, split=split, source=source)
        ids = [case.id for case in cases[split]]
        dense_predictions = read_predictions(parent.path / "predictions" / label, ids)
    model = load(_last_cut(run, recipe) if before_recovery else run.path)
    label = f"before-recovery-{label}" if before_recovery else label
    with watched(cases[split], f"evaluate {run.run['name']}", session.console) as shown:
        record = PolypTask(recipe.data.size).evaluate(
            model,
            shown,
            split=label,
            dense_predictions=dense_predictions,
            predictions=run.path / "predictions" / label if keep_predictions else None,
        )
    write_record(run.path / _evaluation_name(label), {**record, "source": source})
    run.note(session.command)
    return record


def export(run: RunFolder, session: Session, *, cases: int = 20, formats: Sequence[str] = ("onnx",)) -> Record:
    """Write the network in each of ``formats`` (`EXPORTS`) and compare it with PyTorch on the first test cases.

    A difference raises `ParityError`; the record of it stays, the files do not.
    """
    unknown = set(formats) - set(EXPORTS)
    if unknown or not formats:
        raise InputError(f"there is no export format {', '.join(sorted(unknown))!r}; give one of {', '.join(EXPORTS)}.")
    recipe = read_run_recipe(run)
    model = load(run.path)
    chosen = [case.read() for case in load_cases(recipe.data)[_TEST][:cases]]
    inputs = [to_input(image, recipe.data.size) for image, _ in chosen]
    files = [file for name in dict.fromkeys(formats) for file in EXPORTS[name](model, inputs[0], run.path / "export")]
    for earlier in {*(run.path / "export").glob("model*")} - {file.path for file in files}:
        earlier.unlink()  # the record is of everything that lies there
    record = check_parity(model, files, inputs, threads=recipe.bench.threads)
    write_record(run.path / "export" / "parity.json", record)
    run.note(session.command)
    if not record["passed"]:
        for file in files:
            file.path.unlink()
    require_parity(record)
    return record


def bench(runs: Sequence[RunFolder], session: Session, *, recipe: Recipe | None = None, frames: bool = False) -> Record:
    """Time the networks of several runs, dense first, interleaved in this process; each run gets the record.

    With ``frames`` also from a decoded frame to its overlay, under that key and in ``frames.json``.
    """
    recipe = recipe or read_run_recipe(runs[0])
    named = {str(run.run["name"]): run for run in runs}
    record = latencies(named, recipe)
    streamed = frame_rates(named, recipe) if frames else None
    for run in runs:
        write_record(run.path / "bench.json", record)
        if streamed is not None:
            write_record(run.path / "frames.json", streamed)
        run.note(session.command)
    return record if streamed is None else {**record, "frames": streamed}


def latencies(runs: Mapping[str, RunFolder], recipe: Recipe) -> Record:
    """Time the networks of ``runs``, by the names given, dense first, interleaved in this process."""
    shape = (1, 3, recipe.bench_size, recipe.bench_size)
    entries = [_named(name, load(run.path), shape) for name, run in runs.items()]
    return time_models(entries, recipe.bench, input_shape=shape)


def frame_rates(runs: Mapping[str, RunFolder], recipe: Recipe) -> Record:
    """Time the same from a decoded test frame, enlarged to ``bench.frame_shape``, to the overlay drawn on it."""
    side, (height, width) = recipe.bench_size, recipe.bench.frame_shape
    images = [Image.fromarray(case.read()[0]) for case in load_cases(recipe.data)[_TEST][:_FRAMES]]
    return time_frames(
        [_named(name, load(run.path), (1, 3, side, side)) for name, run in runs.items()],
        recipe.bench,
        frames=[np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images],
        prepare=lambda image: to_input(image, side).numpy(),
        overlay=lambda image, logits: overlay(image, to_mask(torch.from_numpy(logits), image.shape[:2])),
    )


def report(runs: Sequence[RunFolder], out: Path, session: Session, *, title: str | None = None) -> Path:
    """Write the page about ``runs``, dense first, from their records alone."""
    return write_report([run.path for run in runs], out, command=session.command, title=title)


def with_dense(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The same runs, the dense one first: where only pruned ones are given, their parent is added."""
    parents = {run.path: _parent(run) for run in runs}
    dense = [run for run in runs if parents[run.path] is None] or [parent for parent in parents.values() if parent][:1]
    return [*dense, *(run for run in runs if parents[run.path] is not None)]


def _begin(
    out: Path,
    recipe: Recipe,
    cases: dict[str, list[Case]],
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


def _untrained(recipe: Recipe, shape_of: RunFolder | None) -> tuple[nn.Module, ModelSpec, PruningPlan | None]:
    if shape_of is not None:
        spec, plan = read_architecture(shape_of.path)
        if plan is None:
            raise InputError(f"{shape_of.path} holds a dense network; give the run folder of a pruned one.")
        model = load(shape_of.path)
        draw_anew_(model, recipe.training.seed)
        return model, spec, plan
    with torch.random.fork_rng():
        torch.manual_seed(recipe.training.seed)
        return recipe.network.build(), recipe.network, None


def _last_cut(run: RunFolder, recipe: Recipe) -> Path:
    """Where the network lies as the last cut left it."""
    folder = run.path / "checkpoints" / f"cut-{recipe.pruning.rounds}"
    if run.run["role"] != "pruned" or not folder.is_dir():
        raise InputError(f"{run.path} holds no cut that was not recovered; give the run folder of a pruned network.")
    return folder


def _training_sets(
    task: PolypTask, cases: dict[str, list[Case]], recipe: Recipe, session: Session, *, seed: int
) -> tuple[PolypSet, PolypSet]:
    """Read all cases for training and validation, so that a bad file is found before anything is written."""
    with watched(cases["train"], "read train", session.console) as shown:
        train_set = task.training_set(shown, augment=recipe.data.augment, seed=seed)
    with watched(cases["val"], "read val", session.console) as shown:
        return train_set, task.training_set(shown, augment=False)


def read_run_recipe(run: RunFolder) -> Recipe:
    """The recipe that a run folder was made with; `RecordError` if it is none."""
    run.check()
    return read_recipe(run.path / "recipe.yaml")


def _parent(run: RunFolder) -> RunFolder | None:
    relative = run.run["parent"]
    if relative is None:
        return None
    parent = RunFolder(Path(os.path.normpath(run.path / relative)))
    if not (parent.path / "run.json").is_file():
        raise RecordError(
            f"{run.path} was cut from the run in {parent.path}, which is not there; put it back, since what the cut "
            f"lost is counted against it."
        )
    return parent


def _require_side(model: nn.Module, side: int) -> None:
    """Refuse an input side that the network cannot halve as often as it wants to, naming those it can."""
    spec = InputSpec((2, 3, side, side), torch.float32)
    twin = safe_copy(model)  # trial runs move running statistics
    if accepts(twin, (spec,)) and keeps_sides(twin, spec):
        return
    multiple = side_multiple(model, spec)
    if multiple is None or side % multiple == 0:
        raise InputError(f"the network does not run on frames of 3 channels and {side}x{side} pixels.")
    below = side // multiple * multiple
    raise InputError(
        f"the network cannot halve a side of {side} pixels as often as it has to; give a multiple of {multiple}, "
        f"such as {below or multiple} or {below + multiple}."
    )


def _named(name: str, model: nn.Module, shape: tuple[int, ...]) -> NamedModel:
    _require_side(model, shape[-1])
    return NamedModel(name, model, count_params(model), count_macs(model, torch.zeros(shape)))


def decisive(recipe: Recipe, role: str) -> Record:
    """The settings that make the network of a run with that role, and so must not change before a resume."""
    keys = {"task", "network", "data", "training"} | ({"pruning"} if role == "pruned" else set())
    return recipe.model_dump(include=keys)


def set_label(split: str, source: str | None) -> str:
    """How an evaluated set is called in records: the split, and the source where it is not the run's own."""
    return split if source is None else f"{Path(source).name}-{split}"


def _evaluated(run: RunFolder, label: str, source: str | None) -> bool:
    """Whether the predictions on that set are there; sets of one name may come from two places."""
    path = run.path / _evaluation_name(label)
    return path.is_file() and read_record(path).get("source") == source and (run.path / "predictions" / label).is_dir()


def _evaluation_name(label: str) -> str:
    return "evaluation.json" if label == _TEST else f"evaluation.{label}.json"
