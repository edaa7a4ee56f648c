"""One row per run, as plain data and as text cells; a Markdown table for pages outside the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secateur.metrics.aggregate import summarize_difference
from secateur.records import Record
from secateur.report import rounding
from secateur.report.runs import Run, Setup, Timing, read_runs, read_timings


@dataclass(frozen=True)
class Interval:
    """A mean over cases with its 95 % interval; ``cases`` is how many are defined, two or more."""

    mean: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True)
class SummaryRow:
    """What is known of one run; None is what was not measured, or is undefined.

    ``dice_difference`` is run minus dense, paired by case; ``polyps_lost`` counts among the ``polyps_seen``
    that the dense network found; ``macs`` is of one frame.
    """

    name: str
    method: str | None
    macs: int | None
    macs_keep_ratio: float | None
    params: int | None
    params_keep_ratio: float | None
    size_bytes: int | None
    dice: Interval | None
    dice_difference: Interval | None
    hd95_px: float | None
    hd95_undefined: int | None
    latency: Mapping[Setup, Timing]
    polyps_lost: int | None
    polyps_seen: int | None
    false_polyp_frames: int | None
    frames: int | None


def summary_rows(runs: Sequence[Run]) -> tuple[SummaryRow, ...]:
    """One row per run, the dense run first."""
    timings = read_timings(runs)
    dense_size = _network_size(runs[0], runs, timings)
    return tuple(_summary_row(run, runs, timings, dense_size) for run in runs)


def paired_difference(dense: Record, pruned: Record) -> Interval | None:
    """Mean Dice of pruned minus dense, case by case, with its 95 % interval.

    Paired bootstrap over the cases where both are defined. It carries the spread between cases, not that
    between trainings. None with fewer than two such cases.

    Args:
        dense: an ``evaluation.json`` record.
        pruned: another one, of the same cases in any order.
    """
    before = {case["id"]: case["dice"] for case in dense["cases"]}
    pairs = np.array([(before[case["id"]], case["dice"]) for case in pruned["cases"]], dtype=np.float64)
    first, second = pairs.T.tolist()  # undefined (null) is NaN
    summary = summarize_difference(first, second)
    return Interval(summary.mean, *summary.ci95, summary.n) if summary.n > 1 else None


def table_cells(rows: Sequence[SummaryRow]) -> tuple[list[str], list[list[str]]]:
    """Header and text cells; what no run has measured gets no column."""
    columns: list[tuple[str, list[str]]] = [
        ("Network", [row.name for row in rows]),
        ("Channels chosen by", ["none removed", *(row.method or "" for row in rows[1:])]),
        ("MACs (kept)", [_kept(row.macs, row.macs_keep_ratio) for row in rows]),
        ("Parameters (kept)", [_kept(row.params, row.params_keep_ratio) for row in rows]),
        ("Dice [95 %]", [interval_text(row.dice) for row in rows]),
        ("Difference to dense [95 %]", [interval_text(row.dice_difference, signed=True) for row in rows]),
        ("HD95, px (undefined)", [_distance(row) for row in rows]),
    ]
    columns += [
        ("Polyps lost", [share_text(row.polyps_lost, row.polyps_seen) for row in rows]),
        ("False-polyp frames", [share_text(row.false_polyp_frames, row.frames) for row in rows]),
    ]
    columns += [
        (f"{setup.label}: median (speed-up)", [latency_text(row.latency.get(setup)) for row in rows])
        for setup in rows[0].latency
    ]
    known = [(title, cells) for title, cells in columns if any(cells)]
    return [title for title, _ in known], [list(cells) for cells in zip(*(c for _, c in known), strict=True)]


def markdown_table(folders: Sequence[Path]) -> str:
    """The summary of run folders (dense first) as a Markdown table, made from their records alone."""
    header, rows = table_cells(summary_rows(read_runs(folders)))
    return as_markdown(header, rows)


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text cells as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _summary_row(
    run: Run,
    runs: Sequence[Run],
    timings: Mapping[Setup, Mapping[str, Timing]],
    dense_size: tuple[int, int] | None,
) -> SummaryRow:
    size = _network_size(run, runs, timings)
    evaluation, reference = run.evaluation or {}, runs[0].evaluation
    metrics, polyps = evaluation.get("metrics", {}), evaluation.get("polyps", {})
    false_polyps, hd95 = evaluation.get("false_polyp_frames", {}), metrics.get("hd95_px", {})
    latency = {setup: by_name[run.name] for setup, by_name in timings.items() if run.name in by_name}
    paired = reference and evaluation and run is not runs[0]
    return SummaryRow(
        name=run.name,
        method=str(run.prune["criterion"]) if run.prune else None,
        macs=size[0] if size else None,
        macs_keep_ratio=size[0] / dense_size[0] if size and dense_size else None,
        params=size[1] if size else None,
        params_keep_ratio=size[1] / dense_size[1] if size and dense_size else None,
        size_bytes=_file_size(run, latency),
        dice=_recorded(metrics["dice"]) if metrics else None,
        dice_difference=paired_difference(reference, evaluation) if reference and paired else None,
        hd95_px=hd95.get("mean"),
        hd95_undefined=hd95.get("undefined"),
        latency=latency,
        polyps_lost=polyps.get("lost"),
        polyps_seen=polyps.get("seen_by_dense"),
        false_polyp_frames=false_polyps.get("count"),
        frames=false_polyps.get("of"),
    )


def _recorded(metric: Record) -> Interval | None:
    low, high = metric["ci95"]
    return Interval(metric["mean"], low, high, metric["n"]) if metric["n"] > 1 else None


def _network_size(
    run: Run, runs: Sequence[Run], timings: Mapping[Setup, Mapping[str, Timing]]
) -> tuple[int, int] | None:
    """MACs and parameters: from the pruning, else from what was timed."""
    if run.prune:
        return run.prune["reached"]["macs"], run.prune["reached"]["params"]
    prunes = [other.prune for other in runs if other.prune]
    if run is runs[0] and prunes:
        return prunes[0]["dense"]["macs"], prunes[0]["dense"]["params"]
    for by_name in timings.values():
        if run.name in by_name:
            return by_name[run.name].macs, by_name[run.name].params
    return None


def _file_size(run: Run, latency: Mapping[Setup, Timing]) -> int | None:
    """Size of the first exported file, else of what a shipping runtime was timed with."""
    if run.parity and run.parity["files"]:
        return int(run.parity["files"][0]["size_bytes"])
    return next((timing.size_bytes for setup, timing in latency.items() if setup.runtime != "torch"), None)


def _kept(value: int | None, keep_ratio: float | None) -> str:
    if value is None or keep_ratio is None:
        return ""
    return f"{rounding.counted(value)} ({rounding.percent(keep_ratio)})"


def interval_text(interval: Interval | None, *, signed: bool = False) -> str:
    """Mean and bounds; empty for None."""
    if interval is None:
        return ""
    write = rounding.signed if signed else rounding.score
    return f"{write(interval.mean)} [{write(interval.low)}, {write(interval.high)}]"


def _distance(row: SummaryRow) -> str:
    return "" if row.hd95_undefined is None else f"{rounding.pixels(row.hd95_px)} ({row.hd95_undefined})"


def latency_text(timing: Timing | None) -> str:
    """Median and speed-up; empty for None."""
    if timing is None:
        return ""
    speedup = "" if timing.speedup is None else f" ({rounding.times(timing.speedup)})"
    return rounding.milliseconds(timing.p50_ms) + speedup


def share_text(count: int | None, of: int | None) -> str:
    """A count of a total; empty for None."""
    return "" if count is None or of is None else f"{count} of {of}"
