"""Which cuts a sweep compares, as frozen data."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from secateur.recipes.pruning import known_criterion

Share = Annotated[float, Field(gt=0, lt=1)]

_SUBSETS = ("repeated_keep_ratios", "scratch_keep_ratios", "scratch_macs_keep_ratios", "distilled_keep_ratios")


class SweepRecipe(BaseModel):
    """Criteria x budgets x seeds of one task, and the rows beside them.

    Everything else about a cell (recovery, floors, rounds, ...) is the recipe's, the same for all.

    Attributes:
        criteria: names in `secateur.prune.criteria.CRITERIA`. The first one leads: its shapes are trained from fresh
            weights, it is distilled, and its scoring samples are varied.
        keep_ratios: budgets, as shares of the dense network's cost.
        one_shot_keep_ratios: further budgets, for which networks are cut and measured without recovery.
        seeds: one dense training each, and the cuts of it. All budgets are cut from the first.
        repeated_keep_ratios: the budgets that are cut from the other dense networks too; None means all.
        scratch_keep_ratios: budgets whose shape is also trained from fresh weights, for as many epochs as dense
            training and recovery took together.
        scratch_macs_keep_ratios: the same for as many multiply-adds, which takes as long as dense training, or longer.
        distilled_keep_ratios: budgets for which recovery also learns from the dense network.
        scoring_samples: numbers of training frames to score with, beside all of them; cut to
            ``samples_keep_ratio`` and measured without recovery, for every seed.
        samples_keep_ratio: budget of the above.
        elsewhere: further data whose test split, which nothing is trained or chosen on, is evaluated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    criteria: tuple[str, ...] = Field(("taylor", "l2", "random", "uniform"), min_length=1)
    keep_ratios: tuple[Share, ...] = Field((0.5, 0.25, 0.1, 0.05), min_length=1)
    one_shot_keep_ratios: tuple[Share, ...] = ()
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    repeated_keep_ratios: tuple[Share, ...] | None = None
    scratch_keep_ratios: tuple[Share, ...] = ()
    scratch_macs_keep_ratios: tuple[Share, ...] = ()
    distilled_keep_ratios: tuple[Share, ...] = ()
    scoring_samples: tuple[Annotated[int, Field(ge=1)], ...] = ()
    samples_keep_ratio: Share = 0.5
    elsewhere: tuple[str, ...] = ()

    @field_validator("criteria")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known_criterion(name) for name in names)

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        for name in type(self).model_fields:
            values = getattr(self, name)
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{name} names one value twice: {', '.join(map(str, values))}")
        for name in _SUBSETS:
            unknown = set(getattr(self, name) or ()) - set(self.keep_ratios)
            if unknown:
                raise ValueError(f"{name} has {min(unknown)}, which is not among keep_ratios {self.keep_ratios}")
        return self
