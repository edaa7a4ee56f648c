"""The figures as plain Plotly data. Colours are names of CSS variables, so that the page's theme decides."""

import math
from collections.abc import Callable, Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.cases import CasePair
from secateur.report.runs import Run, Setup
from secateur.report.tables import Interval, SummaryRow

Figure = dict[str, list[Record] | Record]  # {"data": traces, "layout": layout}, as Plotly reads it

SERIES = (*(f"var(--series-{number})" for number in range(1, 7)), "var(--ink)")
SYMBOLS = ("circle", "square", "triangle-up", "x", "star", "triangle-down", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
_OTHER = "other"  # a network without a pruning record


def dice_against_macs(rows: Sequence[SummaryRow]) -> Figure | None:
    """Mean Dice with its interval against MACs, one series per way of choosing channels."""
    return _tradeoff(rows, lambda row: row.macs / 1e9 if row.macs else None, title="GMACs per frame, log scale")


def dice_against_latency(rows: Sequence[SummaryRow], setup: Setup) -> Figure | None:
    """Mean Dice with its interval against the median latency on one setup."""

    def p50_ms(row: SummaryRow) -> float | None:
        return row.latency[setup].p50_ms if setup in row.latency else None

    return _tradeoff(rows, p50_ms, title="median ms per frame, log scale")


def learning_curves(runs: Sequence[Run], *, key: str, title: str) -> Figure | None:
    """One value of ``metrics.jsonl`` by epoch; the stages of a run follow one another."""
    methods = _methods([run.prune["criterion"] if run.prune else None for run in runs])
    data: list[Record] = []
    for index, run in enumerate(runs):
        values = [epoch[key] for epoch in run.epochs]
        if not values:
            continue
        colour, _ = _look(run.prune["criterion"] if run.prune else None, methods, dense=index == 0)
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if len(values) > 1 else "markers",
                "name": run.name,
                "x": list(range(1, len(values) + 1)),
                "y": values,
                "customdata": [f"{epoch['stage']}, epoch {epoch['epoch']}" for epoch in run.epochs],
                "hovertemplate": "%{y:.3f} (%{customdata})",
                "line": {"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
            }
        )
    return {"data": data, "layout": base_layout("epochs, stages in a row", title)} if data else None


def kept_widths(prune: Record) -> Figure:
    """Channels before and after of every group, in the order of the network."""
    groups = prune["groups"]
    numbers = list(range(1, len(groups) + 1))
    names = [str(group["id"]) for group in groups]
    bar = {"type": "bar", "x": numbers, "customdata": names}
    data = [
        {
            **bar,
            "name": "dense",
            "y": [group["width"] for group in groups],
            "marker": {"color": "var(--dense-soft)"},
            "hovertemplate": "%{customdata}: %{y} channels",
        },
        {
            **bar,
            "name": "kept",
            "y": [group["kept"] for group in groups],
            "marker": {"color": "var(--pruned)"},
            "hovertemplate": "%{y} kept",
        },
    ]
    layout = base_layout("channel group, from input to output", "channels")
    return {
        "data": data,
        "layout": {**layout, "barmode": "overlay", "bargap": 0.25, "hovermode": "x unified", "height": 420},
    }


def case_scatter(pairs: Sequence[CasePair]) -> Figure:
    """Dice of the pruned against the dense network, one point per case; equal on the dotted line."""
    data = []
    for lost, name, symbol in ((False, "case", "circle"), (True, "case with a lost polyp", "x")):
        chosen = [pair for pair in pairs if bool(pair.polyps_lost) == lost]
        if chosen:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [pair.dense_dice for pair in chosen],
                    "y": [pair.pruned_dice for pair in chosen],
                    "customdata": [pair.id for pair in chosen],
                    "hovertemplate": "%{customdata}: %{x:.3f} to %{y:.3f}<extra></extra>",
                    "marker": {
                        "color": "var(--warn)" if lost else "var(--pruned)",
                        "symbol": symbol,
                        "size": 10 if lost else 8,
                        "opacity": 1 if lost else 0.65,
                    },
                }
            )
    layout = base_layout("Dice, dense", "Dice, pruned")
    layout["xaxis"] |= {"range": [-0.03, 1.03], "dtick": 0.2, "constrain": "domain"}
    layout["yaxis"] |= {"range": [-0.03, 1.03], "dtick": 0.2, "constrain": "domain", "scaleanchor": "x"}
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    layout["shapes"] = [{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "layer": "below", "line": line}]
    return {"data": data, "layout": {**layout, "height": 420}}


def _tradeoff(
    rows: Sequence[SummaryRow], position: Callable[[SummaryRow], float | None], *, title: str
) -> Figure | None:
    methods = _methods([row.method for row in rows])
    series: dict[tuple[str, bool], list[tuple[float, SummaryRow]]] = {}
    for index, row in enumerate(rows):
        x = position(row)
        if x is not None and row.dice is not None:
            key = ("dense", True) if index == 0 else (row.method or _OTHER, False)
            series.setdefault(key, []).append((x, row))
    if not series:
        return None
    data = []
    for (name, dense), points in series.items():
        points.sort(key=lambda point: point[0])
        colour, symbol = _look(name, methods, dense=dense)
        dices = [row.dice for _, row in points if row.dice]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "name": name,
                "x": [x for x, _ in points],
                "y": [dice.mean for dice in dices],
                "error_y": error_bars(dices, colour),
                "text": [rounding.percent(row.macs_keep_ratio) if row.macs_keep_ratio else "" for _, row in points],
                "textposition": "bottom right",
                "textfont": {"color": "var(--muted)", "size": 11},
                "customdata": [row.name for _, row in points],
                "hovertemplate": "%{customdata}: Dice %{y:.3f} at %{x:.3g}<extra></extra>",
                "line": {"color": colour, "width": 1.5, "dash": "dot"},
                "marker": {"color": colour, "size": 10, "symbol": symbol},
            }
        )
    layout = base_layout(title, "mean Dice")
    layout["xaxis"] |= _log_axis([x for points in series.values() for x, _ in points])
    return {"data": data, "layout": layout}


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


def _log_axis(values: Sequence[float]) -> Record:
    """A logarithmic axis labelled 1, 2, 5, 10, ..., with room for the labels right of the last point."""
    low, high = math.log10(min(values)) - 0.15, math.log10(max(values)) + 0.25
    powers = range(math.floor(low), math.ceil(high))
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return {
        "type": "log",
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _methods(names: Sequence[str | None]) -> list[str]:
    return list(dict.fromkeys(name or _OTHER for name in names[1:]))


def _look(method: str | None, methods: Sequence[str], *, dense: bool) -> tuple[str, str]:
    """Colour and symbol: the same for one way of choosing channels in every figure."""
    if dense:
        return "var(--dense)", "diamond"
    place = methods.index(method or _OTHER)
    return SERIES[place % len(SERIES)], SYMBOLS[place % len(SYMBOLS)]


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
