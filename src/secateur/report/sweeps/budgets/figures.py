"""The figures of a sweep as plain Plotly data: a colour per criterion, a dash and an open symbol per variant."""

import math
from collections.abc import Mapping, Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.figures import DASHES, SERIES, SYMBOLS, Figure, base_layout
from secateur.report.sweeps.budgets.cells import DENSE, Arm, Place, Sweep
from secateur.report.sweeps.budgets.tables import compared_arms
from secateur.report.sweeps.figures import level, style, traces
from secateur.report.sweeps.pooling import Phase, Pooled
from secateur.report.timings import Timing
from secateur.roles import Role

_SHIFT = 0.009  # decades between neighbours of one budget
_VARIANTS = ("circle-open", "square-open", "hexagram-open", "triangle-left-open")


def dice_curves(sweep: Sweep, label: str, phase: Phase) -> Figure | None:
    """Mean Dice with its interval against the share of MACs kept, one line per arm; seeds as small points."""
    arms = [arm for arm in (sweep.leading, *compared_arms(sweep, phase)) if arm != DENSE]
    places = {
        (arm, ratio): found.dice
        for arm in arms
        for ratio in sweep.budgets(phase)
        if (found := sweep.at(label, phase, arm, ratio)) and found.dice.interval
    }
    data = []
    for arm in arms:
        points = [
            (100 * (sweep.macs_share(arm, ratio) or ratio), _shift(place, list(places)), found)
            for place, found in places.items()
            if place[0] == arm and (ratio := place[1])
        ]
        data += _line(sweep, arm, points) if points else []
    dense = sweep.at(label, phase, DENSE, None)
    if not data:
        return None
    layout = base_layout("share of MACs kept, %, log scale", f"mean Dice {phase.value}")
    layout["xaxis"] |= _percent_axis([*sweep.budgets(phase), 1.0])
    if dense and dense.dice.interval:
        data = [*_line(sweep, DENSE, [(100.0, 1.0, dense.dice)]), *data]
        layout["shapes"] = [level(dense.dice.interval.mean)]
    return {"data": data, "layout": {**layout, "height": 500}}


def samples_curves(sweep: Sweep, label: str) -> Figure | None:
    """Mean Dice against the number of scoring samples, before and after recovery; seeds as small points."""
    series: dict[Place, list[Arm]] = {}
    for arm, ratio in sweep.places:
        if arm.samples is not None:
            series.setdefault((Arm(Role.PRUNED, arm.criterion), ratio), []).append(arm)
    data, levels = [], []
    for number, ((plain, ratio), arms) in enumerate(series.items()):
        for phase in Phase:
            found = [(arm.samples or 0, sweep.at(label, phase, arm, ratio)) for arm in arms]
            points = [(float(count), each.dice) for count, each in found if each and each.dice.mean is not None]
            if not points:
                continue
            name = f"{plain.label} at {rounding.percent(ratio or 1)}, {phase.value}"
            look = style(SERIES[number % len(SERIES)], SYMBOLS[number % len(SYMBOLS)], after=phase is Phase.AFTER)
            data += traces(name, points, look, hover="%{x} samples: Dice %{y:.3f}")
            reference = sweep.at(label, phase, plain, ratio)
            if reference and reference.dice.mean is not None:
                levels.append(level(reference.dice.mean, look["line"]["color"], _all_samples(sweep)))
    if not data:
        return None
    layout = base_layout("scoring samples, log scale", "mean Dice")
    counts = sorted({arm.samples for arms in series.values() for arm in arms if arm.samples})
    layout["xaxis"] |= {"type": "log", "tickvals": counts, "ticktext": [str(count) for count in counts]}
    return {"data": data, "layout": {**layout, "shapes": levels, "height": 440}}


