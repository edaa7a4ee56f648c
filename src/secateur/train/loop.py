"""The training loop: plain and ours, on Accelerate for devices and loading."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from secateur.errors import DataError, InputError, RecipeError, RecordError, TrainingError
from secateur.records import Record
from secateur.train.checkpoint import (
    Checkpoint,
    check_resumable,
    checkpoint_path,
    load_checkpoint,
    save_checkpoint,
    write_metrics,
)
from secateur.train.objective import Agreement, Loss, distillation_loss, heads, task_loss
from secateur.train.order import EpochOrder, epoch_seed
from secateur.train.progress import EpochProgress
from secateur.train.recipe import DistillationRecipe, TrainRecipe, learning_rate_at


class TrainingSet(Protocol):
    """Samples ``(image (3, S, S), mask (1, S, S))``, float32, that depend on seed, epoch and index alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]: ...

    def set_epoch(self, epoch: int, /) -> None:
        """Choose the epoch, 1 and up, that later items belong to."""


class Constraint(Protocol):
    """What training must not undo, such as single weights that were pruned."""

    def held(self, model: nn.Module, optimizer: Optimizer, /) -> AbstractContextManager[None]:
        """Make it hold for ``model``, now and inside the ``with`` block after every step of ``optimizer``."""

    def state_dict(self) -> dict[str, Tensor]:
        """What it demands, on the CPU: part of each checkpoint. With any other a stage cannot go on."""


@dataclass(frozen=True)
class FitResult:
    """A finished stage.

    Attributes:
        model: the network that was given, with the weights of the best epoch.
        best_epoch: the earliest epoch with the best validation score.
        best_score: that score; higher is better.
        seconds: spent on all epochs, validation included, in this process and in those before it.
    """

    model: nn.Module
    best_epoch: int
    best_score: float
    seconds: float


@dataclass(frozen=True)
class _Job:
    """What stays the same over all epochs of a stage."""

    model: nn.Module
    loss: Loss
    train_set: TrainingSet
    validate: Callable[[nn.Module], float]
    recipe: TrainRecipe
    teacher: nn.Module | None
    distillation: DistillationRecipe | None
    agreement: Agreement
    constraint: Constraint | None
    score: str
    stage: str
    folder: Path

    @property
    def path(self) -> Path:
        """Of the checkpoint."""
        return checkpoint_path(self.folder, self.stage)

    @property
    def metrics(self) -> Path:
        """Of the lines of metrics of all stages."""
        return self.folder / "metrics.jsonl"

    @property
    def settings(self) -> Record:
        """What decides the result and so must not change before a resume."""
        distillation = None if self.distillation is None else self.distillation.model_dump()
        recipe = self.recipe.model_dump(exclude={"workers"})
        return {**recipe, "distillation": distillation, "training samples": len(self.train_set)}

    @property
    def demands(self) -> dict[str, Tensor]:
        """What training must not undo; empty without a constraint."""
        return {} if self.constraint is None else self.constraint.state_dict()


@dataclass(frozen=True)
class _Rig:
    """The parts that Accelerate has prepared for the device."""

    accelerator: Any  # Accelerator; imported where it is made, because it takes a second
    optimizer: Any  # AcceleratedOptimizer
    loader: Any  # DataLoaderShard
    autocast: torch.autocast


def fit(
    model: nn.Module,
    *,
    loss: Loss,
    train_set: TrainingSet,
    validate: Callable[[nn.Module], float],
    recipe: TrainRecipe,
    folder: Path,
    stage: str = "train",
    teacher: nn.Module | None = None,
    distillation: DistillationRecipe | None = None,
    agreement: Agreement = distillation_loss,
    constraint: Constraint | None = None,
    score: str = "dice",
    resume: bool = False,
    console: Console | None = None,
) -> FitResult:
    """Train ``model`` in place and leave it with the weights of its best epoch on validation.

    After every epoch ``folder/checkpoints/<stage>.pt`` and ``folder/metrics.jsonl`` are replaced atomically.
    With ``resume`` a stage that was killed anywhere continues from there; on the CPU, with the same number
    of threads, it ends with bitwise the weights of an uninterrupted run. A finished stage returns at once.
    The global random state is the caller's again after every epoch.

    Args:
        model: any network; several heads are weighted as in `task_loss`. Gradients are cleared; device and
            train/eval modes are restored.
        loss: logits ``(N, 1, H, W)`` in float32 and target ``(N, 1, H, W)`` -> ``(N,)``; the batch mean is
            minimised.
        train_set: see `TrainingSet`.
        validate: gets ``model`` in eval mode, float32, on the training device, under ``no_grad``; returns
            the mean Dice, or another finite score of which higher is better.
        recipe: see `TrainRecipe`.
        folder: the run folder.
        stage: ``train``, ``recover-1``, ...; names the checkpoint and the lines of metrics.
        teacher: the network to learn from, run in eval mode and left as it was.
        distillation: given with ``teacher``, and only then.
        agreement: how far the main head is from the teacher's; one value per sample, at the recipe's temperature.
        constraint: holds from before the first step to the end, in every epoch that is kept; such as
            `secateur.prune.weights.WeightMasks`.
        score: what ``validate`` returns, as the key ``val_<score>`` of the lines of metrics.
        resume: continue from the checkpoint of this stage if there is one.
        console: shows progress; None is silent.

    Raises:
        InputError: the network, loss, data or recipe cannot be used together.
        RecordError: a checkpoint exists and ``resume`` is false, or it belongs to other settings, another
            network or another constraint.
        TrainingError: the loss, its gradient or the score is not finite; the last checkpoint stays.
    """
    job = _Job(
        model, loss, train_set, validate, recipe, teacher, distillation, agreement, constraint, score, stage, folder
    )
    _check_inputs(job)
    last = _last_checkpoint(job, resume=resume)
    if last is None or last.epoch < recipe.epochs:
        last = _train(job, last, console)
    write_metrics(job.metrics, last.history, stage=stage)
    model.load_state_dict(last.best_model)
    seconds = math.fsum(line["seconds"] for line in last.history)
    return FitResult(model, last.best_epoch, last.best_score, seconds)


