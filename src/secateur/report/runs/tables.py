"""One row per run, as plain data and as text cells; a Markdown table for pages outside the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur.records import Record
from secateur.report import rounding
from secateur.report.intervals import interval_text, paired_difference, recorded_interval
from secateur.report.markdown import as_markdown
from secateur.report.rows import SummaryRow, chosen_by, is_sparse
from secateur.report.runs.records import Run, read_runs, read_timings
from secateur.report.tasks.task_view import Column, TaskView
from secateur.report.tasks.views import view_of
from secateur.report.timings import Setup, Timing, latency_text


def summary_rows(runs: Sequence[Run], view: TaskView) -> tuple[SummaryRow, ...]:
    """One row per run, the dense run first."""
    timings = read_timings(runs)
    dense_size = _network_size(runs[0], runs, timings)
    return tuple(_summary_row(run, runs, view, timings, dense_size) for run in runs)


def table_cells(rows: Sequence[SummaryRow], view: TaskView) -> tuple[list[str], list[list[str]]]:
    """Header and text cells; what no run has measured gets no column."""
    name, digits = view.leading.name, view.leading.digits
    sparse = any(row.sparse for row in rows)
    columns: list[Column] = [
        ("Network", [row.name for row in rows]),
        (f"{'Weights or channels' if sparse else 'Channels'} chosen by", ["none removed", *_methods(rows[1:])]),
        ("Compression of weights", [(row.cut or "") if row.sparse else "" for row in rows]),
        ("MACs (kept)", [_kept(row.macs, row.macs_keep_ratio) for row in rows]),
        ("Parameters (kept)", [_kept(row.params, row.params_keep_ratio) for row in rows]),
        (f"{name} [95 %]", [interval_text(row.score, digits=digits) for row in rows]),
        (
            "Difference to dense [95 %]",
            [interval_text(row.score_difference, signed=True, digits=digits) for row in rows],
        ),
        *view.columns(rows),
    ]
    columns += [
        (f"{setup.label}: median (speed-up)", [latency_text(row.latency.get(setup)) for row in rows])
        for setup in rows[0].latency
    ]
    known = [(title, cells) for title, cells in columns if any(cells)]
    return [title for title, _ in known], [list(cells) for cells in zip(*(c for _, c in known), strict=True)]


def markdown_table(folders: Sequence[Path]) -> str:
    """The summary of run folders (dense first) as a Markdown table, made from their records alone."""
    runs = read_runs(folders)
    view = view_of(runs)
    return as_markdown(*table_cells(summary_rows(runs, view), view))


def _summary_row(
    run: Run,
    runs: Sequence[Run],
    view: TaskView,
    timings: Mapping[Setup, Mapping[str, Timing]],
    dense_size: tuple[int, int] | None,
) -> SummaryRow:
    size = _network_size(run, runs, timings)
    reference, key = runs[0].evaluation, view.leading.key
    latency = {setup: by_name[run.name] for setup, by_name in timings.items() if run.name in by_name}
    difference = None
    if reference and run.evaluation and run is not runs[0]:
        difference = paired_difference(reference, run.evaluation, metric=key)
    macs_keep_ratio = size[0] / dense_size[0] if size and dense_size else None
    return SummaryRow(
        name=run.name,
        method=chosen_by(run.prune) if run.prune else None,
        cut=_cut(run.prune, macs_keep_ratio),
        macs=size[0] if size else None,
        macs_keep_ratio=macs_keep_ratio,
        params=size[1] if size else None,
        params_keep_ratio=size[1] / dense_size[1] if size and dense_size else None,
        size_bytes=_file_size(run, latency),
        score=recorded_interval(run.evaluation["metrics"][key]) if run.evaluation else None,
        score_difference=difference,
        latency=latency,
        evaluation=run.evaluation,
        prune=run.prune,
    )


def _methods(rows: Sequence[SummaryRow]) -> list[str]:
    return [row.method or "" for row in rows]


def _cut(prune: Record | None, macs_keep_ratio: float | None) -> str | None:
    if prune is not None and is_sparse(prune):
        return rounding.ratio(prune["masks"]["compression"])
    return None if macs_keep_ratio is None else rounding.percent(macs_keep_ratio)


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
