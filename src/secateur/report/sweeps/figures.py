"""Lines of figures about sweeps: means with their intervals, single seeds, levels."""

from collections.abc import Sequence

from secateur.records import Record
from secateur.report.figures import Figure, error_bars
from secateur.report.sweeps.pooling import Pooled

_FADED = 0.7  # opacity of single seeds


def traces(
    name: str,
    points: Sequence[tuple[float, Pooled]],
    look: Record,
    *,
    hover: str,
    hints: Sequence[str] = (),
    value: str = "Dice %{y:.3f}",
) -> list[Record]:
    """A line through the means with their intervals, and the single seeds where there are several.

    Args:
        name: in the legend.
        points: place on the axis, and what was reached there.
        look: line and marker, from `style`.
        hover: what is shown of a point of the line, and
        hints: ``customdata`` of each of them.
        value: what is shown of a single seed, after its name.
    """
    intervals = [found.interval for _, found in points if found.interval]
    seeds = [(x, value, seed) for x, found in points if len(found.by_seed) > 1 for seed, value in found.by_seed.items()]
    line = {
        **look,
        "name": name,
        "legendgroup": name,
        "x": [x for x, _ in points],
        "y": [found.mean for _, found in points],
        "customdata": list(hints),
        "hovertemplate": hover + "<extra></extra>",
    }
    if len(intervals) == len(points):
        line["error_y"] = error_bars(intervals, look["line"]["color"]) | {"thickness": 1, "width": 3}
    single = {
        **look,
        "name": name,
        "legendgroup": name,
        "showlegend": False,
        "mode": "markers",
        "x": [x for x, _, _ in seeds],
        "y": [value for _, value, _ in seeds],
        "customdata": [f"{name}, seed {seed}" for _, _, seed in seeds],
        "hovertemplate": "%{customdata}: " + value + "<extra></extra>",
        "marker": {**look["marker"], "size": 5, "symbol": "circle", "opacity": _FADED},
    }
    return [line, single] if seeds else [line]


def style(colour: str, symbol: str, *, dash: str = "solid", width: float = 1.5, after: bool = True) -> Record:
    """Line and marker; dotted and open where it is not ``after`` recovery."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "line": {"color": colour, "width": width, "dash": dash if after else "dot"},
        "marker": {"color": colour, "size": 9, "symbol": symbol if after else f"{symbol}-open"},
    }


def level(y: float, colour: str = "var(--dense)", text: str = "dense") -> Record:
    """A dotted line across the figure."""
    line = {"color": colour, "width": 1, "dash": "dot"}
    label = {"text": text, "textposition": "start", "yanchor": "bottom", "font": {"color": colour, "size": 11}}
    across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y}
    return {**across, "line": line, "label": label}


def drawn(figures: Sequence[tuple[str, Figure | None]]) -> list[tuple[str, Figure]]:
    """The figures that there are, with their headings."""
    return [(heading, figure) for heading, figure in figures if figure]
