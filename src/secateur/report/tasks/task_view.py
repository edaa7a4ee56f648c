"""What the page of runs needs to know of one task: which metric leads, what else is counted, how cases look."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.records import Record
from secateur.report.findings import Finding
from secateur.report.quantities import Quantity
from secateur.report.rows import SummaryRow

Column = tuple[str, list[str]]  # title, a text for every row


@dataclass(frozen=True)
class TaskView:
    """One task as the page shows it; a new task is one of these, with two templates.

    Attributes:
        leading: the metric that decides which network is better and which cases are shown.
        validation: what checkpoints are chosen by, in words.
        unit: what one forward pass sees.
        quantities: every metric, for the table of all.
        columns: further columns of the table of runs.
        findings: what else is said of a pruned run (second) beside the dense one (first).
        harm: of a case of a pruned run, how much of what counts most the cut lost: such cases are shown first.
        badge: of the same, what to write beside its scores; empty for nothing.
        harmed: name of cases with harm in a legend.
        frames: what all pruned runs share of the pictures, by case id, from the dense run's predictions folder.
        pictures: what a gallery shows of a case, from the predictions folders of a dense and a pruned run.
        gallery: template with a macro ``gallery_of(closeup, number, frames, runs)``.
        terms: template with the definitions.
    """

    leading: Quantity
    validation: str
    unit: str
    quantities: Sequence[Quantity]
    columns: Callable[[Sequence[SummaryRow]], list[Column]]
    findings: Callable[[SummaryRow, SummaryRow], list[Finding]]
    harm: Callable[[Record], int]
    badge: Callable[[Record], str]
    harmed: str
    frames: Callable[[Sequence[str], Path], Mapping[str, Any]]  # the gallery's own
    pictures: Callable[[str, Path, Path], Any]  # likewise
    gallery: str
    terms: str
