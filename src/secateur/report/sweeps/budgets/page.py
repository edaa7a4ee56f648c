"""The page of a sweep over budgets, and its tables as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.records import Record
from secateur.report import rounding
from secateur.report.rendering import render
from secateur.report.sweeps.budgets.cells import Sweep, read_sweep
from secateur.report.sweeps.budgets.figures import dice_curves, samples_curves, speedup_curves
from secateur.report.sweeps.budgets.tables import (
    budget_word,
    cell_labels,
    compact_table,
    comparison_tables,
    result_tables,
    samples_tables,
)
from secateur.report.sweeps.budgets.wording import comparisons_made, known_criteria, sweep_findings
from secateur.report.sweeps.contents import contents, protocol
from secateur.report.sweeps.figures import drawn
from secateur.report.sweeps.grid import tables_markdown
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.record import (
    cells_table,
    frames_table,
    latency_table,
    read_latencies,
    set_name,
)


def page(record: Record, command: Sequence[str]) -> str:
    """The HTML text of the page about a sweep over budgets, finished or not.

    Raises:
        InputError: a package of the extra ``report`` is missing.
        RecordError: the record is of another kind, or contradicts itself.
    """
    return render("sweeps/budgets/page.html.j2", {**_contents(read_sweep(record)), "command": command})


def markdown(record: Record) -> str:
    """The tables as Markdown: per set results and comparisons, then size and speed, then every cell.

    Raises:
        RecordError: the record is of another kind, or contradicts itself.
    """
    sweep = read_sweep(record)
    parts = [
        f"## {set_name(record, label)}\n\n"
        + tables_markdown(
            [*result_tables(sweep, label), *comparison_tables(sweep, label), *samples_tables(sweep, label)]
        )
        for label in record["sets"]
    ]
    labels = cell_labels(sweep)
    others = (
        latency_table(record, labels),
        frames_table(record, labels),
        cells_table(record["cells"], score="Dice"),
    )
    return "\n".join([*parts, "## Speed, time\n", tables_markdown([table for table in others if table])])


def compact(record: Record) -> str:
    """The leading criterion at every budget beside its baselines, in one table, as Markdown.

    Raises:
        RecordError: the record is of another kind, or contradicts itself.
    """
    return compact_table(read_sweep(record))


def _contents(sweep: Sweep) -> dict[str, Any]:  # the template's variables
    record = sweep.record
    scoring_samples = record["recipe"]["pruning"]["scoring_samples"]
    speedups = [
        (f"Speed-up: {setup.label}", speedup_curves(sweep, times)) for setup, times in read_latencies(record).items()
    ]
    samples = [(set_name(record, label), samples_curves(sweep, label)) for label in record["sets"]]
    return {
        **contents(
            record,
            expected={"bench": "latency", "frames": "frames per second"},
            score="Dice",
            findings=lambda label: sweep_findings(sweep, label),
        ),
        "leading": sweep.leading.label,
        "comparisons": comparisons_made(sweep),
        "sets": [_set_contents(sweep, label) for label in record["sets"]],
        "samples": drawn(samples),
        "samples_tables": [table for label in record["sets"] for table in samples_tables(sweep, label)],
        "speedups": drawn(speedups),
        "latency": latency_table(record, cell_labels(sweep)),
        "frames": frames_table(record, cell_labels(sweep)),
        "budget_word": budget_word(record),
        "criteria": known_criteria(sweep),
        "kinds": {cell["kind"] for cell in record["cells"]} | {arm.variant for arm, _ in sweep.places},
        "scoring_samples": "all" if scoring_samples is None else scoring_samples,
        "protocol": _protocol(record),
    }


def _set_contents(sweep: Sweep, label: str) -> Mapping[str, Any]:  # variables of one section
    return {
        "name": set_name(sweep.record, label),
        "figures": drawn(
            [(f"Dice against MACs kept, {phase.value}", dice_curves(sweep, label, phase)) for phase in Phase]
        ),
        "tables": result_tables(sweep, label),
        "comparisons": comparison_tables(sweep, label),
    }


def _protocol(record: Record) -> list[tuple[str, str]]:
    pruning, sweep = record["recipe"]["pruning"], record["recipe"]["sweep"]
    budgets = ", ".join(rounding.percent(ratio) for ratio in sweep["keep_ratios"])
    widths = (
        f"multiples of {pruning['round_to']}, at least {pruning['min_channels']} channels "
        f"and {rounding.percent(pruning['min_keep_ratio'])} of each group"
    )
    return protocol(
        record,
        seeds=sweep["seeds"],
        compared={"Criteria": ", ".join(sweep["criteria"]), "Budgets": f"{budgets} of {budget_word(record)}"},
        recovery=pruning["recovery"],
        cut={"Widths": widths},
        frames="network input",
    )
