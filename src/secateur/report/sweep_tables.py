"""The tables of a sweep as plain data: for the page, for Markdown, and the compact one of a README."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secateur.records import Record
from secateur.report import rounding
from secateur.report.runs import Setup, Timing, timings_beside
from secateur.report.sweep_cells import DENSE, Arm, Difference, Phase, Pooled, Sweep
from secateur.report.tables import Interval, as_markdown, interval_text, latency_text, share_text

_BASELINES = ("random", "uniform", "l2")
_GAP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Part:
    """One line of a cell; ``tone`` is a style of the page: strong, muted, pass, fail, error, or none."""

    text: str
    tone: str = ""


Cell = tuple[Part, ...]
NO_CELL: Cell = (Part("\N{EM DASH}", "muted"),)
_VERDICT_TONES = {"better": "pass", "worse": "fail", "no difference shown": "muted"}


@dataclass(frozen=True)
class Table:
    """A table with its heading; the first cell of a row names it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


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


def read_latencies(record: Record) -> dict[Setup, dict[str, Timing]]:
    """Latencies by setup and cell, speed-ups against the first network timed; empty where none was."""
    benches = (record["bench"] or {}).get("benches", [])
    return timings_beside(benches[0]["models"][0]["name"], [record["bench"]]) if benches else {}


def cell_labels(sweep: Sweep) -> dict[str, str]:
    """Cells by name, in words: arm, budget, seed."""
    return {
        cell["name"]: f"{arm.label}{f' at {rounding.percent(ratio)}' if ratio else ''}, seed {cell['seed']}"
        for (arm, ratio), cells in sweep.places.items()
        for cell in cells
    }


def latency_table(sweep: Sweep) -> Table | None:
    """Median milliseconds and speed-up of every timed network, a column per runtime and precision."""
    latencies = read_latencies(sweep.record)
    if not latencies:
        return None
    labels = cell_labels(sweep)
    first = next(iter(latencies.values()))
    dense = next(iter(first.values()))
    header = ("Network", "MACs (kept)", "File size", *(setup.label for setup in latencies))
    rows = tuple(
        (
            _plain(labels.get(name, name)),
            _plain(f"{rounding.counted(timing.macs)} ({rounding.percent(timing.macs / dense.macs)})"),
            _plain(rounding.megabytes(timing.size_bytes)),
            *(_plain(latency_text(timings.get(name))) for timings in latencies.values()),
        )
        for name, timing in first.items()
    )
    return Table("Latency: median (speed-up)", header, rows)


def frames_table(sweep: Sweep) -> Table | None:
    """Frames per second and the median milliseconds of each step, from decoded frame to overlay."""
    frames = sweep.record["frames"]
    if not frames:
        return None
    labels = cell_labels(sweep)
    steps = ("prepare", "network", "overlay", "total")
    header = ("Network", "Runtime", "Precision", "Frames per second", *(f"{step}, ms" for step in steps))
    rows = tuple(
        (
            _plain(labels.get(row["name"], row["name"])),
            _plain(row["runtime"]),
            _plain(row["precision"]),
            (Part(rounding.three_digits(row["fps"]), "strong"),),
            *(_plain(rounding.three_digits(row["ms"][step])) for step in steps),
        )
        for row in frames["rows"]
    )
    return Table("From decoded frame to overlay", header, rows)


def cells_table(sweep: Sweep) -> Table:
    """Every cell of the record, in its order."""
    header = (
        "Cell",
        "Status",
        "MACs",
        "Parameters",
        "Epochs",
        "Validation Dice before recovery",
        "Best validation Dice",
        "Seconds",
    )
    return Table("Every cell", header, tuple(_cell_row(cell) for cell in sweep.record["cells"]))


def tables_markdown(tables: Sequence[Table]) -> str:
    """Tables under their headings; the lines of a cell are joined by ``<br>``."""
    return "\n".join(
        f"### {table.title}\n\n"
        + as_markdown(table.header, [[_markdown_cell(cell) for cell in row] for row in table.rows])
        for table in tables
    )


def compact_table(sweep: Sweep) -> str:
    """The leading arm at every budget beside dense, random, uniform, L2 and from scratch, as Markdown."""
    speed = next((s for s in read_latencies(sweep.record) if (s.runtime, s.precision) == ("openvino", "float32")), None)
    header = [
        "network",
        "MACs kept",
        "seeds",
        *(f"Dice, {set_name(sweep.record, label)}" for label in sweep.record["sets"]),
    ]
    header += [f"speed-up, {speed.label}"] if speed else []
    arms = [arm for arm in sweep.arms(Phase.AFTER) if arm == sweep.leading or _is_baseline(arm)]
    places = [(DENSE, None), *((arm, ratio) for ratio in leading_budgets(sweep, Phase.AFTER) for arm in arms)]
    rows = []
    for arm, ratio in places:
        cells = sweep.cells(arm, ratio, Phase.AFTER)
        if not cells:
            continue
        share = sweep.macs_share(arm, ratio) or ratio
        done = sum(cell["status"] == "done" for cell in cells)
        row = [arm.label, rounding.percent(share) if share else "", str(done)]
        for label in sweep.record["sets"]:
            found = sweep.at(label, Phase.AFTER, arm, ratio)
            lines = [Part(_dice_text(found))] if found else []
            row.append(_markdown_cell((*lines, *_unfinished(cells, why=False))))
        rows.append(row + ([_speedup_text(sweep.record, speed, cells)] if speed else []))
    return as_markdown(header, rows)


