"""What the network in a run folder is worth: evaluation, export, latency, and the page about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from secateur.cost.macs import count_macs, count_params
from secateur.deploy.checked import export_checked
from secateur.deploy.frames import time_frames
from secateur.deploy.timing import NamedModel, time_models
from secateur.errors import InputError
from secateur.recipes.recipe import Recipe
from secateur.records import Record, read_record, write_record
from secateur.report.runs.page import write_report
from secateur.session import Session, parent_of, read_run_recipe, require_side, task_of, tuned_task
from secateur.store.networks import load
from secateur.store.runs import RunFolder
from secateur.train.progress import watched

_TEST = "test"
_FRAMES = 20  # different ones that a stream is made of


def evaluate(
    run: RunFolder,
    session: Session,
    *,
    split: str = _TEST,
    source: str | None = None,
    marking: str | None = None,
    before_recovery: bool = False,
    keep_predictions: bool = True,
) -> Record:
    """Measure every case of a split; of a pruned network also what the dense one had found and it lost.

    The run's own test split gives ``evaluation.json``; others ``evaluation.<label>.json``. With ``before_recovery``
    the network is measured as its last cut left it. Predictions are what reports show and what a cut is compared
    with; a sweep keeps the dense networks' alone.
    """
    recipe = read_run_recipe(run)
    if marking is not None and recipe.task != "nuclei":
        raise InputError(f"{run.path} is of the task {recipe.task}, whose masks have no marking; leave out --marking.")
    other = {"source": source, "marking": marking}
    recipe = recipe.with_settings({f"data.{key}": value for key, value in other.items() if value is not None})
    data, task = recipe.data, tuned_task(run, recipe)
    cases = task.load_cases(data)
    if split not in cases:
        raise InputError(f"there is no split {split!r}; give one of {', '.join(cases)}.")
    label = set_label(split, source)
    dense_predictions = None
    parent = parent_of(run)
    if parent is not None:
        if not _evaluated(parent, label, source):
            evaluate(parent, session, split=split, source=source, marking=marking)
        dense_predictions = parent.path / "predictions" / label
    model = load(_last_cut(run, recipe) if before_recovery else run.path)
    label = f"before-recovery-{label}" if before_recovery else label
    with watched(cases[split], f"evaluate {run.run['name']}", session.console) as shown:
        record = task.evaluate(
            model,
            shown,
            split=label,
            dense_predictions=dense_predictions,
            predictions=run.path / "predictions" / label if keep_predictions else None,
        )
    write_record(run.path / evaluation_name(label), {**record, "source": source, "marking": marking})
    run.note(session.command)
    return record


def export(run: RunFolder, session: Session, *, cases: int = 20, formats: Sequence[str] = ("onnx",)) -> Record:
    """Write the network in each of ``formats``, compared with PyTorch on the first test cases, see `export_checked`."""
    recipe = read_run_recipe(run)
    task = task_of(recipe)
    chosen = [case.read() for case in task.load_cases(recipe.data)[_TEST][:cases]]
    inputs = [task.to_input(image, recipe.data.size) for image, _ in chosen]
    try:
        return export_checked(
            load(run.path),
            inputs,
            run.path / "export",
            formats=formats,
            threads=recipe.bench.threads,
            labels=task.labels,
        )
    finally:
        run.note(session.command)


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
    task = tuned_task(next(iter(runs.values())), recipe)
    side, (height, width) = recipe.bench_size, recipe.bench.frame_shape
    images = [Image.fromarray(case.read()[0]) for case in task.load_cases(recipe.data)[_TEST][:_FRAMES]]
    return time_frames(
        [_named(name, load(run.path), (1, 3, side, side)) for name, run in runs.items()],
        recipe.bench,
        frames=[np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images],
        prepare=lambda image: task.to_input(image, side).numpy(),
        overlay=lambda image, output: task.draw(image, torch.from_numpy(output)),
    )


def report(runs: Sequence[RunFolder], out: Path, session: Session, *, title: str | None = None) -> Path:
    """Write the page about ``runs``, dense first, from their records alone."""
    return write_report([run.path for run in runs], out, command=session.command, title=title)


def with_dense(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The same runs, first the dense one that all cuts among them come from, which is added where it is not given.

    Raises:
        InputError: the runs are of several tasks, or were cut from several dense networks: nothing to compare.
    """
    tasks = {str(run.run["task"]): run.path for run in runs if "task" in run.run}
    if len(tasks) > 1:
        given = ", ".join(f"{path} of {task}" for task, path in tasks.items())
        raise InputError(f"the runs are of several tasks, {given}; give runs of one task.")
    parents = {run.path: parent_of(run) for run in runs}
    origins = {parent.path.resolve(): (path, parent) for path, parent in parents.items() if parent is not None}
    if len(origins) > 1:
        given = ", ".join(f"{path} from {parent.path}" for path, parent in origins.values())
        raise InputError(f"the runs come from several dense networks, {given}; give the cuts of one.")
    first = [parent for _, parent in origins.values()]
    dense = [run for run in runs if parents[run.path] is None and run.path.resolve() not in origins]
    return [*first, *dense, *(run for run in runs if parents[run.path] is not None)]


def set_label(split: str, source: str | None) -> str:
    """How an evaluated set is called in records: the split, and the source where it is not the run's own."""
    return split if source is None else f"{Path(source).name}-{split}"


def _evaluated(run: RunFolder, label: str, source: str | None) -> bool:
    """Whether the predictions on that set are there; sets of one name may come from two places."""
    path = run.path / evaluation_name(label)
    return path.is_file() and read_record(path).get("source") == source and (run.path / "predictions" / label).is_dir()


def evaluation_name(label: str) -> str:
    """The file of a run folder that holds what its network reached on a set."""
    return "evaluation.json" if label == _TEST else f"evaluation.{label}.json"


def _last_cut(run: RunFolder, recipe: Recipe) -> Path:
    """Where the network lies as the last cut left it."""
    rounds = (recipe.sparsity if run.run["role"] == "sparse" else recipe.pruning).rounds
    folder = run.path / "checkpoints" / f"cut-{rounds}"
    if run.run["role"] not in ("pruned", "sparse") or not folder.is_dir():
        raise InputError(f"{run.path} holds no cut that was not recovered; give the run folder of a pruned network.")
    return folder


def _named(name: str, model: nn.Module, shape: tuple[int, ...]) -> NamedModel:
    require_side(model, shape[-1])
    return NamedModel(name, model, count_params(model), count_macs(model, torch.zeros(shape)))
