"""The figures of a sweep over ratios as plain Plotly data: one colour and symbol per line."""

import math
from collections.abc import Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.figures import SERIES, SYMBOLS, Figure, base_layout, log_axis
from secateur.report.quantities import Quantity
from secateur.report.sweeps.figures import level, style, traces
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.ratios.results import CONTROL, DENSE, FILTERS, LAYER, LINES, PRUNED, Line, RatioSweep
from secateur.report.sweeps.ratios.tables import place_name

_ROOM = 0.06  # decades beside the outer points
_SHIFT = 0.014  # decades between neighbours of one ratio
_FILES = (("dense_bytes", "plain file", "dot"), ("gzip_bytes", "gzip", "dash"), ("compressed_bytes", "sparse", "solid"))
_CROSS = "\N{MULTIPLICATION SIGN}"


def metric_curves(sweep: RatioSweep, label: str, phase: Phase, quantity: Quantity) -> Figure | None:
    """One output against the ratio, a line per way of making the network small, the dense network as a band."""
    data: list[Record] = []
    lines = [line for line in sweep.lines(phase) if line != DENSE]
    for number, line in enumerate(lines):
        shift = 10 ** (_SHIFT * (number - (len(lines) - 1) / 2))
        found = {
            (line, ratio): pooled
            for ratio in sweep.ratios(line)
            if (pooled := sweep.pooled((line, ratio), label, phase, quantity)) and pooled.interval
        }
        if found:
            points = [(sweep.position(place) * shift, pooled) for place, pooled in found.items()]
            hints = [place_name(*place) for place in found]
            value = f"{quantity.name} %{{y:.{quantity.digits}f}}"
            look, hover = _look(sweep, line), f"%{{customdata}}: {value}"
            data += traces(line.label, points, look, hover=hover, hints=hints, value=value)
    if not data:
        return None
    layout = base_layout("weights before over weights left, log scale", f"mean {quantity.name}")
    layout["xaxis"] |= log_axis([x for trace in data for x in trace["x"]], room=_ROOM)
    layout["shapes"] = _band(sweep, label, phase, quantity)
    return {"data": data, "layout": {**layout, "height": 440}}


def density_map(sweep: RatioSweep, line: Line) -> Figure | None:
    """Share of weights left in every layer at every ratio, of the first dense training; dead layers are crossed."""
    cells = dict(_sparse_cells(sweep, line))
    if not cells:
        return None
    layers = {rounding.ratio(ratio): cell["sparsity"]["masks"]["layers"] for ratio, cell in cells.items()}
    columns = list(layers)
    names = [str(layer["name"]).removesuffix(".weight") for layer in layers[columns[0]]]
    left = [[layers[column][row]["density"] for column in columns] for row in range(len(names))]
    dead = [(columns[at], name) for name, row in zip(names, left, strict=True) for at, d in enumerate(row) if not d]
    layout = base_layout("weights before over weights left", "")
    layout["xaxis"] |= {"type": "category", "showgrid": False}
    layout["yaxis"] |= {"autorange": "reversed", "tickfont": {"size": 10}, "showgrid": False}
    return {
        "data": [_heat(columns, names, left), *([_crosses(dead)] if dead else [])],
        "layout": {**layout, "showlegend": False, "height": max(320, 140 + 15 * len(names))},
    }


def disk_curves(sweep: RatioSweep) -> Figure | None:
    """Size of each file against the ratio, of the first dense training."""
    data: list[Record] = []
    for line in PRUNED:
        cells = _sparse_cells(sweep, line)
        for key, name, dash in _FILES if cells else ():
            look = _look(sweep, line)
            data.append(
                {
                    **look,
                    "line": {**look["line"], "dash": dash, "width": 2},
                    "name": f"{line.label}, {name}",
                    "x": [ratio for ratio, _ in cells],
                    "y": [cell["sparsity"]["sizes"][key] / 1e6 for _, cell in cells],
                    "hovertemplate": f"{line.label}, {name}: %{{y:.3g}} MB at %{{x:g}}{_CROSS}<extra></extra>",
                }
            )
    return _left(data, "MB, log scale", log=True) if data else None


