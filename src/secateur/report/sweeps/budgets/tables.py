"""The tables of a sweep as plain data: for the page, for Markdown, and the compact one of a README."""

from collections.abc import Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.intervals import interval_text
from secateur.report.markdown import as_markdown
from secateur.report.sweeps.budgets.cells import DENSE, Arm, Place, Sweep
from secateur.report.sweeps.grid import (
    NO_CELL,
    NOT_MEASURED,
    Cell,
    Part,
    Table,
    bounds,
    difference_cell,
    markdown_cell,
    seeds_text,
    unfinished,
)
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.record import read_latencies, set_name
from secateur.report.timings import Setup
from secateur.roles import Role

_BASELINES = ("random", "uniform", "l2")


def result_tables(sweep: Sweep, label: str) -> list[Table]:
    """Dice, lost polyps and false-polyp frames by arm and budget, after and before recovery."""
    words = f"by share of {budget_word(sweep.record)} kept"
    return [
        _result_table(sweep, label, phase, arms, title=f"Mean Dice {phase.value}, {words}")
        for phase in Phase
        if len(arms := [arm for arm in sweep.arms(phase) if arm.samples is None]) > 1
    ]


def samples_tables(sweep: Sweep, label: str) -> list[Table]:
    """The same for the arms that differ in their number of scoring samples."""
    return [
        _result_table(sweep, label, phase, arms, title=f"{set_name(sweep.record, label)}, {phase.value}")
        for phase in Phase
        if (arms := [arm for arm in sweep.arms(phase) if arm.samples is not None])
    ]


def comparison_tables(sweep: Sweep, label: str) -> list[Table]:
    """The leading arm minus every other at the same budget, after and before recovery."""
    tables = (_comparison_table(sweep, label, phase) for phase in Phase)
    return [table for table in tables if len(table.header) > 1]


def compared_arms(sweep: Sweep, phase: Phase) -> list[Arm]:
    """What the leading arm is held against: all others, but for other numbers of scoring samples."""
    return [arm for arm in sweep.arms(phase) if arm != sweep.leading and arm.samples is None]


def leading_budgets(sweep: Sweep, phase: Phase) -> list[float]:
    """The budgets at which the leading arm is in the sweep."""
    return [ratio for ratio in sweep.budgets(phase) if sweep.cells(sweep.leading, ratio, phase)]


def cell_labels(sweep: Sweep) -> dict[str, str]:
    """Cells by name, in words: arm, budget, seed."""
    return {
        cell["name"]: f"{arm.label}{f' at {rounding.percent(ratio)}' if ratio else ''}, seed {cell['seed']}"
        for (arm, ratio), cells in sweep.places.items()
        for cell in cells
    }


def compact_table(sweep: Sweep) -> str:
    """Dense, the leading arm at every budget, and what it has to be held against, as Markdown.

    Those are the same shapes from scratch at every budget, other criteria where they cut every dense network. Dice is
    the mean over cases and seeds; beside it stands what that is above the dense networks of the same seeds.
    """
    speed = next((s for s in read_latencies(sweep.record) if (s.runtime, s.precision) == ("openvino", "float32")), None)
    header = ["network", "MACs kept", "seeds"]
    for label in sweep.record["sets"]:
        header += [f"Dice, {set_name(sweep.record, label)}", "minus dense, same seeds"]
    header += [f"speed-up, {speed.label}"] if speed else []
    rows = []
    for arm, ratio in _compact_places(sweep):
        cells = sweep.cells(arm, ratio, Phase.AFTER)
        share = sweep.macs_share(arm, ratio) or ratio
        done = sum(cell["status"] == "done" for cell in cells)
        row = [arm.label, rounding.percent(share) if share else "", str(done)]
        for label in sweep.record["sets"]:
            found = sweep.at(label, Phase.AFTER, arm, ratio)
            above = sweep.difference((arm, ratio), (DENSE, None), label=label, phase=Phase.AFTER)
            mean = (Part(rounding.score(found.dice.mean)),) if found else ()
            row.append(markdown_cell((*mean, *unfinished(cells, why=False)) or NOT_MEASURED))
            row.append(interval_text(above.interval, signed=True) if above and arm != DENSE else "")
        rows.append(row + ([_speedup_text(sweep.record, speed, cells)] if speed else []))
    return as_markdown(header, rows)


