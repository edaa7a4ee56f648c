"""The tables of a sweep over ratios as plain data, for the page and for Markdown."""

from collections.abc import Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.grid import NO_CELL, Cell, Part, Table, bounds, plain, seeds_text, unfinished
from secateur.report.quantities import Quantity
from secateur.report.ratio_limits import (
    PUBLISHED,
    SHARES,
    Limit,
    Loss,
    absolute_limit,
    losses,
    relative_limit,
)
from secateur.report.ratio_results import (
    DENSE,
    FILTERS,
    OUTPUTS,
    SCOPES,
    Difference,
    Line,
    Place,
    RatioSweep,
)
from secateur.report.ratio_wording import PAIRS, differences, limit_text
from secateur.report.sweep_cells import Phase
from secateur.report.tables import as_markdown

_TONES = {"better": "pass", "worse": "fail", "no difference shown": "muted"}


def limits_table(sweep: RatioSweep, label: str) -> Table:
    """For every output and scope, the largest ratio whose loss stays under 2 %, beside the paper's."""
    kinds = ("relative", "absolute")
    header = ("Output", *(f"{line.label}, {kind}" for line in SCOPES for kind in kinds), "The paper, layer-wise")
    rows = []
    for quantity in OUTPUTS:
        cells: list[Cell] = []
        for line in SCOPES:
            found = losses(sweep, line, label, sweep.main_phase, quantity)
            absent = _untested(sweep, line, found)
            for kind, limit in (("relative", relative_limit(found)), ("absolute", absolute_limit(found))):
                known = sweep.ratios(line) and (kind == "relative" or quantity in SHARES)
                cells.append(_limit_cell(limit, quantity, absent, relative=kind == "relative") if known else NO_CELL)
        paper = rounding.ratio(PUBLISHED[quantity]) if quantity in PUBLISHED else ""
        rows.append(((Part(quantity.title, "strong"),), *cells, plain(paper) if paper else NO_CELL))
    return Table("Largest ratio with a loss under 2 %", header, tuple(rows))


def compact_table(sweep: RatioSweep, label: str) -> str:
    """For every output the dense mean and the largest ratio of each line with a loss under 2 %, as Markdown."""
    phase = sweep.main_phase
    lines = [line for line in sweep.lines(phase) if line not in (DENSE, FILTERS)]
    header = ["loss under 2 % of", "dense", *(line.label for line in lines), "the paper, layer-wise"]
    rows = []
    for quantity in OUTPUTS:
        dense = sweep.pooled((DENSE, 1.0), label, phase, quantity)
        row = [quantity.name, quantity.text(dense.mean) if dense else ""]
        for line in lines:
            found = losses(sweep, line, label, phase, quantity)
            absent = _untested(sweep, line, found)
            row.append("; ".join((_limit_text(relative_limit(found), quantity), *absent) if found else absent))
        rows.append([*row, rounding.ratio(PUBLISHED[quantity]) if quantity in PUBLISHED else ""])
    return as_markdown(header, rows)


def result_tables(sweep: RatioSweep, label: str, phase: Phase) -> list[Table]:
    """One table per output: a row per line, a column per ratio."""
    lines = [line for line in sweep.lines(phase) if line not in (DENSE, FILTERS)]
    ratios = sorted({ratio for line in lines for ratio in sweep.ratios(line) if sweep.cells((line, ratio), phase)})
    header = ("Network", "dense", *(rounding.ratio(ratio) for ratio in ratios))
    return [
        Table(
            f"{quantity.title} {phase.value}, by compression of the weights",
            header,
            (
                ((Part("dense", "strong"),), _result(sweep, (DENSE, 1.0), label, phase, quantity), *[()] * len(ratios)),
                *(
                    (
                        (Part(line.label, "strong"),),
                        (),
                        *(_result(sweep, (line, ratio), label, phase, quantity) for ratio in ratios),
                    )
                    for line in lines
                ),
            ),
        )
        for quantity in (OUTPUTS if lines else ())
    ]


