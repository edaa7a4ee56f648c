"""One row per run, as plain data and as text cells; a Markdown table for pages outside the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
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
    sizes = _sizes(runs, timings)
    return tuple(_summary_row(run, runs[0], view, timings, sizes) for run in runs)


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


def summary_record(folders: Sequence[Path]) -> Record:
    """The summary of run folders (dense first) as data: the leading ``metric``, and ``runs[]`` with all numbers."""
    runs = read_runs(folders)
    view = view_of(runs)
    return {"metric": view.leading.key, "runs": [_row_record(row) for row in summary_rows(runs, view)]}


def _row_record(row: SummaryRow) -> Record:
    facts = {field.name: getattr(row, field.name) for field in fields(row)}
    del facts["evaluation"], facts["prune"]  # whole records, which lie in the folders
    intervals = {key: asdict(facts[key]) for key in ("score", "score_difference") if facts[key] is not None}
    return {**facts, **intervals, "latency": [asdict(setup) | asdict(time) for setup, time in row.latency.items()]}


@dataclass(frozen=True)
class _Sizes:
    """By run, the MACs at one input shape, and the parameters, which no shape changes."""

    input_shape: tuple[int, ...] | None
    macs: Mapping[str, int]
    params: Mapping[str, int]


def _summary_row(
    run: Run, dense: Run, view: TaskView, timings: Mapping[Setup, Mapping[str, Timing]], sizes: _Sizes
) -> SummaryRow:
    reference, key = dense.evaluation, view.leading.key
    latency = {setup: by_name[run.name] for setup, by_name in timings.items() if run.name in by_name}
    difference = None
    if reference and run.evaluation and run is not dense:
        difference = paired_difference(reference, run.evaluation, metric=key)
    macs_keep_ratio = _share(sizes.macs, run, dense)
    return SummaryRow(
        name=run.name,
        method=chosen_by(run.prune) if run.prune else None,
        cut=_cut(run.prune, macs_keep_ratio),
        input_shape=sizes.input_shape,
        macs=sizes.macs.get(run.name),
        macs_keep_ratio=macs_keep_ratio,
        params=sizes.params.get(run.name),
        params_keep_ratio=_share(sizes.params, run, dense),
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


def _sizes(runs: Sequence[Run], timings: Mapping[Setup, Mapping[str, Timing]]) -> _Sizes:
    """At the input shape at which most runs, the dense one among them, were counted; of several the recorded one."""
    macs: dict[tuple[int, ...], dict[str, int]] = {}
    params: dict[str, int] = {}
    for name, shape, size in _counted(runs, timings):
        macs.setdefault(shape, {}).setdefault(name, size["macs"])
        params.setdefault(name, size["params"])
    shared = [shape for shape, counts in macs.items() if runs[0].name in counts]
    shape = max(shared, key=lambda shape: len(macs[shape]), default=())
    return _Sizes(shape or None, macs.get(shape, {}), params)


def _counted(
    runs: Sequence[Run], timings: Mapping[Setup, Mapping[str, Timing]]
) -> Iterator[tuple[str, tuple[int, ...], Record]]:
    """Run, input shape, MACs and parameters from every record that has them, that of the pruning first."""
    for run in runs:
        if run.prune:
            yield run.name, tuple(run.prune["input_shape"]), run.prune["reached"]
            yield runs[0].name, tuple(run.prune["input_shape"]), run.prune["dense"]
    for run in runs:
        if "size" in run.info:
            yield run.name, tuple(run.info["size"]["input_shape"]), run.info["size"]
    for setup, by_name in timings.items():
        for name, timing in by_name.items():
            yield name, setup.input_shape, {"macs": timing.macs, "params": timing.params}


def _share(counts: Mapping[str, int], run: Run, dense: Run) -> float | None:
    return counts[run.name] / counts[dense.name] if {run.name, dense.name} <= counts.keys() else None


def _file_size(run: Run, latency: Mapping[Setup, Timing]) -> int | None:
    """Size of the first exported file, else of what a shipping runtime was timed with."""
    if run.parity and run.parity["files"]:
        return int(run.parity["files"][0]["size_bytes"])
    return next((timing.size_bytes for setup, timing in latency.items() if setup.runtime != "torch"), None)


def _kept(value: int | None, keep_ratio: float | None) -> str:
    if value is None or keep_ratio is None:
        return ""
    return f"{rounding.counted(value)} ({rounding.percent(keep_ratio)})"
