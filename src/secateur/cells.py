"""The cells of a sweep: which networks its recipe asks for, each with the whole of its settings."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, final

from secateur.recipes.recipe import Recipe
from secateur.recipes.sweep import SweepRecipe
from secateur.records import Record
from secateur.train.recipe import trained_epochs


class Kind(StrEnum):
    """How a cell comes by its network."""

    DENSE = "dense"
    PRUNED = "pruned"
    SPARSE = "sparse"  # single weights are zero
    SCRATCH = "scratch"  # the shape of a pruned network, trained from fresh weights
    SMALL = "small"  # thinner in every layer, trained from fresh weights


@final
@dataclass(frozen=True)
class Cell:
    """One network of a sweep.

    Attributes:
        name: of its run folder below the sweep's, such as ``seed-0/taylor-10``.
        kind: how it is made.
        seed: of the dense training that it belongs to.
        recipe: all of its settings.
        needs: the cell whose network it starts from: dense for a cut, pruned for a shape.
        criterion: that chose the channels; None for a dense network.
        keep_ratio: its budget; None for a dense network.
        variant: what sets it apart from the plain cut at this budget, for the record.
    """

    name: str
    kind: Kind
    seed: int
    recipe: Recipe
    needs: str | None = None
    criterion: str | None = None
    keep_ratio: float | None = None
    variant: Record | None = None

    @property
    def epochs(self) -> int:
        """How long it trains."""
        training = self.recipe.training
        if self.kind is Kind.PRUNED:
            return trained_epochs(self.recipe.pruning.recoveries)
        return trained_epochs(self.recipe.sparsity.recoveries(training) if self.kind is Kind.SPARSE else (training,))

    @property
    def is_cut(self) -> bool:
        """Whether it is made from a trained network, of which it lost a part."""
        return self.kind in (Kind.PRUNED, Kind.SPARSE)

    @property
    def recovered(self) -> bool:
        """Whether the network is trained after it was made."""
        return self.epochs > 0

    def record(self) -> Record:
        """What is known before it runs, as `sweep.json` has it."""
        return {
            "name": self.name,
            "seed": self.seed,
            "kind": self.kind.value,
            "criterion": self.criterion,
            "keep_ratio": self.keep_ratio,
            "variant": self.variant,
            "recovered": self.recovered,
        }


def plan_cells(recipe: Recipe) -> tuple[Cell, ...]:
    """Every cell of the sweep, in the order in which they are run: what takes longest, scratch, comes last."""
    sweep = recipe.sweep
    dense = [dense_cell(recipe, seed) for seed in sweep.seeds]
    first = dense[0]
    repeated = sweep.keep_ratios if sweep.repeated_keep_ratios is None else sweep.repeated_keep_ratios
    cells = [*dense, *(cell for parent in dense for keep in repeated for cell in _compared(parent, sweep, keep))]
    for keep in sweep.keep_ratios:
        cells += [] if keep in repeated else _compared(first, sweep, keep)
    for keep in sweep.one_shot_keep_ratios:
        cells += [_unrecovered(cut_cell(first, criterion, keep)) for criterion in sweep.criteria]
    for parent in dense if sweep.scoring_samples else ():
        whole = cut_cell(parent, sweep.criteria[0], sweep.samples_keep_ratio)  # scored with all frames
        if {whole.name, _unrecovered(whole).name}.isdisjoint(cell.name for cell in cells):
            cells.append(_unrecovered(whole))
        cells += [_sampled(whole, samples) for samples in sweep.scoring_samples]
    cells += [_scratch(first, sweep, keep, matched="macs") for keep in sweep.scratch_macs_keep_ratios]
    return tuple(sorted(cells, key=lambda cell: cell.kind is Kind.SCRATCH))


def _compared(dense: Cell, sweep: SweepRecipe, keep: float) -> Iterator[Cell]:
    """The rows at one budget of one dense network: every criterion, and what the leading one is compared with."""
    for criterion in sweep.criteria:
        yield cut_cell(dense, criterion, keep)
    if keep in sweep.scratch_keep_ratios:
        yield _scratch(dense, sweep, keep, matched="epochs")
    if keep in sweep.distilled_keep_ratios:
        cell = cut_cell(dense, sweep.criteria[0], keep)
        yield _changed(cell, "distilled", {"kind": "distilled"}, {"pruning.distillation": {}})


def dense_cell(recipe: Recipe, seed: int) -> Cell:
    """The dense network of one seed."""
    own = recipe.model_copy(update={"sweep": SweepRecipe(), "ratios": None})  # a cell is a run like any other
    settings: dict[str, Any] = {"training.seed": seed, "pruning.seed": seed, "sparsity.seed": seed}
    for stage in ("pruning", "sparsity"):
        if getattr(recipe, stage).recovery is not None:
            settings[f"{stage}.recovery.seed"] = seed
    return Cell(f"seed-{seed}/dense", Kind.DENSE, seed, own.with_settings(settings))


def cut_cell(dense: Cell, criterion: str, keep: float) -> Cell:
    """What ``criterion`` leaves of a dense network at one budget."""
    return Cell(
        name=f"seed-{dense.seed}/{criterion}-{100 * keep:g}",
        kind=Kind.PRUNED,
        seed=dense.seed,
        recipe=dense.recipe.with_settings({"pruning.criterion": criterion, "pruning.keep_ratio": keep}),
        needs=dense.name,
        criterion=criterion,
        keep_ratio=keep,
    )


def _unrecovered(cell: Cell) -> Cell:
    return _changed(cell, "cut", None, {"pruning.recovery": None})


def _sampled(cell: Cell, samples: int) -> Cell:
    variant = {"kind": "samples", "samples": samples}
    return _changed(_unrecovered(cell), f"of-{samples}", variant, {"pruning.scoring_samples": samples})


def _scratch(dense: Cell, sweep: SweepRecipe, keep: float, *, matched: str) -> Cell:
    """The shape of the leading cut, trained as long as dense network and recovery together, in epochs or in MACs."""
    shape = cut_cell(dense, sweep.criteria[0], keep)
    epochs = round(dense.epochs / (keep if matched == "macs" else 1)) + shape.epochs
    name = f"seed-{dense.seed}/scratch-{100 * keep:g}" + ("-macs" if matched == "macs" else "")
    return replace(
        shape,
        name=name,
        kind=Kind.SCRATCH,
        recipe=shape.recipe.with_settings({"training.epochs": epochs}),
        needs=shape.name,
        variant={"kind": "scratch", "epochs": epochs, "matched": matched},
    )


def _changed(cell: Cell, suffix: str, variant: Record | None, settings: dict[str, Any]) -> Cell:
    recipe = cell.recipe.with_settings(settings)
    return replace(cell, name=f"{cell.name}-{suffix}", recipe=recipe, variant=variant)