def filters_table(sweep: RatioSweep, label: str) -> Table | None:
    """The networks cut by whole filters, a row each; None where there are none."""
    ratios = sweep.ratios(FILTERS)
    if not ratios:
        return None
    phase = sweep.main_phase
    header = ("Whole filters", "Parameters, dense over left", "MACs left", *(each.title for each in OUTPUTS))
    rows = []
    for ratio in ratios:
        place = (FILTERS, ratio)
        done = _done(sweep.cells(place, phase))
        size = rounding.ratio(sweep.position(place)) if done else ""
        rows.append(
            (
                (Part(f"{rounding.percent(1 / ratio)} of the MACs asked", "strong"),),
                plain(size),
                plain(_macs_left(sweep, done[0]) if done else ""),
                *(_result(sweep, place, label, phase, quantity) for quantity in OUTPUTS),
            )
        )
    return Table("Cut by whole filters", header, tuple(rows))


def comparison_tables(sweep: RatioSweep, label: str) -> list[Table]:
    """One line minus another, output by output, at every ratio that both have."""
    tables = []
    for first, second in PAIRS:
        found = {quantity: differences(sweep, (first, second), label, quantity) for quantity in OUTPUTS}
        ratios = sorted({ratio for each in found.values() for ratio in each})
        if not ratios:
            continue
        rows = tuple(
            (
                (Part(quantity.title, "strong"),),
                *(_difference_cell(each[ratio]) if ratio in each else NO_CELL for ratio in ratios),
            )
            for quantity, each in found.items()
        )
        header = ("Output", *(rounding.ratio(ratio) for ratio in ratios))
        tables.append(Table(f"{first.label[0].upper()}{first.label[1:]} minus {second.label}", header, rows))
    return tables


def size_table(sweep: RatioSweep) -> Table:
    """What every sparse network keeps, what died, and what it takes on disk; of the first seed that is done."""
    header = (
        "Network",
        "Weights kept",
        "Parameters that are not zero",
        "MACs left",
        "Layers that died",
        "Layers that keep one weight",
        "Plain file",
        "With gzip",
        "Sparse file",
    )
    rows = [
        _size_row(sweep, (line, ratio), cell)
        for line in SCOPES
        for ratio in sweep.ratios(line)
        if (cell := first_done(sweep, (line, ratio)))
    ]
    return Table("What is left, and what it takes on disk", header, tuple(rows))


def first_done(sweep: RatioSweep, place: Place) -> Record | None:
    """The cell of the first seed of a place that is done."""
    return next(iter(_done(sweep.cells(place, sweep.main_phase))), None)


def place_name(line: Line, ratio: float) -> str:
    """A place in words."""
    if line == DENSE:
        return line.label
    return f"{line.label} at {rounding.percent(1 / ratio) if line == FILTERS else rounding.ratio(ratio)}"


def cell_labels(sweep: RatioSweep) -> dict[str, str]:
    """Cells by name, in words."""
    return {
        cell["name"]: f"{place_name(*place)}, seed {cell['seed']}"
        for place, cells in sweep.places.items()
        for cell in cells
    }


def _limit_text(limit: Limit, quantity: Quantity) -> str:
    loss = limit.plain or limit.broken
    at = "" if limit.plain or loss is None else f"{rounding.ratio(loss.ratio)}: "
    return f"{limit_text(limit)} ({at}{_loss_text(loss, quantity, relative=True)})" if loss else limit_text(limit)


def _limit_cell(limit: Limit, quantity: Quantity, absent: Sequence[str], *, relative: bool) -> Cell:
    parts = [Part(limit_text(limit), "strong")]
    if limit.plain:
        parts.append(Part(f"{_loss_text(limit.plain, quantity, relative=relative)}, {seeds_text(limit.plain.seeds)}"))
    if limit.broken:
        broken = limit.broken
        parts.append(
            Part(f"{rounding.ratio(broken.ratio)}: {_loss_text(broken, quantity, relative=relative)}", "muted")
        )
    return (*parts, *(Part(text, "muted") for text in absent))


