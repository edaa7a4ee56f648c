"""The page of a sweep over compression ratios, and its tables as Markdown."""

from collections.abc import Sequence
from typing import Any

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import ZEROS_ARE_NOT_SPEED
from secateur.report.rendering import render
from secateur.report.sweeps.contents import contents, protocol
from secateur.report.sweeps.figures import drawn
from secateur.report.sweeps.grid import Table, tables_markdown
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.ratios.figures import density_map, disk_curves, macs_curves, metric_curves
from secateur.report.sweeps.ratios.results import OUTPUTS, PRUNED, RatioSweep, read_ratios
from secateur.report.sweeps.ratios.tables import (
    cell_labels,
    compact_table,
    compared_lines,
    comparison_tables,
    filters_table,
    limits_table,
    reference_name,
    result_tables,
    size_table,
)
from secateur.report.sweeps.ratios.wording import comparisons_made, not_run, ratio_findings
from secateur.report.sweeps.record import cells_table, latency_table, set_name
from secateur.report.tasks.nuclei import NUCLEI


def page(record: Record, command: Sequence[str]) -> str:
    """The HTML text of the page about a sweep over ratios, finished or not.

    Raises:
        InputError: a package of the extra ``report`` is missing.
        RecordError: the record contradicts itself.
    """
    return render("sweeps/ratios/page.html.j2", {**_contents(read_ratios(record)), "command": command})


def markdown(record: Record) -> str:
    """The tables as Markdown: per set limits, results and comparisons, then size, speed, and every cell.

    Raises:
        RecordError: the record contradicts itself.
    """
    sweep = read_ratios(record)
    parts = [
        f"## {set_name(record, label)}\n\n"
        + tables_markdown(
            [
                limits_table(sweep, label),
                *result_tables(sweep, label, sweep.main_phase),
                *_known(filters_table(sweep, label)),
                *comparison_tables(sweep, label),
            ]
        )
        for label in record["sets"]
    ]
    labels = cell_labels(sweep)
    others = [
        size_table(sweep),
        *_known(latency_table(record, labels)),
        cells_table(record["cells"], score=NUCLEI.validation),
    ]
    parts.append("The paper (arXiv 2206.07422) has its ratios by metrics that its abstract does not name.\n")
    gaps = "".join(f"- {sentence}\n" for sentence in not_run(record))
    return "\n".join([*parts, "## Size, speed, time\n", tables_markdown(others), "## What was not run\n", gaps])


def compact(record: Record) -> str:
    """For every set, how far each output can be compressed, with a legend, as Markdown.

    Raises:
        RecordError: the record contradicts itself.
    """
    sweep = read_ratios(record)
    lines = {line.label: ", ".join(map(rounding.ratio, sweep.ratios(line))) for line in compared_lines(sweep)}
    tested = "; ".join(f"{name} {ratios}" for name, ratios in lines.items())
    legend = (
        f"The largest ratio such that none tested up to it loses 2 % of the mean of “{reference_name(sweep)}” or more, "
        f"the change there, and at the first ratio that loses more. Tested: {tested}. The paper: layer-wise, on other "
        f"data with other networks, by metrics that its abstract does not name."
    )
    tables = {label: compact_table(sweep, label) for label in record["sets"]}
    return "\n".join(f"{set_name(record, label)}. {legend}\n\n{table}" for label, table in tables.items())


def _contents(sweep: RatioSweep) -> dict[str, Any]:  # the template's variables
    record = sweep.record
    maps = [(f"Weights left per layer, {line.label}", density_map(sweep, line)) for line in PRUNED]
    sizes = [("Size on disk", disk_curves(sweep)), ("MACs left", macs_curves(sweep))]
    return {
        **contents(
            record,
            expected={"bench": "latency"},
            score=NUCLEI.validation,
            findings=lambda label: ratio_findings(sweep, label),
        ),
        "reference": reference_name(sweep),
        "honest": ZEROS_ARE_NOT_SPEED,
        "comparisons": comparisons_made(sweep),
        "sets": [_set_contents(sweep, label) for label in record["sets"]],
        "maps": drawn(maps),
        "sizes": drawn(sizes),
        "size_table": size_table(sweep),
        "latency": latency_table(record, cell_labels(sweep)),
        "not_run": not_run(record),
        "protocol": _protocol(record),
    }


def _set_contents(sweep: RatioSweep, label: str) -> dict[str, Any]:  # variables of one section
    phase = sweep.main_phase
    curves = [(f"{each.title} {phase.value}", metric_curves(sweep, label, phase, each)) for each in OUTPUTS]
    before = result_tables(sweep, label, Phase.BEFORE) if phase is Phase.AFTER else []
    return {
        "name": set_name(sweep.record, label),
        "limits": limits_table(sweep, label),
        "figures": drawn(curves),
        "tables": [*result_tables(sweep, label, phase), *_known(filters_table(sweep, label))],
        "before": before,
        "comparisons": comparison_tables(sweep, label),
    }


def _known(found: Table | None) -> list[Table]:
    return [] if found is None else [found]


def _protocol(record: Record) -> list[tuple[str, str]]:
    recipe = record["recipe"]
    ratios, sparsity = recipe["ratios"], recipe["sparsity"]
    structured = ", ".join(rounding.percent(share) for share in ratios["structured_keep_ratios"])
    filters = f"{recipe['pruning']['criterion']}, {structured} of the MACs" if structured else "none"
    return protocol(
        record,
        seeds=ratios["seeds"],
        compared={
            "Scopes": ", ".join(ratios["scopes"]),
            "Ratios": ", ".join(rounding.ratio(ratio) for ratio in ratios["compressions"]),
            "Whole filters": filters,
        },
        recovery=sparsity["recovery"],
        cut={"Rounds": str(sparsity["rounds"]), "Output layers": "pruned too" if sparsity["outputs"] else "stay whole"},
        frames="windows",
    )
