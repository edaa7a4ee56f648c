"""The cells of a sweep over compression ratios: scopes x ratios x seeds, and the rows beside them."""

from dataclasses import replace

from secateur.nets.thinner import thinner
from secateur.recipes.ratios import RatioSweepRecipe
from secateur.recipes.recipe import Recipe
from secateur.roles import Role, Small, Weights
from secateur.sweeps.cells import Cell, cut_cell, dense_cell
from secateur.train.recipe import trained_epochs


def plan_ratio_cells(recipe: Recipe, ratios: RatioSweepRecipe) -> tuple[Cell, ...]:
    """Every cell of the sweep, in the order in which they are run: all of the first seed, then what is repeated."""
    dense = [dense_cell(recipe, seed) for seed in ratios.seeds]
    repeated = ratios.compressions if ratios.repeated_compressions is None else ratios.repeated_compressions
    first, *others = dense
    cells = [*dense, *(cell for compression in ratios.compressions for cell in _scopes(first, ratios, compression))]
    cells += [_sparse(first, "layer", compression, score="random") for compression in ratios.random_compressions]
    cells += [cut_cell(first, recipe.pruning.criterion, keep) for keep in ratios.structured_keep_ratios]
    cells += [_branch(first, name, ratio) for ratio in ratios.branch_compressions for name in ratios.branches]
    cells += [_small(first, compression) for compression in ratios.small_compressions]
    cells += [cell for compression in repeated for parent in others for cell in _scopes(parent, ratios, compression)]
    return tuple(cells)


def _scopes(dense: Cell, ratios: RatioSweepRecipe, compression: float) -> list[Cell]:
    scopes = ("layer",) if compression == 1 else ratios.scopes  # at 1 no weight leaves, whatever the scope
    return [_sparse(dense, scope, compression) for scope in scopes]


def _sparse(dense: Cell, scope: str, compression: float, *, score: str = "magnitude") -> Cell:
    settings = {"sparsity.scope": scope, "sparsity.compression": compression, "sparsity.score": score}
    return Cell(
        name=f"seed-{dense.seed}/{scope if score == 'magnitude' else score}-x{compression:g}",
        role=Role.SPARSE,
        seed=dense.seed,
        recipe=dense.recipe.with_settings(settings),
        needs=dense.name,
        variant=Weights(scope, compression, score),
    )


def _branch(dense: Cell, branch: str, compression: float) -> Cell:
    """Only one part of the network loses weights."""
    cell = _sparse(dense, "layer", compression)
    return replace(
        cell,
        name=f"seed-{dense.seed}/{branch}-x{compression:g}",
        recipe=cell.recipe.with_settings({"sparsity.branches": [branch]}),
        variant=Weights("layer", compression, "magnitude", branch),
    )


def _small(dense: Cell, compression: float) -> Cell:
    """A thinner network from fresh weights, for as many epochs as dense training and recovery take together."""
    epochs = dense.epochs + trained_epochs(dense.recipe.sparsity.recoveries(dense.recipe.training))
    own = dense.recipe.with_settings({"training.epochs": epochs})
    return Cell(
        name=f"seed-{dense.seed}/small-x{compression:g}",
        role=Role.SMALL,
        seed=dense.seed,
        recipe=own.model_copy(update={"network": thinner(own.network, compression)}),
        variant=Small(compression, epochs),
    )