def _untested(sweep: RatioSweep, line: Line, found: Sequence[Loss]) -> list[str]:
    """In words, the ratios of a line for which no cell is done; none if all are."""
    tested = {loss.ratio for loss in found}
    absent = [rounding.ratio(ratio) for ratio in sweep.ratios(line) if ratio not in tested]
    return [f"not tested: {', '.join(absent)}"] if absent else []


def _loss_text(loss: Loss, quantity: Quantity, *, relative: bool) -> str:
    if loss.undefined:
        return f"undefined for {rounding.plural(loss.undefined, 'case')}"
    if not relative:
        return f"loss {quantity.change(loss.absolute)}"
    return (
        "no share of a dense mean of 0"
        if loss.relative is None
        else f"loss {rounding.signed(100 * loss.relative, 1)} %"
    )


def _result(sweep: RatioSweep, place: Place, label: str, phase: Phase, quantity: Quantity) -> Cell:
    cells = sweep.cells(place, phase)
    if not cells:
        return NO_CELL
    found = sweep.pooled(place, label, phase, quantity)
    parts: list[Part] = []
    if found:
        parts.append(Part(f"{quantity.text(found.mean)} ({seeds_text(len(_done(cells)))})", "strong"))
        parts += [Part(bounds(found.interval, quantity.text))] if found.interval else []
        parts += [Part(f"undefined: {found.undefined}", "muted")] if found.undefined else []
        if len(found.by_seed) > 1:
            seeds = ", ".join(quantity.text(value) for value in found.by_seed.values())
            parts.append(Part(f"seeds: {seeds}", "muted"))
    return (*parts, *unfinished(cells))


def _done(cells: Sequence[Record]) -> list[Record]:
    return [cell for cell in cells if cell["status"] == "done"]


def _difference_cell(found: Difference) -> Cell:
    quantity = found.quantity
    seeds = ", ".join(quantity.change(value) for value in found.by_seed.values())
    return (
        Part(quantity.change(found.interval.mean), "strong"),
        Part(bounds(found.interval, quantity.change)),
        Part(found.verdict, _TONES[found.verdict]),
        *([Part(f"undefined: {found.undefined}", "muted")] if found.undefined else []),
        Part(f"seeds: {seeds}" if len(found.by_seed) > 1 else seeds_text(1), "muted"),
    )


def _size_row(sweep: RatioSweep, place: Place, cell: Record) -> tuple[Cell, ...]:
    sparsity = cell["sparsity"]
    masks, sizes, reached = sparsity["masks"], sparsity["sizes"], sparsity["reached"]
    ones = [str(layer["name"]) for layer in masks["layers"] if layer["kept"] == 1]
    return (
        (Part(place_name(*place), "strong"),),
        plain(f"{masks['kept']:,} ({rounding.percent(masks['kept'] / masks['weights'])})"),
        plain(f"{reached['params']:,} ({rounding.percent(reached['params_keep_ratio'])})"),
        plain(f"{rounding.counted(reached['macs'])} ({rounding.percent(reached['macs_keep_ratio'])})"),
        tuple(Part(name, "error") for name in masks["dead"]) or plain("none"),
        tuple(Part(name) for name in ones) or plain("none"),
        *(plain(rounding.megabytes(sizes[key])) for key in ("dense_bytes", "gzip_bytes", "compressed_bytes")),
    )


def _macs_left(sweep: RatioSweep, cell: Record) -> str:
    dense = first_done(sweep, (DENSE, 1.0))
    share = f" ({rounding.percent(cell['macs'] / dense['macs'])})" if dense else ""
    return f"{rounding.counted(cell['macs'])}{share}"
