"""How a trained network is cut and recovers, as frozen data."""

import difflib
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from secateur.prune.criteria import CRITERIA
from secateur.train.recipe import DistillationRecipe, TrainRecipe, in_rounds


class PruneRecipe(BaseModel):
    """How a trained network is cut and recovers.

    Attributes:
        criterion: a name in `secateur.prune.criteria.CRITERIA`.
        budget: what ``keep_ratio`` limits on the whole network: MACs per frame, or parameters.
        keep_ratio: share of the dense network's cost to keep, in (0, 1].
        rounds: 1 cuts once; more cut in equal ratios, with ``round_epochs`` of recovery after each but the last.
        round_epochs: epochs between rounds.
        round_to: widths in channels are multiples of this; 8 is what CPU kernels compute at once.
        min_channels: no group falls below this many channels, so that no layer becomes a bottleneck of one channel.
        min_keep_ratio: nor below this share of its own width.
        scoring_samples: training frames that the criterion sees; None takes all.
        seed: draws what the criterion draws, and the views of training frames during recovery.
        recovery: training after the last cut. A third of the usual rate, falling only: the weights are good already.
            None leaves the network as it was cut, in one round.
        distillation: learn from the dense network during recovery too; None does not. ``--set pruning.distillation={}``
            takes its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: str = "taylor"
    budget: Literal["macs", "params"] = "macs"
    keep_ratio: float = Field(0.10, gt=0, le=1)
    rounds: int = Field(1, ge=1)
    round_epochs: int = Field(3, ge=1)
    round_to: int = Field(8, ge=1)
    min_channels: int = Field(8, ge=1)
    min_keep_ratio: float = Field(0.0, ge=0, le=1)
    scoring_samples: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    recovery: TrainRecipe | None = TrainRecipe(epochs=20, learning_rate=5e-4, schedule="cosine")
    distillation: DistillationRecipe | None = None

    @field_validator("criterion")
    @classmethod
    def _is_known(cls, name: str) -> str:
        return known_criterion(name)

    @model_validator(mode="after")
    def _rounds_recover(self) -> Self:
        if self.recovery is None and (self.rounds > 1 or self.distillation):
            raise ValueError("without a recovery there is one round and no distillation; give a recovery")
        return self

    @property
    def recoveries(self) -> tuple[TrainRecipe, ...]:
        """The training after each cut; empty where the network stays as it was cut."""
        return in_rounds(self.recovery, self.rounds, self.round_epochs)


def known_criterion(name: str) -> str:
    """Return ``name`` if it is in `secateur.prune.criteria.CRITERIA`; `ValueError` with the nearest one otherwise."""
    if name not in CRITERIA:
        near = difflib.get_close_matches(name, CRITERIA, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no criterion is called {name!r}; {hint}known: {', '.join(CRITERIA)}")
    return name
