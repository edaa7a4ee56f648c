"""The tables of a sweep over ratios as plain data, for the page and for Markdown."""

from collections.abc import Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.markdown import as_markdown
from secateur.report.quantities import AJI, CORRELATION, SEMANTIC_DICE, Quantity
from secateur.report.sweeps.grid import (
    NO_CELL,
    NOT_MEASURED,
    Cell,
    Part,
    Table,
    bounds,
    difference_cell,
    markdown_cell,
    plain,
    seeds_text,
    unfinished,
)
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.ratios.limits import PUBLISHED, SHARES, Limit, Loss, absolute_limit, losses, relative_limit
from secateur.report.sweeps.ratios.results import (
    CONTROL,
    DENSE,
    FILTERS,
    OUTPUTS,
    PRUNED,
    RANDOM,
    SMALL,
    Line,
    Place,
    RatioSweep,
)
from secateur.report.sweeps.ratios.wording import PAIRS, differences, limit_text

_COMPACT = (SEMANTIC_DICE, CORRELATION, AJI)


def limits_table(sweep: RatioSweep, label: str) -> Table:
    """For every output and scope, the largest ratio whose loss stays under 2 %, beside the paper's."""
    phase, kinds = sweep.main_phase, ("relative", "absolute")
    header = ("Output", *(f"{line.label}, {kind}" for line in PRUNED for kind in kinds), "The paper")
    rows = []
    for quantity in OUTPUTS:
        cells: list[Cell] = []
        for line in PRUNED:
            found = losses(sweep, line, label, phase, quantity)
            for kind, limit in (("relative", relative_limit(found)), ("absolute", absolute_limit(found))):
                known = sweep.ratios(line) and (kind == "relative" or quantity in SHARES)
                limited = _limit_cell(limit, quantity, relative=kind == "relative")
                cells.append((*limited, *_absent(sweep, line, phase)) if known else NO_CELL)
        rows.append(((Part(quantity.title, "strong"),), *cells, plain(rounding.ratio(PUBLISHED[quantity]))))
    title = f"Largest ratio with a loss under 2 % against “{reference_name(sweep)}”, beside the paper's layer-wise ones"
    return Table(title, header, tuple(rows))


def compact_table(sweep: RatioSweep, label: str) -> str:
    """For mask, distances and nuclei the largest ratio of each line with a loss under 2 %, as Markdown."""
    phase = sweep.main_phase
    whole = [line for line in sweep.lines(phase) if line in (DENSE, CONTROL)]
    lines = compared_lines(sweep)
    rows = []
    for quantity in _COMPACT:
        means = [sweep.pooled((line, 1.0), label, phase, quantity) for line in whole]
        limits = []
        for line in lines:
            limit = relative_limit(losses(sweep, line, label, phase, quantity))
            limits.append(markdown_cell((*_short_limit_cell(limit), *_absent(sweep, line, phase))))
        row = [quantity.name, *(quantity.text(mean.mean) if mean else "" for mean in means), *limits]
        rows.append([*row, rounding.ratio(PUBLISHED[quantity])])
    return as_markdown(["output", *(line.label for line in (*whole, *lines)), "the paper"], rows)


def compared_lines(sweep: RatioSweep) -> list[Line]:
    """What is pruned by weights, and what it is held against at the same ratios."""
    return [line for line in sweep.lines(sweep.main_phase) if line in (*PRUNED, RANDOM, SMALL)]


def reference_name(sweep: RatioSweep) -> str:
    """What losses are counted from, in words."""
    return sweep.reference(sweep.main_phase)[0].label


def result_tables(sweep: RatioSweep, label: str, phase: Phase) -> list[Table]:
    """One table per output: a row per line, a column per ratio."""
    whole = [line for line in sweep.lines(phase) if line in (DENSE, CONTROL)]
    lines = [line for line in sweep.lines(phase) if line not in (*whole, FILTERS)]
    ratios = sorted({ratio for line in lines for ratio in sweep.ratios(line) if sweep.cells((line, ratio), phase)})
    header = ("Network", "nothing removed", *(rounding.ratio(ratio) for ratio in ratios))
    return [
        Table(
            f"{quantity.title} {phase.value}, by compression of the weights",
            header,
            (
                *(_result_row(sweep, line, [1.0], label, phase, quantity, gaps=len(ratios)) for line in whole),
                *(_result_row(sweep, line, ratios, label, phase, quantity) for line in lines),
            ),
        )
        for quantity in (OUTPUTS if lines else ())
    ]


def filters_table(sweep: RatioSweep, label: str) -> Table | None:
    """The networks cut by whole filters, a row each, as they ended; None where there are none."""
    ratios = sweep.ratios(FILTERS)
    if not ratios:
        return None
    phase = Phase.AFTER if sweep.record["recipe"]["pruning"]["recovery"] else Phase.BEFORE
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
    return Table(f"Cut by whole filters, {phase.value}", header, tuple(rows))


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
                *(difference_cell(each[ratio]) if ratio in each else NO_CELL for ratio in ratios),
            )
            for quantity, each in found.items()
        )
        header = ("Output", *(rounding.ratio(ratio) for ratio in ratios))
        tables.append(Table(f"{first.label[0].upper()}{first.label[1:]} minus {second.label}", header, rows))
    return tables


