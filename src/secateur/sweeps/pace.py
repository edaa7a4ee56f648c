"""How long what is left of a sweep may take, at the pace of what is done."""

from collections.abc import Mapping, Sequence
from statistics import median

from secateur.records import Record
from secateur.sweeps.cells import Cell

_OVERHEAD = 3  # scoring, reading and evaluating take about as long as so many epochs

Pace = Sequence[tuple[float, float]]  # share of the cost kept, and seconds per epoch, of each done cell


def announcement(cell: Cell, cells: Sequence[Cell], done: Mapping[str, Record]) -> str:
    """Which cell begins, and how long all that is left may take."""
    pace = [
        (each.keep_ratio or 1.0, done[each.name]["seconds"] / (each.epochs + _OVERHEAD))
        for each in cells
        if each.name in done
    ]
    text = f"cell {len(done) + 1} of {len(cells)}: {cell.name}"
    if not pace:
        return f"{text}; its time tells how long the others may take"
    left = sum(estimate(each, pace) for each in cells if each.name not in done)
    return f"{text}; all that is left takes at most about {_words(left)} in one process"


def estimate(cell: Cell, pace: Pace) -> float:
    """Seconds for a cell at the pace of the done cells with the nearest budget that is no smaller."""
    keep = cell.keep_ratio or 1.0
    nearest = min((share for share, _ in pace if share >= keep), default=max(share for share, _ in pace))
    return (cell.epochs + _OVERHEAD) * median(seconds for share, seconds in pace if share == nearest)


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
