"""Criteria by name, for recipes and the command line. A new one is one file and one line here.

Anywhere else, pass your own object: whatever has `Criterion.score`.
"""

from collections.abc import Callable, Mapping

from secateur.prune.criteria.criterion import Criterion
from secateur.prune.criteria.norms import L1Norm, L2Norm
from secateur.prune.criteria.random import Random
from secateur.prune.criteria.taylor import RandomGradient, TaylorFirstOrder, TaylorMode
from secateur.prune.criteria.uniform_width import UniformWidth

CRITERIA: Mapping[str, Callable[[int], Criterion]] = {  # each takes the run's seed
    "taylor": lambda seed: TaylorFirstOrder(),
    "taylor-absolute": lambda seed: TaylorFirstOrder(TaylorMode.ABSOLUTE),
    "taylor-signed": lambda seed: TaylorFirstOrder(TaylorMode.SIGNED),
    "taylor-unnormalised": lambda seed: TaylorFirstOrder(normalize_gradient=False),
    "taylor-random-gradient": lambda seed: TaylorFirstOrder(gradient=RandomGradient(seed)),
    "l2": lambda seed: L2Norm(),
    "l1": lambda seed: L1Norm(),
    "random": Random,
    "uniform": lambda seed: UniformWidth(),
}
