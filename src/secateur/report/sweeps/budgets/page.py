"""The page of a sweep over budgets, and its tables as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import SYNTHETIC, caution
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
from secateur.report.sweeps.figures import drawn
from secateur.report.sweeps.grid import tables_markdown
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.record import (
    cells_table,
    frames_table,
    latency_table,
    progress,
    read_latencies,
    seconds_text,
    set_name,
    surroundings,
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
    latencies = read_latencies(record)
    scoring_samples = record["recipe"]["pruning"]["scoring_samples"]
    speedups = [(f"Speed-up: {setup.label}", speedup_curves(sweep, times)) for setup, times in latencies.items()]
    findings = [(set_name(record, label), sweep_findings(sweep, label)) for label in record["sets"]]
    samples = [(set_name(record, label), samples_curves(sweep, label)) for label in record["sets"]]
    few = (caution(len(each["ids"])) for each in record["sets"].values())
    return {
        "title": f"Sweep: {record['name']}",
        "synthetic": SYNTHETIC if record["synthetic"] else None,
        "record": record,
        "leading": sweep.leading.label,
        "progress": progress(record, expected={"bench": "latency", "frames": "frames per second"}),
        "failures": [cell for cell in record["cells"] if cell["status"] == "failed"],
        "findings": [(name, found) for name, found in findings if found],
        "comparisons": comparisons_made(sweep),
        "cautions": list(dict.fromkeys(text for text in few if text)),
        "sets": [_set_contents(sweep, label) for label in record["sets"]],
        "samples": drawn(samples),
        "samples_tables": [table for label in record["sets"] for table in samples_tables(sweep, label)],
        "speedups": drawn(speedups),
        "latency": latency_table(record, cell_labels(sweep)),
        "frames": frames_table(record, cell_labels(sweep)),
        "cells": cells_table(record["cells"], score="Dice"),
        "seconds": seconds_text(record["cells"]),
        "budget_word": budget_word(record),
        "criteria": known_criteria(sweep),
        "kinds": {cell["kind"] for cell in record["cells"]} | {arm.variant for arm, _ in sweep.places},
        "scoring_samples": "all" if scoring_samples is None else scoring_samples,
        "protocol": _protocol(record),
        "recipe": yaml.safe_dump(record["recipe"], sort_keys=False),
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
    recipe = record["recipe"]
    pruning, sweep = recipe["pruning"], recipe["sweep"]
    return [
        ("Seeds", ", ".join(str(seed) for seed in sweep["seeds"])),
        ("Criteria", ", ".join(sweep["criteria"])),
        ("Budgets", f"{', '.join(rounding.percent(ratio) for ratio in sweep['keep_ratios'])} of {budget_word(record)}"),
        ("Dense training", f"{recipe['training']['epochs']} epochs"),
        ("Recovery", f"{pruning['recovery']['epochs']} epochs" if pruning["recovery"] else "none"),
        (
            "Widths",
            f"multiples of {pruning['round_to']}, at least {pruning['min_channels']} channels "
            f"and {rounding.percent(pruning['min_keep_ratio'])} of each group",
        ),
        ("Trained on", f"{recipe['data']['source']}, network input of {recipe['data']['size']} pixels a side"),
        ("Evaluated on", "; ".join(set_name(record, label) for label in record["sets"])),
        *surroundings(record),
    ]
