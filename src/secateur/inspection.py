"""What could be removed from a network, and a dry run of a budget, before anything is touched."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from secateur.cost.macs import graph_macs, graph_params
from secateur.graph.describe import GroupFacts, describe, width_record
from secateur.graph.group_norm import GroupNormMode
from secateur.graph.records import ChannelGraph
from secateur.opening import OpenedModel, is_run
from secateur.prune.trial import trace
from secateur.recipes.recipe import read_recipe
from secateur.records import Record
from secateur.train.progress import waiting
from secateur.without_data import CutRecipe, at_floor, choose, cut_recipe


def inspect(
    opened: OpenedModel,
    *,
    dry_run: CutRecipe | None = None,
    group_norm: GroupNormMode = GroupNormMode.WHOLE,
    console: Console | None = None,
) -> Record:
    """Trace a network and return the record of what can and cannot be removed.

    Args:
        opened: the network.
        dry_run: also plan, without touching anything, as `secateur.without_data.prune` would.
        group_norm: what leaves of a GroupNorm at a time, see `secateur.trace`.
        console: where progress is shown.
    """
    with waiting("trace", console):
        graph = trace(opened.model, torch.zeros(opened.input_shape), group_norm=group_norm)
    channels = sum(group.channels for group in graph.groups) + sum(pin.channels for pin in graph.pinned)
    record: Record = {
        "model": opened.name,
        "input_shape": list(opened.input_shape),
        "group_norm": group_norm.value,
        "params": graph_params(graph),
        "macs": graph_macs(graph),
        "groups": len(graph.groups),
        "channels": channels,
        "removable": sum(group.channels - group.channels // group.width for group in graph.groups),
        "pinned": [asdict(pin) for pin in graph.pinned],
        "seconds": graph.seconds,
        "group_table": [_row(facts) for facts in describe(graph)],
    }
    if dry_run is not None:
        record["dry_run"] = _dry_run(opened.model, graph, dry_run)
    return record


def dry_run_recipe(model: str, settings: Mapping[str, Any]) -> CutRecipe | None:
    """What a dry run plans for: ``settings`` by dotted keys, and where ``model`` is a run folder its recipe's floors.

    Returns:
        None where no budget is asked for.

    Raises:
        BudgetError, RecipeError: see `secateur.without_data.cut_recipe`.
    """
    if "pruning.keep_ratio" not in settings:
        return None
    floors: dict[str, Any] = {}
    if is_run(Path(model)):
        own = read_recipe(Path(model) / "recipe.yaml").pruning
        floors = {f"pruning.{key}": getattr(own, key) for key in ("round_to", "min_channels", "min_keep_ratio")}
    return cut_recipe({**floors, **settings})


def _row(facts: GroupFacts) -> dict[str, Any]:
    group = facts.group
    return {
        "id": group.id,
        **width_record(group),
        "tensors": len({piece.tensor for piece in group.slices}),
        "reads": len(group.reads()),
        "written_by": list(facts.written_by),
        "followed_by": list(facts.followed_by),
        "read_by": list(facts.read_by),
        "macs_share": facts.macs_share,
        "params_share": facts.params_share,
        "exact": group.exact,
        "approximate": list(facts.approximate),
    }


def _dry_run(network: nn.Module, graph: ChannelGraph, recipe: CutRecipe) -> dict[str, Any]:
    plan = choose(network, graph, recipe)
    return {
        "criterion": recipe.criterion,
        "budget": {"kind": recipe.budget, "keep_ratio": recipe.keep_ratio},
        **asdict(recipe.floors),
        **plan.reached,
        "kept": {group.id: group.channels for group in graph.keep(plan.kept).groups},
        "at_floor": at_floor(graph, plan, recipe.floors),
    }
