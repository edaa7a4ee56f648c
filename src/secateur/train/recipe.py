"""How a stage of training runs: settings as frozen data, checked when they are made."""

import math
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_WARM_UP = 0.3  # share of the steps over which one_cycle rises
_INITIAL = 0.04  # share of the highest rate at which it starts


class TrainRecipe(BaseModel):
    """Settings of one stage of training with AdamW; unknown keys fail.

    The defaults suit a U-Net of 1 to 30 million parameters trained from scratch on some hundred to a few
    thousand images, with instance or batch normalisation and a Dice + BCE loss.

    Attributes:
        epochs: passes over the training set. Fixed, without early stopping: the rate schedule is made for
            exactly this many, and the best epoch on validation is kept anyway.
        batch_size: samples per step; the last batch of an epoch may be smaller, so that every case is seen.
        learning_rate: the highest rate of the schedule. 1e-3 is AdamW's usual value for convolutions with
            normalisation; recovery after pruning starts from good weights and wants about a third of it.
        weight_decay: decoupled decay (Loshchilov & Hutter 2019) of kernels only. Biases, norm scales and
            PReLU slopes are one-dimensional and exempt: decay would pull them to a value without meaning.
        schedule: ``one_cycle`` rises before it falls, for fresh weights; ``cosine`` only falls, for weights
            that are already good. See `learning_rate_at`.
        precision: ``auto`` is ``bfloat16`` autocast on a CUDA device that computes in it, where convolutions
            gain most, and ``float32`` elsewhere: few CPUs have fast bfloat16, and resuming bitwise is
            promised there. bfloat16 has the exponent range of float32, so no loss scaling is needed.
        gradient_clip: largest L2 norm of the whole gradient. AdamW ignores a constant factor, so this only
            keeps one outlying batch from dominating the running moments.
        seed: decides the order of samples and the drop-out of every epoch.
        workers: processes that load data; 0 loads in the training process. Never changes a result.
        keep_epoch: the epoch of which a checkpoint is kept for good, as ``<stage>-epoch-<k>.pt``, to rewind to later.
        skip_epochs: epochs at the start that are left out, as if they had been trained: the rest of the schedule
            and of the order of samples, repeated from weights that were rewound (Renda et al. 2020).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_clip: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0)
    workers: int = Field(0, ge=0)
    keep_epoch: int | None = Field(None, ge=1)
    skip_epochs: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _lie_within(self) -> Self:
        skipped = self.skip_epochs or 0
        if skipped >= self.epochs:
            raise ValueError(f"skip_epochs {skipped} leaves none of {self.epochs} epochs; skip fewer")
        if self.keep_epoch is not None and not skipped < self.keep_epoch <= self.epochs:
            raise ValueError(
                f"keep_epoch {self.keep_epoch} is not trained; give one from {skipped + 1} to {self.epochs}"
            )
        return self


def in_rounds(last: TrainRecipe | None, rounds: int, round_epochs: int) -> tuple[TrainRecipe, ...]:
    """The training after each of several rounds: ``round_epochs`` of ``last``, and last the whole; none without one."""
    if last is None:
        return ()
    return (*[last.model_copy(update={"epochs": round_epochs})] * (rounds - 1), last)


def trained_epochs(stages: Iterable[TrainRecipe]) -> int:
    """How many epochs are really trained in all, those that are skipped left out."""
    return sum(stage.epochs - (stage.skip_epochs or 0) for stage in stages)


class DistillationRecipe(BaseModel):
    """How much a teacher counts in the loss, and how soft its answers are (Hinton, Vinyals & Dean 2015).

    Attributes:
        weight: share of the teacher, ``(1 - weight) * task + weight * distillation``; 1 trains without
            truth. Half by default: the truth says what is right, the teacher how sure one can be.
        temperature: divides both networks' logits. 2 by default: binary logits of a trained network saturate
            at 1, and a much larger one would teach the sign of the logits only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float = Field(0.5, gt=0, le=1)
    temperature: float = Field(2.0, gt=0)


def learning_rate_at(recipe: TrainRecipe, progress: float) -> float:
    """Return the learning rate after the share ``progress`` of all steps of a stage, in [0, 1].

    ``one_cycle`` (Smith & Topin 2018): half a cosine up from 1/25 of the highest rate over the first 30 % of
    the steps, half a cosine down to zero over the rest; the momentum stays constant, unlike in the paper.
    ``cosine`` (Loshchilov & Hutter 2017, no restarts): half a cosine from the highest rate down to zero.
    """
    if recipe.schedule == "one_cycle" and progress < _WARM_UP:
        rising = (1 - math.cos(math.pi * progress / _WARM_UP)) / 2
        return recipe.learning_rate * (_INITIAL + (1 - _INITIAL) * rising)
    start = _WARM_UP if recipe.schedule == "one_cycle" else 0.0
    return recipe.learning_rate * (1 + math.cos(math.pi * (progress - start) / (1 - start))) / 2
