"""Parts of figures as plain Plotly data. Colours are names of CSS variables, so that the page's theme decides."""

import math
from collections.abc import Sequence

from secateur.records import Record
from secateur.report.intervals import Interval

Figure = dict[str, list[Record] | Record]  # {"data": traces, "layout": layout}, as Plotly reads it

SERIES = (*(f"var(--series-{number})" for number in range(1, 7)), "var(--ink)")
SYMBOLS = ("circle", "square", "triangle-up", "x", "star", "triangle-down", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")


def error_bars(intervals: Sequence[Interval], colour: str) -> Record:
    """The intervals as Plotly draws them around their means."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.high - interval.mean for interval in intervals],
        "arrayminus": [interval.mean - interval.low for interval in intervals],
        "color": colour,
        "thickness": 1.5,
        "width": 5,
    }


def log_axis(values: Sequence[float], *, room: float, room_right: float | None = None) -> Record:
    """A logarithmic axis labelled 1, 2, 5, 10, ..., with so many decades of room beside the outer points."""
    low = math.log10(min(values)) - room
    high = math.log10(max(values)) + (room if room_right is None else room_right)
    powers = range(math.floor(low), math.ceil(high))
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return {
        "type": "log",
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def base_layout(x_title: str, y_title: str) -> Record:
    """What all figures share: size, colours of the theme, legend on top, axes with their titles."""
    axis = {"gridcolor": "var(--line)", "zeroline": False, "automargin": True, "linecolor": "var(--line)"}
    return {
        "height": 340,
        "margin": {"l": 52, "r": 24, "t": 36, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--ink)", "size": 13, "family": "system-ui, sans-serif"},
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}},
    }