def macs_curves(sweep: RatioSweep) -> Figure | None:
    """Share of the multiply-adds that are left once dead filters are out, of the first dense training."""
    data: list[Record] = []
    for line in PRUNED:
        cells = _sparse_cells(sweep, line)
        if cells:
            data.append(
                {
                    **_look(sweep, line),
                    "name": line.label,
                    "x": [ratio for ratio, _ in cells],
                    "y": [100 * cell["sparsity"]["reached"]["macs_keep_ratio"] for _, cell in cells],
                    "hovertemplate": f"{line.label}: %{{y:.3g}} % at %{{x:g}}{_CROSS}<extra></extra>",
                }
            )
    dense = sweep.of_first_seed((DENSE, 1.0))
    filters = [(FILTERS, ratio) for ratio in sweep.ratios(FILTERS)]
    points = [(sweep.position(place), cell) for place in filters if (cell := sweep.of_first_seed(place))]
    if data and dense and points:
        data.append(
            {
                **_look(sweep, FILTERS),
                "name": FILTERS.label,
                "x": [ratio for ratio, _ in points],
                "y": [100 * cell["macs"] / dense["macs"] for _, cell in points],
                "hovertemplate": f"{FILTERS.label}: %{{y:.3g}} % at %{{x:.3g}}{_CROSS}<extra></extra>",
            }
        )
    return _left(data, "MACs left, %", log=False) if data else None


def _heat(columns: Sequence[str], names: Sequence[str], left: Sequence[Sequence[float]]) -> Record:
    lowest = min(density for row in left for density in row if density)
    return {
        "type": "heatmap",
        "x": list(columns),
        "y": list(names),
        "z": [[math.log10(100 * density) if density else None for density in row] for row in left],
        "customdata": [[100 * density for density in row] for row in left],
        "hovertemplate": "%{y} at %{x}: %{customdata:.3g} %<extra></extra>",
        "colorscale": [[0, "var(--dense-soft)"], [1, "var(--dense)"]],
        "zmin": min(math.log10(100 * lowest), 1.99),
        "zmax": 2,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "title": {"text": "left, %"},
            "tickvals": [-2, -1, 0, 1, 2],
            "ticktext": ["0.01", "0.1", "1", "10", "100"],
            "thickness": 12,
            "outlinewidth": 0,
        },
    }


def _crosses(dead: Sequence[tuple[str, str]]) -> Record:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "died",
        "x": [column for column, _ in dead],
        "y": [name for _, name in dead],
        "hovertemplate": "%{y} at %{x}: died<extra></extra>",
        "marker": {"color": "var(--warn)", "symbol": "x", "size": 8},
    }


def _left(data: list[Record], title: str, *, log: bool) -> Figure:
    layout = base_layout("weights before over weights left, log scale", title)
    xs, ys = ([value for trace in data for value in trace[key]] for key in ("x", "y"))
    layout["xaxis"] |= log_axis(xs, room=_ROOM)
    layout["yaxis"] |= log_axis(ys, room=_ROOM) if log else {"rangemode": "tozero"}
    return {"data": data, "layout": {**layout, "height": 440}}


def _sparse_cells(sweep: RatioSweep, line: Line) -> list[tuple[float, Record]]:
    return [(ratio, cell) for ratio in sweep.ratios(line) if (cell := sweep.of_first_seed((line, ratio)))]


def _band(sweep: RatioSweep, label: str, phase: Phase, quantity: Quantity) -> list[Record]:
    """The dense network's interval across the figure, with its mean."""
    dense = sweep.pooled((DENSE, 1.0), label, phase, quantity)
    if dense is None or dense.interval is None:
        return []
    ends = {"y0": dense.interval.low, "y1": dense.interval.high}
    across = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below", "line": {"width": 0}}
    return [{**across, **ends, "fillcolor": "var(--dense-soft)", "opacity": 0.4}, level(dense.interval.mean)]


def _look(sweep: RatioSweep, line: Line) -> Record:
    """Line and marker, the same in every figure."""
    if line == CONTROL:
        return style("var(--dense)", "diamond-open")
    others = [each for each in dict.fromkeys(each for each, _ in sweep.places) if each not in LINES]
    number = [*LINES[LINES.index(LAYER) :], *others].index(line) % len(SERIES)
    return style(SERIES[number], SYMBOLS[number], width=3 if line in PRUNED else 1.5)
