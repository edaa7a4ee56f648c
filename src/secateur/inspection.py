"""What could be removed from a network, and a dry run of a budget, before anything is touched."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.cost.macs import graph_macs, graph_params
from secateur.errors import EvidenceError, InputError, RecipeError
from secateur.graph.records import ChannelGraph
from secateur.nets.spec import ModelSpec
from secateur.prune.allocate import allocate
from secateur.prune.budget import MacsBudget
from secateur.prune.criteria import CRITERIA
from secateur.prune.trial import trace
from secateur.recipes.recipe import read_recipe
from secateur.records import Record
from secateur.store.networks import load
from secateur.store.runs import RunFolder


def inspect(
    model: str, *, kwargs: str, input_shape: str, macs_keep: float | None, criterion: str, round_to: int
) -> Record:
    """Trace a network and return the record of what can and cannot be removed.

    Args:
        model: a run folder, or ``package.module:callable``.
        kwargs: JSON arguments of the callable.
        input_shape: such as ``"1,3,352,352"``; a run folder knows its own.
        macs_keep: also plan, without touching anything, for this share of the MACs.
        criterion: of that plan; one that needs no data.
        round_to: of that plan.
    """
    network, shape = _network(model, kwargs, input_shape)
    graph = trace(network, torch.zeros(shape))
    channels = sum(group.width for group in graph.groups) + sum(pin.channels for pin in graph.pinned)
    record: Record = {
        "model": model,
        "input_shape": list(shape),
        "params": graph_params(graph),
        "macs": graph_macs(graph),
        "groups": len(graph.groups),
        "channels": channels,
        "removable": sum(group.width - 1 for group in graph.groups),
        "pinned": [{"module": pin.module, "reason": pin.reason, "channels": pin.channels} for pin in graph.pinned],
        "seconds": graph.seconds,
        "group_table": [
            {
                "id": group.id,
                "width": group.width,
                "tensors": len({piece.tensor for piece in group.slices}),
                "reads": len(group.reads()),
            }
            for group in graph.groups
        ],
    }
    if macs_keep is not None:
        record["dry_run"] = _dry_run(network, graph, macs_keep, criterion, round_to)
    return record


def _network(model: str, kwargs: str, input_shape: str) -> tuple[nn.Module, tuple[int, ...]]:
    shape = parse_shape(input_shape) if input_shape else None
    if ":" in model and not Path(model).exists():
        if shape is None:
            raise InputError("a network by its builder needs --input-shape, such as 1,3,352,352.")
        try:
            arguments = json.loads(kwargs)
        except json.JSONDecodeError as error:
            raise RecipeError(f"--kwargs {kwargs!r} is not JSON ({error}).") from error
        if not isinstance(arguments, dict):
            raise RecipeError(f"--kwargs {kwargs!r} is not a JSON object; write names and values.")
        return ModelSpec(model, arguments).build(), shape
    run = RunFolder(Path(model))
    run.check()
    side = read_recipe(run.path / "recipe.yaml").data.size
    return load(run.path), shape or (1, 3, side, side)


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


def _dry_run(
    network: nn.Module, graph: ChannelGraph, macs_keep: float, criterion: str, round_to: int
) -> dict[str, Any]:
    if criterion not in CRITERIA:
        raise RecipeError(f"no criterion is called {criterion!r}; known: {', '.join(CRITERIA)}.")
    try:
        scores = CRITERIA[criterion](0).score(network, graph)
    except EvidenceError as error:
        raise InputError(
            f"a dry run with {criterion!r} needs data; use l2, l1, random or uniform, or `secateur prune`."
        ) from error
    plan = allocate(graph, scores, MacsBudget(macs_keep), round_to=round_to)
    kept = {group.id: len(plan.kept.get(group.id, range(group.width))) for group in graph.groups}
    floor = {group.id: min(group.width, round_to) for group in graph.groups}
    return {
        "criterion": criterion,
        "macs_keep_ratio": plan.reached["macs_keep_ratio"],
        "params_keep_ratio": plan.reached["params_keep_ratio"],
        "kept": kept,
        "at_floor": [group.id for group in graph.groups if kept[group.id] == floor[group.id] < group.width],
    }
