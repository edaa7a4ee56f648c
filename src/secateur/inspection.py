"""What could be removed from a network, and a dry run of a budget, before anything is touched."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.cost.macs import graph_macs, graph_params
from secateur.errors import BudgetError, EvidenceError, InputError, RecipeError
from secateur.graph.describe import GroupFacts, describe
from secateur.graph.records import ChannelGraph
from secateur.nets.bundle import is_bundle, load_bundle
from secateur.nets.nnunet import is_nnunet, load_nnunet
from secateur.nets.spec import ModelSpec
from secateur.nets.trained import TrainedNetwork
from secateur.prune.allocate import Floors, allocate
from secateur.prune.budget import Budget, MacsBudget, ParamsBudget
from secateur.prune.criteria import CRITERIA
from secateur.prune.trial import trace
from secateur.recipes.pruning import PruneRecipe
from secateur.recipes.recipe import read_recipe
from secateur.records import Record
from secateur.store.networks import load, read_architecture
from secateur.store.runs import RunFolder


def inspect(
    model: str,
    *,
    kwargs: str = "{}",
    input_shape: str = "",
    macs_keep: float | None = None,
    params_keep: float | None = None,
    criterion: str = "l2",
    round_to: int | None = None,
) -> Record:
    """Trace a network and return the record of what can and cannot be removed.

    Args:
        model: what `open_model` takes.
        kwargs: JSON arguments of the callable.
        input_shape: such as ``"1,3,352,352"``; run folders, nnU-Nets and most bundles know their own.
        macs_keep: also plan, without touching anything, for this share of the MACs.
        params_keep: the same for a share of the parameters instead.
        criterion: of that plan; one that needs no data.
        round_to: of that plan; None takes that of the run folder's recipe. Its other floors hold too.
    """
    budget = _budget(macs_keep, params_keep)
    trained = open_model(model, kwargs=kwargs, input_shape=input_shape)
    if trained.input_shape is None:
        raise InputError(f"{model} does not say what it takes; give --input-shape, such as 1,3,352,352.")
    graph = trace(trained.model, torch.zeros(trained.input_shape))
    channels = sum(group.width for group in graph.groups) + sum(pin.channels for pin in graph.pinned)
    record: Record = {
        "model": model,
        "input_shape": list(trained.input_shape),
        "params": graph_params(graph),
        "macs": graph_macs(graph),
        "groups": len(graph.groups),
        "channels": channels,
        "removable": sum(group.width - 1 for group in graph.groups),
        "pinned": [asdict(pin) for pin in graph.pinned],
        "seconds": graph.seconds,
        "group_table": [_row(facts) for facts in describe(graph)],
    }
    if budget is not None:
        record["dry_run"] = _dry_run(trained.model, graph, budget, criterion, _floors(model, round_to))
    return record


def open_model(model: str, *, kwargs: str = "{}", input_shape: str = "") -> TrainedNetwork:
    """Open whatever a command calls MODEL.

    Args:
        model: a run folder, ``package.module:callable``, an nnU-Net's trained-model folder (or a fold or checkpoint
            in it), or the folder of a MONAI bundle.
        kwargs: JSON arguments of the callable.
        input_shape: takes the place of what the model says of itself.

    Raises:
        InputError: ``model`` is none of these, or cannot be read; the message says why.
    """
    shape = parse_shape(input_shape) if input_shape else None
    path = Path(model)
    if ":" in model and not path.exists():
        if shape is None:
            raise InputError("a network by its builder needs --input-shape, such as 1,3,352,352.")
        spec = ModelSpec(model, _arguments(kwargs))
        return TrainedNetwork(spec.build(), shape, spec)
    if is_nnunet(path):
        trained = load_nnunet(path)
    elif is_bundle(path):
        trained = load_bundle(path)
    else:
        trained = _open_run(path)
    return TrainedNetwork(trained.model, shape or trained.input_shape, trained.spec)


def parse_shape(text: str) -> tuple[int, ...]:
    """``"1,3,352,352"`` as numbers.

    Raises:
        InputError: not at least three positive numbers.
    """
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) < 3 or min(shape) < 1:
        raise InputError(
            f"--input-shape {text!r} is not a shape; write batch, channels and sides, such as 1,3,352,352."
        )
    return shape


def _open_run(path: Path) -> TrainedNetwork:
    RunFolder(path).check()
    side = read_recipe(path / "recipe.yaml").data.size
    return TrainedNetwork(load(path), (1, 3, side, side), read_architecture(path)[0])


def _arguments(kwargs: str) -> dict[str, Any]:
    try:
        arguments = json.loads(kwargs)
    except json.JSONDecodeError as error:
        raise RecipeError(f"--kwargs {kwargs!r} is not JSON ({error}).") from error
    if not isinstance(arguments, dict):
        raise RecipeError(f"--kwargs {kwargs!r} is not a JSON object; write names and values.")
    return arguments


def _budget(macs_keep: float | None, params_keep: float | None) -> Budget | None:
    if macs_keep is not None and params_keep is not None:
        raise BudgetError("give --macs-keep or --params-keep, not both: one budget decides.")
    if params_keep is not None:
        return ParamsBudget(params_keep)
    return None if macs_keep is None else MacsBudget(macs_keep)


def _floors(model: str, round_to: int | None) -> Floors:
    """Those of the run folder's recipe, where ``model`` is one."""
    file = Path(model) / "recipe.yaml"
    given: PruneRecipe | Floors = read_recipe(file).pruning if file.is_file() else Floors(round_to=8)
    return Floors(given.round_to if round_to is None else round_to, given.min_channels, given.min_keep_ratio)


def _row(facts: GroupFacts) -> dict[str, Any]:
    group = facts.group
    return {
        "id": group.id,
        "width": group.width,
        "tensors": len({piece.tensor for piece in group.slices}),
        "reads": len(group.reads()),
        "written_by": list(facts.written_by),
        "followed_by": list(facts.followed_by),
        "read_by": list(facts.read_by),
        "macs_share": facts.macs_share,
        "params_share": facts.params_share,
    }


def _dry_run(network: nn.Module, graph: ChannelGraph, budget: Budget, criterion: str, floors: Floors) -> dict[str, Any]:
    if criterion not in CRITERIA:
        raise RecipeError(f"no criterion is called {criterion!r}; known: {', '.join(CRITERIA)}.")
    try:
        scores = CRITERIA[criterion](0).score(network, graph)
    except EvidenceError as error:
        raise InputError(
            f"a dry run with {criterion!r} needs data; use l2, l1, random or uniform, or `secateur prune`."
        ) from error
    plan = allocate(graph, scores, budget, **asdict(floors))
    kept = {group.id: len(plan.kept.get(group.id, range(group.width))) for group in graph.groups}
    floor = {group.id: floors.kept(group.width) for group in graph.groups}
    return {
        "criterion": criterion,
        "budget": {"kind": budget.kind, "keep_ratio": budget.keep_ratio},
        **asdict(floors),
        **plan.reached,
        "kept": kept,
        "at_floor": [group.id for group in graph.groups if kept[group.id] == floor[group.id] < group.width],
    }