def speedup_curves(sweep: Sweep, timings: Mapping[str, Timing]) -> Figure | None:
    """Speed-up against MACs compression on one setup; on the dotted line all of the saving arrives."""
    first = next(iter(timings.values()))
    data = []
    for arm, group in _timed(sweep, timings).items():
        points = sorted((first.macs / timing.macs, timing.speedup, name) for name, timing in group if timing.speedup)
        if not points:
            continue
        look = _look(sweep, arm)
        data.append(
            {
                **look,
                "name": arm.label,
                "x": [compression for compression, _, _ in points],
                "y": [speedup for _, speedup, _ in points],
                "customdata": [name for _, _, name in points],
                "hovertemplate": "%{customdata}: %{y:.2f} times faster at %{x:.1f} times fewer MACs<extra></extra>",
            }
        )
    if not data:
        return None
    layout = base_layout("MACs, dense over pruned, log scale", "speed-up, log scale")
    most = 1.15 * max(value for trace in data for key in ("x", "y") for value in trace[key])
    ticks = [1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    layout["xaxis"] |= {**axis, "range": [-0.03, math.log10(most)]}
    layout["yaxis"] |= axis
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    layout["shapes"] = [{"type": "line", "x0": 1, "y0": 1, "x1": most, "y1": most, "layer": "below", "line": line}]
    return {"data": data, "layout": {**layout, "height": 440}}


def _timed(sweep: Sweep, timings: Mapping[str, Timing]) -> dict[Arm, list[tuple[str, Timing]]]:
    """Timed cells by arm, the dense ones left out, in the order of the tables."""
    found: dict[Arm, list[tuple[str, Timing]]] = {}
    for (arm, _), cells in sweep.places.items():
        for cell in cells:
            if arm != DENSE and arm.samples is None and cell["name"] in timings:
                found.setdefault(arm, []).append((cell["name"], timings[cell["name"]]))
    return found


def _shift(place: Place, places: Sequence[Place]) -> float:
    """Factor that moves a point sideways, so that the intervals of one budget do not hide each other."""
    beside = [each for each in places if each[1] == place[1]]
    return float(10 ** (_SHIFT * (beside.index(place) - (len(beside) - 1) / 2)))


def _line(sweep: Sweep, arm: Arm, points: Sequence[tuple[float, float, Pooled]]) -> list[Record]:
    """The traces of an arm from its points: share of MACs in percent, shift, result."""
    return traces(
        arm.label,
        [(share * shift, found) for share, shift, found in points],
        _look(sweep, arm),
        hover="%{customdata}: Dice %{y:.3f}",
        hints=[f"{arm.label}, {rounding.percent(share / 100)} of MACs" for share, _, _ in points],
    )


def _look(sweep: Sweep, arm: Arm) -> Record:
    """Line and marker of an arm, the same in every figure."""
    if arm == DENSE:
        return style("var(--dense)", "diamond", width=3)
    arms = [arm for arm in dict.fromkeys(each for each, _ in sweep.places) if arm != DENSE and arm.samples is None]
    place = list(dict.fromkeys(each.criterion for each in arms)).index(arm.criterion)
    variant = [each for each in arms if each.criterion == arm.criterion].index(arm)
    turn = place // len(SERIES)  # beyond the colours, another symbol with each
    plain = SYMBOLS[(place + turn) % len(SYMBOLS)]
    return style(
        SERIES[place % len(SERIES)],
        _VARIANTS[(variant - 1) % len(_VARIANTS)] if variant else plain,
        dash=DASHES[(variant + turn) % len(DASHES)],
        width=3 if arm == sweep.leading else 1.5,
    )


def _all_samples(sweep: Sweep) -> str:
    count = sweep.record["recipe"]["pruning"]["scoring_samples"]
    return "all training frames" if count is None else f"{count} samples"


def _percent_axis(shares: Sequence[float]) -> Record:
    ticks = sorted({100 * share for share in shares})
    return {
        "type": "log",
        "range": [math.log10(ticks[0]) - 0.09, 2.09],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
