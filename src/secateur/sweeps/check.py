"""What would make cells fail after hours is refused before anything is written."""

from collections.abc import Sequence

from secateur.roles import Role
from secateur.session import require_side, task_of
from secateur.sparsify import require_rewindable, weights_within_reach
from secateur.sweeps.cells import Cell
from secateur.sweeps.plan import Plan


def require_possible(plan: Plan, waiting: Sequence[Cell]) -> None:
    """Read what the cells that wait are measured on, build the dense network, and see what its weights allow.

    Training reads its own data before its first step. A budget of whole filters out of reach fails as a cell of its
    own, beside those that can be met.

    Raises:
        InputError: a set is missing or malformed, the network does not fit the task, or a cut of single weights would
            leave none or is limited to a part that the network has not.
    """
    if not waiting:
        return
    recipe = plan.recipe
    task, size = task_of(recipe), recipe.data.size
    for source in plan.sets.values():
        data = recipe.data if source is None else recipe.data.model_copy(update={"source": source})
        for case in task.load_cases(data)["test"]:
            case.read()
    model = recipe.network.build()
    require_side(model, size)
    task.require(model)
    cuts = [cell.recipe.sparsity for cell in waiting if cell.role is Role.SPARSE]
    hardest = {(cut.scope, cut.branches): cut for cut in sorted(cuts, key=lambda cut: cut.compression)}
    for cut in hardest.values():
        weights_within_reach(model, size, cut)
    if cuts:
        kept = recipe.sparsity.rewind_epoch == recipe.training.keep_epoch
        require_rewindable(recipe.sparsity, recipe.training, dense="the dense training", kept=kept)
