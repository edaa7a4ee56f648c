"""Which cases to show of a pruned network: the worst, and a few from the middle and the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.records import Record
from secateur.report.tasks.task_view import TaskView

_WORST, _OTHERS = 12, 3  # cases shown: worst, and as many from the middle as from the best


@dataclass(frozen=True)
class CasePair:
    """One case before and after pruning.

    Attributes:
        id: of the case.
        dense: the leading metric of the dense network.
        pruned: of the pruned one.
        harm: see `TaskView.harm`.
        badge: see `TaskView.badge`.
    """

    id: str
    dense: float
    pruned: float
    harm: int
    badge: str

    @property
    def change(self) -> float:
        """Pruned minus dense."""
        return self.pruned - self.dense


def case_pairs(dense: Record, pruned: Record, view: TaskView) -> list[CasePair]:
    """All cases of two evaluations, worst first: those with harm, then by the change of the leading metric."""
    key = view.leading.key
    before = {case["id"]: case[key] for case in dense["cases"]}
    pairs = [
        CasePair(case["id"], before[case["id"]], case[key], view.harm(case), view.badge(case))
        for case in pruned["cases"]
        if case[key] is not None and before[case["id"]] is not None
    ]
    return sorted(pairs, key=lambda pair: (-pair.harm, pair.change, pair.id))


def choose_cases(pairs: Sequence[CasePair]) -> dict[str, list[CasePair]]:
    """The worst, middle and best of sorted ``pairs`` under headings; all of them where there are few."""
    if len(pairs) <= _WORST + 2 * _OTHERS:
        return {"All cases, worst first": list(pairs)}
    middle = max(_WORST, (len(pairs) - _OTHERS) // 2)
    return {
        "Worst for the pruned network": list(pairs[:_WORST]),
        "In the middle": list(pairs[middle : middle + _OTHERS]),
        "Best for the pruned network": list(pairs[-_OTHERS:]),
    }
