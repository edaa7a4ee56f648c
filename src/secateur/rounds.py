"""Score, remove, recover, in one round or several; every round is on disk before the next begins."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from secateur.cost.macs import graph_macs, graph_params
from secateur.graph.describe import kept_records
from secateur.graph.records import ChannelGraph
from secateur.nets.spec import ModelSpec
from secateur.prune.allocate import allocate
from secateur.prune.budget import Budget, MacsBudget, ParamsBudget
from secateur.prune.criteria import CRITERIA
from secateur.prune.criteria.random import Random
from secateur.prune.evidence import Evidence, Scores
from secateur.prune.plan import PruningPlan
from secateur.prune.schedule import geometric
from secateur.prune.surgery import remove_with_proof
from secateur.prune.trial import trace
from secateur.recipes.pruning import PruneRecipe
from secateur.records import Record, read_record, write_record
from secateur.store.networks import load, read_architecture, save
from secateur.tasks.task import Task, TaskSet
from secateur.train.loop import FitResult, fit
from secateur.train.progress import watched
from secateur.train.recipe import TrainRecipe, trained_epochs

_BUDGETS: dict[str, type[Budget]] = {"macs": MacsBudget, "params": ParamsBudget}


@dataclass(frozen=True)
class PruningJob:
    """What stays the same over all rounds."""

    dense: nn.Module
    graph: ChannelGraph
    spec: ModelSpec
    task: Task
    train_set: TaskSet
    val_set: TaskSet
    recipe: PruneRecipe
    seed: int
    folder: Path
    resume: bool
    console: Console | None


@dataclass(frozen=True)
class PruningResult:
    """The recovered network, the plan of all rounds together, ``prune.json`` and the training in ``run.json``."""

    model: nn.Module
    plan: PruningPlan
    record: Record
    training: Record


def prune_in_rounds(job: PruningJob) -> PruningResult:
    """Prune ``job.dense``, which stays untouched, down to the recipe's budget.

    Raises:
        BudgetError: the budget cannot be reached; the message names the nearest one.
        ProofError: a removal was not exact; nothing is handed back.
    """
    model, graph, plan = job.dense, job.graph, PruningPlan({}, {})
    rounds: list[Record] = []
    stages: list[FitResult] = []
    for number in range(1, job.recipe.rounds + 1):
        cut, model, plan = _cut(job, number, model, graph, plan)
        graph = job.graph.keep(plan.kept)
        if job.recipe.recovery is None:
            before = cut[f"val_{job.task.score}_before"]
            training = {"epochs": 0, "best_epoch": 0, f"best_val_{job.task.score}": before, "seconds": 0.0}
        else:
            stages.append(_recover(job, job.recipe.recoveries[number - 1], number, model))
            training = training_record(stages, job.recipe.recoveries, score=job.task.score)
        rounds.append({**cut, f"val_{job.task.score}_after": training[f"best_val_{job.task.score}"]})
    return PruningResult(model, plan, _record(job.recipe, job.graph, graph, rounds), training)


def trace_within_reach(model: nn.Module, size: int, recipe: PruneRecipe) -> ChannelGraph:
    """Trace ``model`` at ``size``, refusing a budget that no choice of channels could meet.

    Raises:
        BudgetError: the message names the nearest budget.
        GraphError: the network cannot be traced.
    """
    graph = trace(model, torch.zeros(1, 3, size, size))
    _allocate(recipe, graph, Random().score(model, graph), _BUDGETS[recipe.budget](recipe.keep_ratio))
    return graph


def training_record(stages: Sequence[FitResult], recoveries: Sequence[TrainRecipe], *, score: str) -> Record:
    """What ``run.json`` says of training: of all stages the time, of the last the best epoch."""
    return {
        "epochs": trained_epochs(recoveries),
        "best_epoch": stages[-1].best_epoch,
        f"best_val_{score}": stages[-1].best_score,
        "seconds": sum(stage.seconds for stage in stages),
    }


def _cut(
    job: PruningJob, number: int, model: nn.Module, graph: ChannelGraph, plan: PruningPlan
) -> tuple[Record, nn.Module, PruningPlan]:
    """Score and remove; a cut that is already on disk is read instead, so that a resume repeats nothing."""
    folder = job.folder / "checkpoints" / f"cut-{number}"
    marker = folder / "cut.json"
    if job.resume and marker.is_file():
        composed = read_architecture(folder)[1]
        return read_record(marker), load(folder), composed or PruningPlan({}, {})
    started = time.perf_counter()
    scores, scoring = _score(job, model, graph)
    step = _allocate(job.recipe, graph, scores, _budget(job.recipe, number, graph, job.graph))
    small, proof = remove_with_proof(model, graph, step)
    composed = plan.then(step)
    cut = {
        "round": number,
        "keep_ratio": geometric(number, job.recipe.rounds, job.recipe.keep_ratio),
        "macs": step.reached["macs"],
        f"val_{job.task.score}_before": job.task.validate(small, job.val_set),
        "seconds": time.perf_counter() - started,
        "scoring": scoring,
        "proof": proof.to_record(),
    }
    save(small, folder, spec=job.spec, plan=composed)
    write_record(marker, cut)  # last: it says that the rest is whole
    return read_record(marker), load(folder), composed


def _allocate(recipe: PruneRecipe, graph: ChannelGraph, scores: Scores, budget: Budget) -> PruningPlan:
    return allocate(
        graph,
        scores,
        budget,
        round_to=recipe.round_to,
        min_channels=recipe.min_channels,
        min_keep_ratio=recipe.min_keep_ratio,
    )


def _score(job: PruningJob, model: nn.Module, graph: ChannelGraph) -> tuple[Scores, Record]:
    criterion = CRITERIA[job.recipe.criterion](job.seed)
    samples = cast("Dataset[tuple[Tensor, Tensor]]", job.train_set.unaugmented(job.recipe.scoring_samples))
    frames = DataLoader(samples, batch_size=8)
    started = time.perf_counter()
    with watched(frames, "score", job.console) as batches:
        scores = criterion.score(model, graph, Evidence(batches, job.task.loss))
    seconds = time.perf_counter() - started
    record = {"samples": scores.samples, "zero_gradients": scores.zero_gradients, "seconds": seconds}
    return scores, {**record, "settings": criterion.settings()}


def _budget(recipe: PruneRecipe, number: int, graph: ChannelGraph, dense_graph: ChannelGraph) -> Budget:
    """This round's budget, relative to the network as it is now: the schedule is relative to the dense one."""
    cost = graph_macs if recipe.budget == "macs" else graph_params
    target = geometric(number, recipe.rounds, recipe.keep_ratio) * cost(dense_graph)
    return _BUDGETS[recipe.budget](min(1.0, target / cost(graph)))  # coarse widths may have met it a round earlier


