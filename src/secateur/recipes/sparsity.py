"""How single weights of a trained network are taken out, and how it recovers, as frozen data."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from secateur.train.recipe import TrainRecipe, in_rounds


class SparsityRecipe(BaseModel):
    """How single weights are set to zero for good (magnitude pruning, arXiv 2206.07422) and what is left recovers.

    Attributes:
        scope: ``layer`` takes the same share out of every layer, ``network`` the smallest weights wherever they are,
            ``2:4`` two of every four along the input channels, for hardware that computes with that pattern; its
            compression is 2.
        compression: weights before / weights left, over the weights that may go, 1 or more.
        score: ``magnitude`` keeps the largest weights; ``random`` keeps any, the baseline.
        branches: parts of the network by module name, such as ``semantic``, to which it is limited; none means all.
        outputs: whether the layers that give the network's outputs lose weights too.
        rounds: 1 sets the masks once; more let the share taken out grow from round to round as a cubic polynomial
            (Zhu & Gupta 2017), with ``round_epochs`` of recovery after each but the last.
        round_epochs: epochs between rounds.
        rewind_epoch: after each round the weights that are left go back to what they were after this epoch of dense
            training (Renda et al. 2020), so that recovery repeats the rest of it; None goes on from where they are.
        seed: draws random masks, and the views of training images during recovery.
        recovery: training with the masks on. None leaves the network as it was cut, in one round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: Literal["layer", "network", "2:4"] = "layer"
    compression: float = Field(16.0, ge=1, allow_inf_nan=False)
    score: Literal["magnitude", "random"] = "magnitude"
    branches: tuple[str, ...] = ()
    outputs: bool = False
    rounds: int = Field(1, ge=1)
    round_epochs: int = Field(3, ge=1)
    rewind_epoch: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    recovery: TrainRecipe | None = TrainRecipe(epochs=20, learning_rate=5e-4, schedule="cosine")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.recovery is None and (self.rounds > 1 or self.rewind_epoch):
            raise ValueError("without a recovery there is one round and no rewinding; give a recovery")
        if self.scope == "2:4" and self.compression != 2:
            raise ValueError(f"the pattern 2:4 has the compression 2, not {self.compression:g}")
        return self

    def recoveries(self, dense_training: TrainRecipe) -> tuple[TrainRecipe, ...]:
        """The training after each cut of a network that was trained so; empty where it stays as it was cut."""
        if self.rewind_epoch is None:
            return in_rounds(self.recovery, self.rounds, self.round_epochs)
        rest = dense_training.model_copy(update={"skip_epochs": self.rewind_epoch, "keep_epoch": None})
        return (rest,) * self.rounds