def _check_inputs(job: _Job) -> None:
    if len(job.train_set) == 0:
        raise DataError("The training set is empty; give at least one case.")
    if not any(parameter.requires_grad for parameter in job.model.parameters()):
        raise InputError("The network has no parameter that requires a gradient; nothing can be trained.")
    if (job.teacher is None) != (job.distillation is None):
        given, missing = ("distillation", "teacher") if job.teacher is None else ("teacher", "distillation")
        raise RecipeError(f"A {given} is given without a {missing}; give both to distil, or neither.")
    if job.teacher is job.model:
        raise RecipeError("The teacher is the network itself; give a copy of the dense network.")


def _last_checkpoint(job: _Job, *, resume: bool) -> Checkpoint | None:
    if not job.path.exists():
        return None
    if not resume:
        raise RecordError(f"{job.path} exists already; resume it, or delete it to train this stage from its start.")
    last = load_checkpoint(job.path)
    check_resumable(last, job.path, settings=job.settings, model=job.model.state_dict(), constraint=job.demands)
    return last


def _train(job: _Job, last: Checkpoint | None, console: Console | None) -> Checkpoint:
    """Run the epochs after ``last``, of which there is at least one."""
    with ExitStack() as stack:
        stack.enter_context(_lent(job.model))
        stack.callback(job.model.zero_grad)
        rig = _set_up(job, last)
        if job.teacher is not None:
            stack.enter_context(_lent(job.teacher))
            job.teacher.to(rig.accelerator.device).eval()
        if job.constraint is not None:
            stack.enter_context(job.constraint.held(job.model, rig.optimizer))
        done = (job.recipe.skip_epochs or 0) if last is None else last.epoch
        progress = stack.enter_context(
            EpochProgress(console, stage=job.stage, epochs=job.recipe.epochs, steps=len(rig.loader), done=done)
        )
        for epoch in range(done + 1, job.recipe.epochs + 1):
            last = _run_epoch(job, rig, epoch=epoch, last=last, progress=progress)
            if epoch == job.recipe.keep_epoch:
                save_checkpoint(checkpoint_path(job.folder, job.stage, epoch), last)
            save_checkpoint(job.path, last)
            write_metrics(job.metrics, last.history, stage=job.stage)
            progress.epoch(last.history[-1])
    assert last is not None, "a stage has at least one epoch"
    return last


@contextmanager
def _lent(model: nn.Module) -> Iterator[None]:
    """Restore device, memory format and every submodule's train/eval mode, and take off what Accelerate left behind."""
    device = next(iter(model.parameters())).device
    modes = [(module, module.training) for module in model.modules()]
    contiguous = [parameter for parameter in model.parameters() if parameter.is_contiguous()]
    try:
        yield
    finally:
        model.to(device)
        for parameter in contiguous:
            parameter.data = parameter.data.contiguous()
        for module, training in modes:
            module.training = training
        # With this mark Accelerate would leave the network, and every copy of it, where it is next time.
        model.__dict__.pop("_is_accelerate_prepared", None)


