"""What a pruned network may cost, as a share of the whole network before pruning."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.cost.macs import WidthCost
from secateur.errors import BudgetError


@dataclass(frozen=True)
class Budget(ABC):
    """An upper limit: at most ``keep_ratio``, in (0, 1], of what the whole network costs, fixed parts included."""

    keep_ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise BudgetError(
                f"the budget keeps {self.keep_ratio} of the {self.kind}; give a share above 0 and at most 1, "
                f"such as 0.25."
            )

    @property
    @abstractmethod
    def kind(self) -> str:
        """What is limited: ``macs`` or ``params``."""

    @abstractmethod
    def cost(self, costs: WidthCost, removed: Sequence[int]) -> int:
        """The cost after removing ``removed[g]`` units of group g."""

    def __str__(self) -> str:
        return f"{self.kind} <= {self.keep_ratio:g} of the network before"


class MacsBudget(Budget):
    """Limits the multiply-adds of one sample."""

    kind = "macs"

    def cost(self, costs: WidthCost, removed: Sequence[int]) -> int:
        """Multiply-adds per sample."""
        return costs.macs(removed)


class ParamsBudget(Budget):
    """Limits the number of parameters."""

    kind = "params"

    def cost(self, costs: WidthCost, removed: Sequence[int]) -> int:
        """Number of parameters."""
        return costs.params(removed)


BUDGETS: Mapping[str, type[Budget]] = {"macs": MacsBudget, "params": ParamsBudget}  # by what recipes call them
