"""What would make cells fail after hours is refused before anything is written."""

from secateur.roles import Role
from secateur.session import require_side, task_of
from secateur.sparsify import weights_within_reach
from secateur.sweeps.plan import Plan


def require_possible(plan: Plan) -> None:
    """Open every set and a case of each of its splits, build the dense network, and see what its weights allow.

    Raises:
        InputError: a set is missing or malformed, the network does not fit the task, or a cut would leave no weights
            or is limited to a part that the network has not.
    """
    recipe = plan.recipe
    task, size = task_of(recipe), recipe.data.size
    for source in plan.sets.values():
        data = recipe.data if source is None else recipe.data.model_copy(update={"source": source})
        for cases in task.load_cases(data).values():
            for case in cases[:1]:
                case.read()
    model = recipe.network.build()
    require_side(model, size)
    task.require(model)
    cuts = [cell.recipe.sparsity for cell in plan.cells if cell.role is Role.SPARSE]
    hardest = {(cut.scope, cut.branches): cut for cut in sorted(cuts, key=lambda cut: cut.compression)}
    for cut in hardest.values():
        weights_within_reach(model, size, cut)
