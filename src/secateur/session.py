"""How a command was called, and what every stage asks of a run folder: its recipe, its task, what it was cut from."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from secateur.errors import InputError, RecordError
from secateur.graph.copying import safe_copy
from secateur.graph.patch import accepts, keeps_sides, side_multiple
from secateur.graph.records import InputSpec
from secateur.recipes.recipe import Recipe, read_recipe
from secateur.records import Record
from secateur.store.runs import RunFolder
from secateur.tasks import TASKS
from secateur.tasks.task import Task


@dataclass(frozen=True)
class Session:
    """How a command was called: what goes into the records, and where progress is shown."""

    command: list[str]
    console: Console | None = None
    resume: bool = False
    overwrite: bool = False


def read_run_recipe(run: RunFolder) -> Recipe:
    """The recipe that a run folder was made with; `RecordError` if it is none."""
    if "task" not in run.run:
        raise InputError(
            f"{run.path} was pruned without data and has no recipe; `secateur inspect`, `export` and `prune` take it, "
            f"this command takes run folders of `secateur train`."
        )
    return read_recipe(run.path / "recipe.yaml")


def decisive(recipe: Recipe, role: str) -> Record:
    """The settings that make the network of a run with that role, and so must not change before a resume."""
    own = {"pruned": {"pruning"}, "sparse": {"sparsity"}}.get(role, set())
    return recipe.model_dump(mode="json", include={"task", "network", "data", "training"} | own)


def task_of(recipe: Recipe) -> Task:
    """The clinical job that a recipe names, for its data."""
    return TASKS[recipe.task](recipe.data)


def tuned_task(run: RunFolder, recipe: Recipe) -> Task:
    """The same with the constants that were chosen on validation of the dense network, for whatever was cut from it."""
    dense = parent_of(run) or run
    require_trained(dense)
    return task_of(recipe).with_constants(dense.run.get("constants", {}))


def require_trained(run: RunFolder) -> None:
    """Refuse a run whose training, with all that is chosen after it, has not ended."""
    if "training" not in run.run:
        raise InputError(f"the training of {run.path} has not ended; run its command again with --resume first.")


def parent_of(run: RunFolder) -> RunFolder | None:
    """The run that a network was cut from, or whose cut gave its shape; None for a dense one, or one without data.

    Raises:
        RecordError: the folder is no run folder, or its parent is not where it was.
    """
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


def require_side(model: nn.Module, side: int) -> None:
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
