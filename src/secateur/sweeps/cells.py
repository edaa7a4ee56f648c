"""A cell of a sweep: one network with the whole of its settings."""

from dataclasses import dataclass
from typing import Any, final

from secateur.recipes.recipe import Recipe
from secateur.recipes.sweep import SweepRecipe
from secateur.records import Record
from secateur.roles import Role, Variant, variant_to_record
from secateur.train.recipe import trained_epochs


@final
@dataclass(frozen=True)
class Cell:
    """One network of a sweep.

    Attributes:
        name: of its run folder below the sweep's, such as ``seed-0/taylor-10``.
        role: how it is made.
        seed: of the dense training that it belongs to.
        recipe: all of its settings.
        needs: the cell whose network it starts from: dense for a cut, pruned for a shape.
        criterion: that chose the channels; None for a dense network.
        keep_ratio: its budget; None for a dense network.
        variant: what sets it apart from the plain cut at this budget.
    """

    name: str
    role: Role
    seed: int
    recipe: Recipe
    needs: str | None = None
    criterion: str | None = None
    keep_ratio: float | None = None
    variant: Variant | None = None

    @property
    def epochs(self) -> int:
        """How long it trains."""
        training = self.recipe.training
        if self.role is Role.PRUNED:
            return trained_epochs(self.recipe.pruning.recoveries)
        return trained_epochs(self.recipe.sparsity.recoveries(training) if self.role is Role.SPARSE else (training,))

    @property
    def recovered(self) -> bool:
        """Whether the network is trained after it was made."""
        return self.epochs > 0

    def record(self) -> Record:
        """What is known before it runs, as `sweep.json` has it."""
        return {
            "name": self.name,
            "seed": self.seed,
            "kind": self.role.value,
            "criterion": self.criterion,
            "keep_ratio": self.keep_ratio,
            "variant": variant_to_record(self.variant),
            "recovered": self.recovered,
        }


def dense_cell(recipe: Recipe, seed: int) -> Cell:
    """The dense network of one seed."""
    own = recipe.model_copy(update={"sweep": SweepRecipe(), "ratios": None})  # a cell is a run like any other
    settings: dict[str, Any] = {"training.seed": seed, "pruning.seed": seed, "sparsity.seed": seed}
    for stage in ("pruning", "sparsity"):
        if getattr(recipe, stage).recovery is not None:
            settings[f"{stage}.recovery.seed"] = seed
    return Cell(f"seed-{seed}/dense", Role.DENSE, seed, own.with_settings(settings))


def cut_cell(dense: Cell, criterion: str, keep: float) -> Cell:
    """What ``criterion`` leaves of a dense network at one budget."""
    return Cell(
        name=f"seed-{dense.seed}/{criterion}-{100 * keep:g}",
        role=Role.PRUNED,
        seed=dense.seed,
        recipe=dense.recipe.with_settings({"pruning.criterion": criterion, "pruning.keep_ratio": keep}),
        needs=dense.name,
        criterion=criterion,
        keep_ratio=keep,
    )