def size_table(sweep: RatioSweep) -> Table:
    """What every sparse network keeps, what died, and what it takes on disk; of the first dense training."""
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
        _size_row((line, ratio), cell)
        for line in (CONTROL, *PRUNED)
        for ratio in sweep.ratios(line)
        if (cell := sweep.of_first_seed((line, ratio)))
    ]
    return Table("What is left, and what it takes on disk", header, tuple(rows))


def place_name(line: Line, ratio: float) -> str:
    """A place in words."""
    if line in (DENSE, CONTROL):
        return line.label
    return f"{line.label} at {rounding.percent(1 / ratio) if line == FILTERS else rounding.ratio(ratio)}"


def cell_labels(sweep: RatioSweep) -> dict[str, str]:
    """Cells by name, in words."""
    return {
        cell["name"]: f"{place_name(*place)}, seed {cell['seed']}"
        for place, cells in sweep.places.items()
        for cell in cells
    }


def _limit_cell(limit: Limit, quantity: Quantity, *, relative: bool) -> Cell:
    """The limit and what is lost there; then, by its ratio, what is lost where it ends and where it holds again."""
    parts = [Part(limit_text(limit), "strong")] if limit.plain or limit.broken else []
    if limit.unbroken:
        parts.append(Part(_loss_text(limit.unbroken, quantity, relative=relative)))
    again = None if limit.plain == limit.unbroken else limit.plain
    for loss in (limit.broken, again):
        if loss:
            ratio = rounding.ratio(loss.ratio)
            parts.append(Part(f"{ratio}: {_loss_text(loss, quantity, relative=relative)}", "muted"))
    return tuple(parts)


def _short_limit_cell(limit: Limit) -> Cell:
    """The unbroken limit with what is lost there, and what is lost at the ratio that breaks it."""
    parts = []
    if limit.unbroken:
        seeds = seeds_text(limit.unbroken.seeds)
        parts.append(Part(f"{rounding.ratio(limit.unbroken.ratio)} ({_share_text(limit.unbroken)}, {seeds})"))
    if limit.broken:
        none = "" if limit.unbroken else "none; "
        parts.append(Part(f"{none}{rounding.ratio(limit.broken.ratio)}: {_share_text(limit.broken)}"))
    return tuple(parts)


def _absent(sweep: RatioSweep, line: Line, phase: Phase) -> Cell:
    """Which ratios of a line failed, or were not run, for every seed."""
    parts = []
    for status, words, tone in (("failed", "failed", "error"), ("waiting", "not run", "muted")):
        cells = {ratio: sweep.cells((line, ratio), phase) for ratio in sweep.ratios(line)}
        ratios = [
            rounding.ratio(ratio)
            for ratio, each in cells.items()
            if not _done(each) and any(cell["status"] == status for cell in each)
        ]
        parts += [Part(f"{words}: {', '.join(ratios)}", tone)] if ratios else []
    return tuple(parts)


def _loss_text(loss: Loss, quantity: Quantity, *, relative: bool) -> str:
    if loss.undefined:
        return f"undefined for {rounding.plural(loss.undefined, 'case')}"
    if relative and loss.relative is None:
        return "no share of a mean of 0"
    scale = 100 / loss.reference if relative else 1.0

    def write(value: float) -> str:
        return rounding.signed(scale * value, 1) if relative else quantity.change(value)

    unit = " %" if relative else ""
    limits = f" {bounds(loss.interval, write)}" if loss.interval else ""
    return f"loss {write(loss.absolute)}{unit}{limits}, {seeds_text(loss.seeds)}"


def _share_text(loss: Loss) -> str:
    if loss.undefined or loss.relative is None:
        return "undefined"
    return f"{rounding.signed(-100 * loss.relative, 1)} %"


def _result_row(
    sweep: RatioSweep,
    line: Line,
    ratios: Sequence[float],
    label: str,
    phase: Phase,
    quantity: Quantity,
    *,
    gaps: int | None = None,
) -> tuple[Cell, ...]:
    """The row of a line; of one that removes nothing, its only cell before ``gaps`` empty ones."""
    found = [_result(sweep, (line, ratio), label, phase, quantity) for ratio in ratios]
    return ((Part(line.label, "strong"),), *([()] if gaps is None else []), *found, *[()] * (gaps or 0))


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
    return (*parts, *unfinished(cells)) or NOT_MEASURED


def _done(cells: Sequence[Record]) -> list[Record]:
    return [cell for cell in cells if cell["status"] == "done"]


def _size_row(place: Place, cell: Record) -> tuple[Cell, ...]:
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
    dense = sweep.of_first_seed((DENSE, 1.0))
    share = f" ({rounding.percent(cell['macs'] / dense['macs'])})" if dense else ""
    return f"{rounding.counted(cell['macs'])}{share}"
