"""The cells of a sweep over budgets: criteria x budgets x seeds, and the rows beside them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from secateur.recipes.recipe import Recipe
from secateur.recipes.sweep import SweepRecipe
from secateur.roles import Distilled, Match, Role, Sampled, Scratch, Variant
from secateur.sweeps.cells import Cell, cut_cell, dense_cell


def plan_budget_cells(recipe: Recipe) -> tuple[Cell, ...]:
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
    cells += [_scratch(first, sweep, keep, matched=Match.MACS) for keep in sweep.scratch_macs_keep_ratios]
    return tuple(sorted(cells, key=lambda cell: cell.role is Role.SCRATCH))


def _compared(dense: Cell, sweep: SweepRecipe, keep: float) -> Iterator[Cell]:
    """The rows at one budget of one dense network: every criterion, and what the leading one is compared with."""
    for criterion in sweep.criteria:
        yield cut_cell(dense, criterion, keep)
    if keep in sweep.scratch_keep_ratios:
        yield _scratch(dense, sweep, keep, matched=Match.EPOCHS)
    if keep in sweep.distilled_keep_ratios:
        cell = cut_cell(dense, sweep.criteria[0], keep)
        yield _changed(cell, "distilled", Distilled(), {"pruning.distillation": {}})


def _unrecovered(cell: Cell) -> Cell:
    return _changed(cell, "cut", None, {"pruning.recovery": None})


def _sampled(cell: Cell, samples: int) -> Cell:
    return _changed(_unrecovered(cell), f"of-{samples}", Sampled(samples), {"pruning.scoring_samples": samples})


def _scratch(dense: Cell, sweep: SweepRecipe, keep: float, *, matched: Match) -> Cell:
    """The shape of the leading cut, trained as long as dense network and recovery together, in epochs or in MACs."""
    shape = cut_cell(dense, sweep.criteria[0], keep)
    epochs = round(dense.epochs / (keep if matched is Match.MACS else 1)) + shape.epochs
    name = f"seed-{dense.seed}/scratch-{100 * keep:g}" + ("-macs" if matched is Match.MACS else "")
    return replace(
        shape,
        name=name,
        role=Role.SCRATCH,
        recipe=shape.recipe.with_settings({"training.epochs": epochs}),
        needs=shape.name,
        variant=Scratch(epochs, matched),
    )


def _changed(cell: Cell, suffix: str, variant: Variant | None, settings: dict[str, Any]) -> Cell:
    recipe = cell.recipe.with_settings(settings)
    return replace(cell, name=f"{cell.name}-{suffix}", recipe=recipe, variant=variant)