def _recover(job: PruningJob, recovery: TrainRecipe, number: int, model: nn.Module) -> FitResult:
    return fit(
        model,
        loss=job.task.loss,
        train_set=job.train_set,
        validate=lambda network: job.task.validate(network, job.val_set),
        score=job.task.score,
        recipe=recovery,
        folder=job.folder,
        stage=f"recover-{number}",
        teacher=job.dense if job.recipe.distillation else None,
        distillation=job.recipe.distillation,
        agreement=job.task.agreement,
        resume=job.resume,
        console=job.console,
    )


def _record(recipe: PruneRecipe, dense: ChannelGraph, small: ChannelGraph, rounds: list[Record]) -> Record:
    params, macs = graph_params(dense), graph_macs(dense)
    scorings, proofs = ([entry[key] for entry in rounds] for key in ("scoring", "proof"))
    return {
        "criterion": recipe.criterion,
        "criterion_settings": scorings[-1]["settings"],
        "budget": {"kind": recipe.budget, "keep_ratio": recipe.keep_ratio},
        "reached": {
            "params": graph_params(small),
            "macs": graph_macs(small),
            "params_keep_ratio": graph_params(small) / params,
            "macs_keep_ratio": graph_macs(small) / macs,
        },
        "dense": {"params": params, "macs": macs},
        "input_shape": list(dense.inputs[0].shape),
        "round_to": recipe.round_to,
        "min_channels": recipe.min_channels,
        "min_keep_ratio": recipe.min_keep_ratio,
        "distillation": recipe.distillation.model_dump() if recipe.distillation else None,
        "groups": kept_records(dense, small),
        "pinned": [{"module": pin.module, "reason": pin.reason, "channels": pin.channels} for pin in dense.pinned],
        "proof": {
            "passed": all(proof["passed"] for proof in proofs),
            "max_abs_diff": max(proof["max_abs_diff"] for proof in proofs),
            "max_rel_diff": max(proof["max_rel_diff"] for proof in proofs),
            "modes": proofs[-1]["modes"],
            "reads": sum(proof["reads"] for proof in proofs),
            "untested": sorted({read for proof in proofs for read in proof["untested"]}),
            "noise": max(proof.get("noise", 0.0) for proof in proofs),
            "seconds": sum(proof["seconds"] for proof in proofs),
        },
        "rounds": [
            {key: value for key, value in entry.items() if key not in ("schema", "scoring", "proof")}
            for entry in rounds
        ],
        "scoring": {key: scorings[-1][key] for key in ("samples", "zero_gradients", "seconds")},
    }
