"""Choose weights, set the others to zero, recover, in one round or several; then take out the filters that died.

Every round is on disk before the next begins, as in `secateur.rounds`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from secateur.cost.macs import graph_macs, graph_params
from secateur.errors import InputError, ProofError
from secateur.graph.records import ChannelGraph
from secateur.nets.spec import ModelSpec
from secateur.prune.compaction import Compaction, compact
from secateur.prune.plan import PruningPlan
from secateur.prune.removal_record import removal_record
from secateur.prune.schedule import polynomial
from secateur.prune.trial import trace
from secateur.prune.weights import (
    LayerWise,
    NetworkWise,
    Pattern,
    PrunableWeight,
    Scope,
    WeightMasks,
    magnitude_masks,
    output_weights,
    prunable_weights,
    random_masks,
    rewind_,
)
from secateur.recipes.sparsity import SparsityRecipe
from secateur.records import Record, read_record, write_record
from secateur.rounds import training_record
from secateur.store.networks import load, save
from secateur.store.sparse import sizes
from secateur.tasks.task import Task, TaskSet
from secateur.train.checkpoint import checkpoint_path, load_checkpoint
from secateur.train.loop import FitResult, fit
from secateur.train.recipe import TrainRecipe

MASKED = "masked"  # the network with its zeros in place, before the dead filters left, below checkpoints


@dataclass(frozen=True)
class SparsityJob:
    """What stays the same over all rounds.

    Attributes:
        dense: the trained network; untouched.
        dense_folder: its run folder, which holds the checkpoint to rewind to.
        training: how it was trained, of which recovery repeats the rest after rewinding.
    """

    dense: nn.Module
    dense_folder: Path
    training: TrainRecipe
    spec: ModelSpec
    task: Task
    train_set: TaskSet
    val_set: TaskSet
    size: int
    recipe: SparsityRecipe
    folder: Path
    resume: bool
    console: Console | None


@dataclass(frozen=True)
class SparsityResult:
    """The network without its dead filters, the plan of those, ``prune.json`` and the training in ``run.json``."""

    model: nn.Module
    plan: PruningPlan | None
    record: Record
    training: Record


def sparsify_in_rounds(job: SparsityJob) -> SparsityResult:
    """Take weights out of a copy of ``job.dense`` as the recipe says.

    Raises:
        BudgetError: nothing would be left.
        InputError: a branch is not there, or the epoch to rewind to was not kept.
        ProofError: taking out dead filters was not exact; the folder keeps the network with its zeros in place.
    """
    weights = weights_within_reach(job.dense, job.size, job.recipe)
    model, masks = job.dense, WeightMasks({weight.name: _whole(weight) for weight in weights})
    recoveries = job.recipe.recoveries(job.training)
    rounds: list[Record] = []
    stages: list[FitResult] = []
    for number in range(1, job.recipe.rounds + 1):
        masks = _choose(job.recipe, number, model, weights, masks)
        entry, model = _cut(job, number, model, masks)
        if recoveries:
            stages.append(_recover(job, recoveries[number - 1], number, model, masks))
            entry = {**entry, f"val_{job.task.score}_after": stages[-1].best_score}
        rounds.append(entry)
    masks.check(model)
    save(model, job.folder / "checkpoints" / MASKED, spec=job.spec, sparse=True)
    graph = trace(model, torch.zeros(1, 3, job.size, job.size))
    small, compaction = _compacted(job, model, graph)
    compacted = graph.keep(compaction.plan.kept)
    record = {
        **_record(job, masks, graph, compacted, rounds),
        "reached": _reached(small, graph, compacted),
        "sizes": sizes(small).to_record(),
        "dense_sizes": sizes(job.dense).to_record(),
        "compaction": compaction.to_record(),
        "proof": compaction.proof.to_record(),
    }
    plan = compaction.plan if compaction.left else None
    before = rounds[-1][f"val_{job.task.score}_before"]
    training = training_record(stages, recoveries, score=job.task.score, untrained=before)
    return SparsityResult(small, plan, record, training)


def require_rewindable(recipe: SparsityRecipe, training: TrainRecipe, *, dense: str, kept: bool) -> None:
    """Refuse an epoch to rewind to that the dense run did not keep, or after which nothing is left to repeat.

    Args:
        recipe: with the epoch, or none.
        training: of the dense run.
        dense: what the message calls that run.
        kept: whether it holds a checkpoint of that epoch, or will.

    Raises:
        InputError: says how to train so that it is kept.
    """
    epoch = recipe.rewind_epoch
    if epoch is None:
        return
    if epoch >= training.epochs:
        raise InputError(
            f"after epoch {epoch} of {training.epochs} nothing is left to repeat; rewind to an earlier one."
        )
    if not kept:
        raise InputError(
            f"{dense} keeps no checkpoint of epoch {epoch} to rewind to; train it with "
            f"--set training.keep_epoch={epoch}, or leave sparsity.rewind_epoch out."
        )


def weights_within_reach(model: nn.Module, size: int, recipe: SparsityRecipe) -> tuple[PrunableWeight, ...]:
    """The weights that may leave; a compression that would leave none of them is refused here, before long work.

    Raises:
        BudgetError: nothing would be left.
        InputError: a branch is not in the network, or a pattern, which is whole at once, is to grow in rounds.
    """
    if recipe.scope == "2:4" and recipe.rounds > 1:
        raise InputError("the pattern 2:4 is whole at once and does not grow in rounds; give --rounds 1.")
    keep = () if recipe.outputs else output_weights(model, torch.zeros(1, 3, size, size))
    weights = prunable_weights(model, keep=keep, parts=recipe.branches)
    random_masks(weights, _scope(recipe, recipe.compression), seed=0)
    return weights


def _choose(
    recipe: SparsityRecipe, number: int, model: nn.Module, weights: Sequence[PrunableWeight], within: WeightMasks
) -> WeightMasks:
    scope = _scope(recipe, polynomial(number, recipe.rounds, recipe.compression))
    if recipe.score == "random":
        return random_masks(weights, scope, seed=recipe.seed, within=within)
    return magnitude_masks(model, weights, scope, within=within)


def _scope(recipe: SparsityRecipe, compression: float) -> Scope:
    if recipe.scope == "2:4":
        return Pattern(2, 4)
    return LayerWise(compression) if recipe.scope == "layer" else NetworkWise(compression)


def _cut(job: SparsityJob, number: int, model: nn.Module, masks: WeightMasks) -> tuple[Record, nn.Module]:
    """Apply the masks to a copy; a cut that is already on disk is read instead, so that a resume repeats nothing."""
    folder = job.folder / "checkpoints" / f"cut-{number}"
    marker = folder / "cut.json"
    if not (job.resume and marker.is_file()):
        started = time.perf_counter()
        save(model, folder, spec=job.spec)
        twin = load(folder)
        if job.recipe.rewind_epoch is None:
            masks.apply_(twin)
        else:
            early = load_checkpoint(checkpoint_path(job.dense_folder, "train", job.recipe.rewind_epoch))
            rewind_(twin, early.model, masks)
        cut = {
            "round": number,
            **masks.to_record(),
            f"val_{job.task.score}_before": job.task.validate(twin, job.val_set),
            "seconds": time.perf_counter() - started,
        }
        save(twin, folder, spec=job.spec, sparse=True)
        write_record(marker, cut)  # last: it says that the rest is whole
    return read_record(marker), load(folder)


def _recover(job: SparsityJob, recovery: TrainRecipe, number: int, model: nn.Module, masks: WeightMasks) -> FitResult:
    return fit(
        model,
        loss=job.task.loss,
        train_set=job.train_set,
        validate=lambda network: job.task.validate(network, job.val_set),
        score=job.task.score,
        recipe=recovery,
        folder=job.folder,
        stage=f"recover-{number}",
        constraint=masks,
        resume=job.resume,
        console=job.console,
    )


def _compacted(job: SparsityJob, model: nn.Module, graph: ChannelGraph) -> tuple[nn.Module, Compaction]:
    try:
        return compact(model, graph)
    except ProofError as error:
        raise ProofError(
            f"{error} What was trained is not lost: {job.folder / 'checkpoints' / MASKED} is the network with its "
            f"zeros in place, and --resume tries once more."
        ) from error


def _whole(weight: PrunableWeight) -> torch.Tensor:
    return torch.ones(weight.shape, dtype=torch.bool)


def _reached(small: nn.Module, graph: ChannelGraph, compacted: ChannelGraph) -> Record:
    """The parameters that are not zero, and the multiply-adds of the filters that are left."""
    left = sum(int(torch.count_nonzero(parameter)) for parameter in small.parameters())
    return {
        "params": left,
        "macs": graph_macs(compacted),
        "params_keep_ratio": left / graph_params(graph),
        "macs_keep_ratio": graph_macs(compacted) / graph_macs(graph),
    }


def _record(
    job: SparsityJob, masks: WeightMasks, dense: ChannelGraph, small: ChannelGraph, rounds: list[Record]
) -> Record:
    """What ``prune.json`` says of the masks and of the groups that dead filters left."""
    recipe = job.recipe
    return {
        **removal_record(dense, small),
        "granularity": "weight",
        "criterion": recipe.score,
        "scope": recipe.scope,
        "branches": list(recipe.branches),
        "outputs": recipe.outputs,
        "budget": {"kind": "compression", "compression": recipe.compression},
        "masks": masks.to_record(),
        "warnings": list(masks.warnings),
        "rewind_epoch": recipe.rewind_epoch,
        "rounds": rounds,
    }