def set_name(record: Record, label: str) -> str:
    """Source and split of an evaluated set, with its number of cases."""
    found = record["sets"][label]
    return f"{found['source']} {found['split']} ({len(found['ids'])} cases)"


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
        parts.append(Part(f"{rounding.score(found.mean)} ({_seeds(len(found.by_seed))})", "strong"))
        parts += [Part(_bounds(found.interval, rounding.score))] if found.interval else []
        parts += [Part(f"lost {share_text(found.lost, found.seen)}", "muted")] if found.seen is not None else []
        parts.append(Part(f"false {share_text(found.false_frames, found.frames)}", "muted"))
    return (*parts, *_unfinished(cells))


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
        missing = _unfinished(cells, why=False) or _unfinished(sweep.cells(sweep.leading, keep_ratio, phase), why=False)
        return missing or (Part("not comparable: fewer than two common cases", "muted"),)
    return _difference_parts(found)


def _difference_parts(found: Difference) -> Cell:
    seeds = ", ".join(rounding.signed(value) for value in found.by_seed.values())
    return (
        Part(rounding.signed(found.interval.mean), "strong"),
        Part(_bounds(found.interval, rounding.signed)),
        Part(found.verdict, _VERDICT_TONES[found.verdict]),
        *((Part(f"seeds: {seeds}", "muted"),) if len(found.by_seed) > 1 else (Part(_seeds(1), "muted"),)),
    )


def _unfinished(cells: Sequence[Record], *, why: bool = True) -> Cell:
    """What is not done of a place, failures first; with their messages unless ``why`` is false."""
    failed = [
        Part(f"seed {cell['seed']} failed" + (f": {_error(cell)}" if why else ""), "error")
        for cell in cells
        if cell["status"] == "failed"
    ]
    waiting = [str(cell["seed"]) for cell in cells if cell["status"] == "waiting"]
    return (*failed, *((Part(f"not run: seed {', '.join(waiting)}", "muted"),) if waiting else ()))


def _cell_row(cell: Record) -> tuple[Cell, ...]:
    status = {
        "done": Part("done"),
        "failed": Part(f"failed: {_error(cell)}", "error"),
        "waiting": Part("not run", "muted"),
    }[cell["status"]]
    done = cell["status"] == "done"
    trained = done and (cell["kind"] != "pruned" or cell["recovered"])
    return (
        _plain(cell["name"]),
        (status,),
        _plain(rounding.counted(cell["macs"]) if done else ""),
        _plain(rounding.counted(cell["params"]) if done else ""),
        _plain(str(cell["epochs"]) if done else ""),
        _plain(rounding.score(cell["val_dice_before"]) if done and cell["kind"] == "pruned" else ""),
        _plain(rounding.score(cell["best_val_dice"]) if trained else ""),
        _plain("" if cell["seconds"] is None else rounding.three_digits(cell["seconds"])),
    )


def _is_baseline(arm: Arm) -> bool:
    return arm.kind == "scratch" or (arm.criterion in _BASELINES and arm.variant is None)


def _dice_text(found: Pooled) -> str:
    return interval_text(found.interval) or rounding.score(found.mean)


def _speedup_text(record: Record, setup: Setup, cells: Sequence[Record]) -> str:
    """Speed-up of a place; from the slowest to the fastest where several seeds were timed."""
    timings = read_latencies(record)[setup]
    found = [timings[cell["name"]].speedup for cell in cells if cell["name"] in timings]
    known = [ratio for ratio in found if ratio is not None]
    ends = (rounding.times(min(known)), rounding.times(max(known))) if known else ()
    return " to ".join(dict.fromkeys(ends))


def _bounds(interval: Interval, write: Callable[[float], str]) -> str:
    return f"[{write(interval.low)}, {write(interval.high)}]"


def _seeds(count: int) -> str:
    return f"{count}{_GAP}seed{'s' if count != 1 else ''}"


def _error(cell: Record) -> str:
    return " ".join(str(cell["error"]).split())


def _plain(text: str) -> Cell:
    return (Part(text),)


def _markdown_cell(cell: Cell) -> str:
    return "<br>".join(html.escape(part.text, quote=False) for part in cell)
