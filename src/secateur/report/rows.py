"""What is known of one run, in one row, and what is said of it, in one line."""

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.records import Record
from secateur.report.findings import SCOPES
from secateur.report.intervals import Interval
from secateur.report.timings import Setup, Timing


@dataclass(frozen=True)
class SummaryRow:
    """What is known of one run; None is what was not measured, or is undefined.

    Attributes:
        name: of the run.
        method: what chose the channels, or the weights; None where nothing was removed.
        cut: how much was cut, as a short label: share of MACs kept, or the compression of the weights.
        input_shape: of one sample, that ``macs`` are of; the same in all rows of a table.
        macs: of one such input; None where it was counted at other shapes only.
        macs_keep_ratio: of the dense network's.
        params: parameters; of a sparse network those that are not zero.
        params_keep_ratio: of the dense network's.
        size_bytes: of the exported file; of a sparse network, its own file.
        score: mean of the task's leading metric.
        score_difference: of the same, run minus dense, paired by case.
        latency: by what it was measured on.
        evaluation: ``evaluation.json``, for what a task shows besides.
        prune: ``prune.json``.
    """

    name: str
    method: str | None
    cut: str | None
    input_shape: tuple[int, ...] | None
    macs: int | None
    macs_keep_ratio: float | None
    params: int | None
    params_keep_ratio: float | None
    size_bytes: int | None
    score: Interval | None
    score_difference: Interval | None
    latency: Mapping[Setup, Timing]
    evaluation: Record | None
    prune: Record | None

    @property
    def sparse(self) -> bool:
        """Whether single weights were taken out."""
        return self.prune is not None and is_sparse(self.prune)


def is_sparse(prune: Record) -> bool:
    """Whether ``prune.json`` is about single weights, not channels."""
    return prune.get("granularity") == "weight"


def chosen_by(prune: Record) -> str:
    """What chose the channels or weights that stay, in a word or two; for a table and a legend."""
    criterion = str(prune["criterion"])
    return f"{criterion}, {SCOPES[prune['scope']]}" if is_sparse(prune) else criterion
