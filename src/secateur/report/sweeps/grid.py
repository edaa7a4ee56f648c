"""Tables as plain data, whose cells have several lines: for a page and for Markdown."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secateur.records import Record
from secateur.report.intervals import Interval
from secateur.report.markdown import as_markdown
from secateur.report.sweeps.pooling import VERDICTS, Difference

_GAP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Part:
    """One line of a cell; ``tone`` is a style of the page: strong, muted, pass, fail, error, or none."""

    text: str
    tone: str = ""


Cell = tuple[Part, ...]
NO_CELL: Cell = (Part("\N{EM DASH}", "muted"),)
NOT_MEASURED: Cell = (Part("not measured", "muted"),)


@dataclass(frozen=True)
class Table:
    """A table with its heading; the first cell of a row names it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def plain(text: str) -> Cell:
    """A cell of one line."""
    return (Part(text),)


def unfinished(cells: Sequence[Record], *, why: bool = True) -> Cell:
    """What is not done of some cells of a sweep, failures first; with their messages unless ``why`` is false."""
    failed = [
        Part(f"seed {cell['seed']} failed" + (f": {error_text(cell)}" if why else ""), "error")
        for cell in cells
        if cell["status"] == "failed"
    ]
    waiting = [str(cell["seed"]) for cell in cells if cell["status"] == "waiting"]
    return (*failed, *((Part(f"not run: seed {', '.join(waiting)}", "muted"),) if waiting else ()))


def error_text(cell: Record) -> str:
    """What a cell of a sweep died of, in one line."""
    return " ".join(str(cell["error"]).split())


def bounds(interval: Interval, write: Callable[[float], str]) -> str:
    """The ends of an interval."""
    return f"[{write(interval.low)}, {write(interval.high)}]"


def seeds_text(count: int) -> str:
    """How many seeds."""
    return f"{count}{_GAP}seed{'s' if count != 1 else ''}"


def difference_cell(found: Difference) -> Cell:
    """A difference with its interval, its verdict, and what each seed has."""
    quantity = found.quantity
    seeds = ", ".join(quantity.change(value) for value in found.by_seed.values())
    return (
        Part(quantity.change(found.interval.mean), "strong"),
        Part(bounds(found.interval, quantity.change)),
        Part(found.verdict, VERDICTS[found.verdict]),
        *([Part(f"undefined: {found.undefined}", "muted")] if found.undefined else []),
        Part(f"seeds: {seeds}" if len(found.by_seed) > 1 else seeds_text(1), "muted"),
    )


def tables_markdown(tables: Sequence[Table]) -> str:
    """Tables under their headings; the lines of a cell are joined by ``<br>``."""
    return "\n".join(
        f"### {table.title}\n\n"
        + as_markdown(table.header, [[markdown_cell(cell) for cell in row] for row in table.rows])
        for table in tables
    )


def markdown_cell(cell: Cell) -> str:
    """The lines of a cell, joined by ``<br>``."""
    return "<br>".join(html.escape(part.text, quote=False) for part in cell)