def _set_up(job: _Job, last: Checkpoint | None) -> _Rig:
    from accelerate import Accelerator  # heavy

    # Accelerate's precision is one per process, for good, and patches `forward`; so ours is a plain autocast.
    accelerator = Accelerator(mixed_precision="no")
    if accelerator.num_processes > 1:
        raise RecipeError(
            f"Training was started in {accelerator.num_processes} processes and runs in one; start it "
            "without a launcher."
        )
    model = accelerator.prepare_model(job.model)
    optimizer = accelerator.prepare_optimizer(_optimizer(model, job.recipe))
    loader = DataLoader(
        cast("Dataset[tuple[Tensor, Tensor]]", job.train_set),
        batch_size=job.recipe.batch_size,
        sampler=EpochOrder(len(job.train_set), seed=job.recipe.seed),
        num_workers=job.recipe.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    if last is not None:
        job.model.load_state_dict(last.model)
        optimizer.load_state_dict(last.optimizer)
    loader = accelerator.prepare_data_loader(loader)
    narrow = _in_bfloat16(job.recipe, accelerator.device)
    for parameter in job.model.parameters() if narrow else ():
        if parameter.ndim == 4:  # a 2D kernel: bfloat16 convolves fastest so
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return _Rig(accelerator, optimizer, loader, torch.autocast(accelerator.device.type, torch.bfloat16, narrow))


def _optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.AdamW:
    """AdamW that decays kernels, which have two or more dimensions, and nothing else."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate)


def _in_bfloat16(recipe: TrainRecipe, device: torch.device) -> bool:
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return recipe.precision == "bfloat16" or (recipe.precision == "auto" and fast)


def _run_epoch(job: _Job, rig: _Rig, *, epoch: int, last: Checkpoint | None, progress: EpochProgress) -> Checkpoint:
    """Train and validate one epoch."""
    started = time.perf_counter()
    train_loss, rate = _train_epoch(job, rig, epoch=epoch, progress=progress)
    job.model.eval()
    with torch.no_grad():
        score = float(job.validate(job.model))
    if not math.isfinite(score):
        raise TrainingError(
            f"The validation score of epoch {epoch} is {score}; {_what_is_kept(job, epoch)} "
            "Check that the validation split has cases whose score is defined."
        )
    line = {
        "stage": job.stage,
        "epoch": epoch,
        "epochs": job.recipe.epochs,
        "train_loss": train_loss,
        f"val_{job.score}": score,
        "lr": rate,
        "seconds": time.perf_counter() - started,
    }
    weights = job.model.state_dict()
    if last is None or score > last.best_score:
        best_epoch, best_score = epoch, score
        best_model = {name: value.to("cpu", copy=True) for name, value in weights.items()}
    else:
        best_epoch, best_score, best_model = last.best_epoch, last.best_score, last.best_model
    return Checkpoint(
        settings=job.settings,
        epoch=epoch,
        model=weights,
        optimizer=rig.optimizer.state_dict(),
        best_epoch=best_epoch,
        best_score=best_score,
        best_model=best_model,
        history=[*([] if last is None else last.history), line],
        constraint=job.demands,
    )


def _train_epoch(job: _Job, rig: _Rig, *, epoch: int, progress: EpochProgress) -> tuple[float, float]:
    """Take the steps of one epoch; return the mean loss over its samples and the last learning rate."""
    recipe, device, steps = job.recipe, rig.accelerator.device, len(rig.loader)
    total, rate = 0.0, 0.0
    job.model.train()
    rig.loader.set_epoch(epoch)  # goes on to EpochOrder and the training set
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(epoch_seed(recipe.seed, epoch))  # drop-out
        for step, (images, masks) in enumerate(rig.loader):
            rate = learning_rate_at(recipe, ((epoch - 1) * steps + step) / (recipe.epochs * steps))
            for group in rig.optimizer.param_groups:
                group["lr"] = rate
            rig.optimizer.zero_grad()
            losses = _losses(job, rig, images, masks)
            rig.accelerator.backward(losses.mean())
            norm = rig.accelerator.clip_grad_norm_(job.model.parameters(), recipe.gradient_clip).item()
            batch_loss = losses.detach().mean().item()
            if not math.isfinite(batch_loss) or not math.isfinite(norm):
                raise TrainingError(
                    f"At epoch {epoch}, step {step + 1} of {steps}, the loss is {batch_loss:.4g}, the norm "
                    f"of its gradient {norm:.4g}, the learning rate {rate:.3g}; {_what_is_kept(job, epoch)} "
                    "Train again with a lower learning_rate or in float32, and look for non-finite images."
                )
            rig.optimizer.step()
            total += batch_loss * len(losses)
            progress.step()
    return total / len(job.train_set), rate


def _losses(job: _Job, rig: _Rig, images: Tensor, masks: Tensor) -> Tensor:
    """Return the loss of each sample of a batch, ``(N,)``, teacher included."""
    with rig.autocast:
        output = job.model(images)
    logits = heads(output, masks)
    losses = task_loss(logits, masks, loss=job.loss)
    if job.teacher is None or job.distillation is None:
        return losses
    with torch.no_grad(), rig.autocast:
        answer = job.teacher(images)
    agreement = job.agreement(logits[0], heads(answer, masks)[0], temperature=job.distillation.temperature)
    return (1 - job.distillation.weight) * losses + job.distillation.weight * agreement


def _what_is_kept(job: _Job, epoch: int) -> str:
    first = (job.recipe.skip_epochs or 0) + 1
    return f"{job.path} keeps epoch {epoch - 1}." if epoch > first else "no epoch was finished, so nothing is kept."