def _compact_places(sweep: Sweep) -> list[Place]:
    """The rows of `compact_table`: dense, then budget by budget."""
    dense = sweep.cells(DENSE, None, Phase.AFTER)
    places: list[Place] = [(DENSE, None)]
    for ratio in leading_budgets(sweep, Phase.AFTER):
        for arm in sweep.arms(Phase.AFTER):
            cells = sweep.cells(arm, ratio, Phase.AFTER)
            everywhere = arm.variant is None and arm.criterion in _BASELINES and len(cells) == len(dense)
            if cells and (arm == sweep.leading or arm.role is Role.SCRATCH or everywhere):
                places.append((arm, ratio))
    return places


def budget_word(record: Record) -> str:
    """What the budgets limit, in words."""
    return {"macs": "MACs", "params": "parameters"}[record["recipe"]["pruning"]["budget"]]


def _result_table(sweep: Sweep, label: str, phase: Phase, arms: Sequence[Arm], *, title: str) -> Table:
    """The dense network has a column of its own, that of all MACs."""
    budgets = [ratio for ratio in sweep.budgets(phase) if any(sweep.cells(arm, ratio, phase) for arm in arms[1:])]
    columns: list[float | None] = [*([None] if DENSE in arms else []), *budgets]
    rows = [
        (
            (Part(arm.label, "strong"),),
            *(_result_cell(sweep, label, phase, arm, ratio) for ratio in columns),
        )
        for arm in arms
    ]
    return Table(title, ("Network", *(rounding.percent(ratio or 1) for ratio in columns)), tuple(rows))


def _result_cell(sweep: Sweep, label: str, phase: Phase, arm: Arm, keep_ratio: float | None) -> Cell:
    if (arm == DENSE) != (keep_ratio is None):
        return ()
    cells = sweep.cells(arm, keep_ratio, phase)
    found = sweep.at(label, phase, arm, keep_ratio)
    if not cells:
        return NO_CELL
    parts: list[Part] = []
    if found:
        parts.append(Part(f"{rounding.score(found.dice.mean)} ({seeds_text(len(found.dice.by_seed))})", "strong"))
        parts += [Part(bounds(found.dice.interval, rounding.score))] if found.dice.interval else []
        parts += (
            [Part(f"lost {rounding.share_text(found.lost, found.seen)}", "muted")] if found.seen is not None else []
        )
        parts.append(Part(f"false {rounding.share_text(found.false_frames, found.frames)}", "muted"))
    return (*parts, *unfinished(cells)) or NOT_MEASURED


def _comparison_table(sweep: Sweep, label: str, phase: Phase) -> Table:
    budgets = leading_budgets(sweep, phase)
    rows = [
        (
            (Part(arm.label, "strong"),),
            *(_comparison_cell(sweep, label, phase, arm, ratio) for ratio in budgets),
        )
        for arm in compared_arms(sweep, phase)
    ]
    title = f"{sweep.leading.label} minus each other network {phase.value}, Dice"
    return Table(title, ("Against", *(rounding.percent(ratio) for ratio in budgets)), tuple(rows))


def _comparison_cell(sweep: Sweep, label: str, phase: Phase, arm: Arm, keep_ratio: float) -> Cell:
    cells = sweep.cells(arm, keep_ratio, phase)
    if not cells:
        return NO_CELL
    other = (arm, None if arm == DENSE else keep_ratio)
    found = sweep.difference((sweep.leading, keep_ratio), other, label=label, phase=phase)
    if found is None:
        missing = unfinished(cells, why=False) or unfinished(sweep.cells(sweep.leading, keep_ratio, phase), why=False)
        return missing or (Part("not comparable: fewer than two common cases", "muted"),)
    return difference_cell(found)


def _speedup_text(record: Record, setup: Setup, cells: Sequence[Record]) -> str:
    """Speed-up of a place; from the slowest to the fastest where several seeds were timed."""
    timings = read_latencies(record)[setup]
    found = [timings[cell["name"]].speedup for cell in cells if cell["name"] in timings]
    known = [ratio for ratio in found if ratio is not None]
    ends = (rounding.times(min(known)), rounding.times(max(known))) if known else ()
    return " to ".join(dict.fromkeys(ends))
