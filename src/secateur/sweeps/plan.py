"""What a sweep asks for: its cells, the sets on which each is measured, and whose latency is timed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from secateur.errors import InputError
from secateur.measures import set_label
from secateur.recipes.recipe import Recipe
from secateur.records import Record
from secateur.roles import Role, Weights
from secateur.sweeps.budgets import plan_budget_cells
from secateur.sweeps.cells import Cell
from secateur.sweeps.ratios import plan_ratio_cells


@final
@dataclass(frozen=True)
class Plan:
    """What a sweep asks for.

    Attributes:
        recipe: all of it.
        cells: in the order in which they are run.
        sets: what every network is evaluated on: label and source, None for the run's own.
    """

    recipe: Recipe
    cells: tuple[Cell, ...]
    sets: Mapping[str, str | None]

    def has_before(self, cell: Cell) -> bool:
        """Whether it asks what the cell's network was before its recovery."""
        ratios = self.recipe.ratios
        return cell.role.is_cut and (not cell.recovered or ratios is None or ratios.before_recovery)

    def is_timed(self, cell: Cell) -> bool:
        """Of the first seed: dense, small, the leading and the uniform cuts; what magnitude leaves at the ratios of
        several seeds."""
        if cell.seed != self.cells[0].seed:
            return False
        ratios = self.recipe.ratios
        if ratios is not None and isinstance(cell.variant, Weights):
            shown = ratios.compressions if ratios.repeated_compressions is None else ratios.repeated_compressions
            plain = cell.variant.score == "magnitude" and cell.variant.branch is None
            return plain and cell.variant.compression in shown
        leading = (self.recipe.sweep.criteria[0], "uniform") if ratios is None else (self.recipe.pruning.criterion,)
        is_cut = cell.role is Role.PRUNED and cell.recovered and cell.variant is None and cell.criterion in leading
        return cell.role in (Role.DENSE, Role.SMALL) or is_cut

    @property
    def bench_settings(self) -> Record:
        """With which latency is timed; they stand beside what was measured."""
        return self.recipe.model_dump(mode="json", include={"bench", "bench_size"})


def plan_sweep(recipe: Recipe) -> Plan:
    """The cells of ``recipe.ratios`` where it is given, of ``recipe.sweep`` otherwise.

    Raises:
        InputError: the task has no such sweep, or two sets or two cells have one name.
    """
    cells = _cells(recipe)
    twice = [name for name, count in Counter(cell.name for cell in cells).items() if count > 1]
    if twice:
        raise InputError(
            f"two networks of the sweep would be called {twice[0]}: a branch has the name of a scope, or two settings "
            f"agree in six digits; leave one out."
        )
    return Plan(recipe, cells, _sets(recipe))


def _cells(recipe: Recipe) -> tuple[Cell, ...]:
    if recipe.ratios is not None and recipe.task != "nuclei":
        raise InputError(
            f"a sweep over ratios compares the mask, the distances and the nuclei of task 'nuclei', not of "
            f"{recipe.task!r}; leave ratios out of the recipe, or cut single runs with `secateur prune`."
        )
    if recipe.ratios is not None:
        return plan_ratio_cells(recipe, recipe.ratios)
    if recipe.task != "polyp":
        raise InputError(
            f"a sweep over budgets compares the Dice and the lost polyps of task 'polyp', not of {recipe.task!r}; give "
            f"the recipe ratios instead, as nuclei-study does: their structured_keep_ratios are budgets too."
        )
    return plan_budget_cells(recipe)


def _sets(recipe: Recipe) -> dict[str, str | None]:
    elsewhere = (recipe.ratios or recipe.sweep).elsewhere
    sets = {set_label("test", source): source for source in (None, *elsewhere)}
    for source in elsewhere:
        other = sets[set_label("test", source)]
        if other != source:
            raise InputError(
                f"elsewhere names {source} and {other}, which would both be called '{Path(source).name}' in the "
                f"record; rename a folder, or leave one out."
            )
    return sets
