"""The figures as plain Plotly data. Colours are names of CSS variables, so that the page's theme decides."""

from collections.abc import Callable, Sequence

from secateur.records import Record
from secateur.report.figures import DASHES, SERIES, SYMBOLS, Figure, base_layout, error_bars, log_axis
from secateur.report.quantities import Quantity
from secateur.report.rows import SummaryRow, chosen_by
from secateur.report.runs.cases import CasePair
from secateur.report.runs.records import Run
from secateur.report.tasks.task_view import TaskView
from secateur.report.timings import Setup

_OTHER = "other"  # a network without a pruning record


def score_against_macs(rows: Sequence[SummaryRow], view: TaskView) -> Figure | None:
    """Mean of the leading metric with its interval against MACs, one series per way of choosing."""
    title = f"GMACs per {view.unit}, log scale"
    return _tradeoff(rows, lambda row: row.macs / 1e9 if row.macs else None, view.leading, title=title)


def score_against_params(rows: Sequence[SummaryRow], view: TaskView) -> Figure | None:
    """The same against the parameters that are not zero."""
    title = "million parameters that are not zero, log scale"
    return _tradeoff(rows, lambda row: row.params / 1e6 if row.params else None, view.leading, title=title)


def score_against_latency(rows: Sequence[SummaryRow], view: TaskView, setup: Setup) -> Figure | None:
    """The same against the median latency on one setup."""

    def p50_ms(row: SummaryRow) -> float | None:
        return row.latency[setup].p50_ms if setup in row.latency else None

    return _tradeoff(rows, p50_ms, view.leading, title=f"median ms per {view.unit}, log scale")


def learning_curves(runs: Sequence[Run], *, value: Callable[[Record], float | None], title: str) -> Figure | None:
    """One value of the lines of ``metrics.jsonl`` by epoch; the stages of a run follow one another."""
    names = [chosen_by(run.prune) if run.prune else None for run in runs]
    methods = _methods(names)
    data: list[Record] = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        values = [value(epoch) for epoch in run.epochs]
        if not values:
            continue
        colour, _ = _look(name, methods, dense=index == 0)
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


def seconds_per_case(runs: Sequence[Run]) -> Figure | None:
    """What the time of a case goes to, a bar of steps per run; None where no evaluation has it."""
    timed = [(run.name, run.evaluation["seconds"]) for run in runs if run.evaluation and "seconds" in run.evaluation]
    if not timed:
        return None
    names = [name for name, _ in reversed(timed)]  # the first on top
    data: list[Record] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": step,
            "y": names,
            "x": [seconds[step] for _, seconds in reversed(timed)],
            "hovertemplate": "%{y}, " + step + ": %{x:.3g} s<extra></extra>",
            "marker": {"color": colour},
        }
        for step, colour in zip(timed[0][1], SERIES[1:], strict=False)
    ]
    layout = base_layout("seconds per case, mean", "")
    layout["yaxis"] |= {"type": "category"}
    layout["legend"] |= {"traceorder": "normal"}
    return {"data": data, "layout": {**layout, "barmode": "stack", "height": 130 + 44 * len(timed)}}


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


def case_scatter(pairs: Sequence[CasePair], view: TaskView) -> Figure:
    """The leading metric of the pruned against the dense network, one point per case; equal on the dotted line."""
    data = []
    for harmed, name, symbol in ((False, "case", "circle"), (True, view.harmed, "x")):
        chosen = [pair for pair in pairs if bool(pair.harm) == harmed]
        if chosen:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [pair.dense for pair in chosen],
                    "y": [pair.pruned for pair in chosen],
                    "customdata": [pair.id for pair in chosen],
                    "hovertemplate": "%{customdata}: %{x:.3f} to %{y:.3f}<extra></extra>",
                    "marker": {
                        "color": "var(--warn)" if harmed else "var(--pruned)",
                        "symbol": symbol,
                        "size": 10 if harmed else 8,
                        "opacity": 1 if harmed else 0.65,
                    },
                }
            )
    layout = base_layout(f"{view.leading.name}, dense", f"{view.leading.name}, pruned")
    layout["xaxis"] |= {"range": [-0.03, 1.03], "dtick": 0.2, "constrain": "domain"}
    layout["yaxis"] |= {"range": [-0.03, 1.03], "dtick": 0.2, "constrain": "domain", "scaleanchor": "x"}
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    layout["shapes"] = [{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "layer": "below", "line": line}]
    return {"data": data, "layout": {**layout, "height": 420}}


def _tradeoff(
    rows: Sequence[SummaryRow],
    position: Callable[[SummaryRow], float | None],
    leading: Quantity,
    *,
    title: str,
) -> Figure | None:
    methods = _methods([row.method for row in rows])
    series: dict[tuple[str, bool], list[tuple[float, SummaryRow]]] = {}
    for index, row in enumerate(rows):
        x = position(row)
        if x is not None and row.score is not None:
            key = ("dense", True) if index == 0 else (row.method or _OTHER, False)
            series.setdefault(key, []).append((x, row))
    if not series:
        return None
    data = []
    for (name, dense), points in series.items():
        points.sort(key=lambda point: point[0])
        colour, symbol = _look(name, methods, dense=dense)
        means = [row.score for _, row in points if row.score]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "name": name,
                "x": [x for x, _ in points],
                "y": [mean.mean for mean in means],
                "error_y": error_bars(means, colour),
                "text": [row.cut or "" for _, row in points],
                "textposition": "bottom right",
                "textfont": {"color": "var(--muted)", "size": 11},
                "customdata": [row.name for _, row in points],
                "hovertemplate": "%{customdata}: " + leading.name + " %{y:.3f} at %{x:.3g}<extra></extra>",
                "line": {"color": colour, "width": 1.5, "dash": "dot"},
                "marker": {"color": colour, "size": 10, "symbol": symbol},
            }
        )
    layout = base_layout(title, f"mean {leading.name}")
    values = [x for points in series.values() for x, _ in points]
    layout["xaxis"] |= log_axis(values, room=0.15, room_right=0.25)  # for the labels right of the points
    return {"data": data, "layout": layout}


def _methods(names: Sequence[str | None]) -> list[str]:
    return list(dict.fromkeys(name or _OTHER for name in names[1:]))


def _look(method: str | None, methods: Sequence[str], *, dense: bool) -> tuple[str, str]:
    """Colour and symbol: the same for one way of choosing channels in every figure."""
    if dense:
        return "var(--dense)", "diamond"
    place = methods.index(method or _OTHER)
    return SERIES[place % len(SERIES)], SYMBOLS[place % len(SYMBOLS)]
