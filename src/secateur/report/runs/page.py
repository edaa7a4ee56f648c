"""The report: records of run folders in, one HTML file out that opens offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.records import Record, atomic_path
from secateur.report.figures import Figure
from secateur.report.findings import SYNTHETIC, Finding, caution
from secateur.report.rendering import render
from secateur.report.rows import SummaryRow, is_sparse
from secateur.report.runs import figures
from secateur.report.runs.cases import CasePair, case_pairs, choose_cases
from secateur.report.runs.records import Run, read_runs, validation_score
from secateur.report.runs.sparsity import Stays, density_figure, facts, stays
from secateur.report.runs.tables import summary_rows, table_cells
from secateur.report.runs.wording import Tile, findings, tiles
from secateur.report.tasks.pictures import pictures_exist
from secateur.report.tasks.task_view import TaskView
from secateur.report.tasks.views import view_of


@dataclass(frozen=True)
class Gallery:
    """The chosen cases of one pruned run under their headings, pictures by case id, how many have none."""

    chosen: dict[str, list[CasePair]]
    pictures: dict[str, Any]  # of the task's own kind
    absent: int


@dataclass(frozen=True)
class Sparsity:
    """What the page shows of a run whose single weights were taken out."""

    density: Figure
    facts: list[tuple[str, str]]
    stays: list[Stays]


@dataclass(frozen=True)
class Closeup:
    """All that the page shows of one pruned run apart from the others."""

    run: Run
    findings: list[Finding]
    tiles: list[Tile]
    widths: Figure | None
    sparsity: Sparsity | None
    scatter: Figure | None
    gallery: Gallery | None


def write_report(runs: Sequence[Path], out: Path, *, title: str | None = None, command: Sequence[str]) -> Path:
    """Write one HTML page about ``runs`` that needs no network; return ``out``.

    Only the records and prediction images of the run folders are read. What a folder lacks is named on the
    page together with the command that makes it. ``out`` is replaced atomically.

    Args:
        runs: the dense run's folder, then those of pruned runs; the first of these leads the page.
        out: the file to write.
        title: heading of the page; made from the task otherwise.
        command: the command line that makes this page, shown on it.

    Raises:
        InputError: no run, a first run that is not dense, two runs of one name, or a package is missing.
        RecordError: a folder is no run folder, a record is unreadable, or evaluations differ in their cases.
    """
    html = render("runs/page.html.j2", {**_contents(read_runs(runs), title=title), "command": command})
    with atomic_path(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out


def _contents(runs: Sequence[Run], *, title: str | None) -> dict[str, Any]:  # the template's variables
    view = view_of(runs)
    rows = summary_rows(runs, view)
    header, cells = table_cells(rows, view)
    evaluation = next((run.evaluation for run in runs if run.evaluation), None)
    pairs = list(zip(runs, rows, strict=True))
    closeups = [_closeup(view, pair, dense=pairs[0]) for pair in pairs[1:]]
    return {
        "title": title
        or " ".join(["Pruned networks for", *([evaluation["task"]] if evaluation else []), "segmentation"]),
        "synthetic": SYNTHETIC if any(run.info["synthetic"] for run in runs) else None,
        "caution": caution(evaluation["n_cases"]) if evaluation else None,
        "view": view,
        "runs": runs,
        "evaluation": evaluation,
        "input_shape": rows[0].input_shape,
        "header": header,
        "cells": cells,
        "tradeoffs": _tradeoffs(rows, view),
        "seconds": figures.seconds_per_case(runs),
        "curves": _curves(runs, view),
        "closeups": closeups,
        "frames": _frames(view, runs[0], closeups),
        "validation_score": validation_score,
    }


def _closeup(view: TaskView, pruned: tuple[Run, SummaryRow], *, dense: tuple[Run, SummaryRow]) -> Closeup:
    (run, row), (dense_run, dense_row) = pruned, dense
    pairs = case_pairs(dense_run.evaluation, run.evaluation, view) if dense_run.evaluation and run.evaluation else []
    return Closeup(
        run=run,
        findings=findings(view, dense_row, row, parity=run.parity),
        tiles=tiles(view, dense_row, row),
        widths=figures.kept_widths(run.prune) if run.prune and _channels_left(run.prune) else None,
        sparsity=_sparsity(run),
        scatter=figures.case_scatter(pairs, view) if pairs else None,
        gallery=_gallery(view, pairs, dense=_predictions(dense_run), pruned=_predictions(run)) if pairs else None,
    )


def _channels_left(prune: Record) -> bool:
    return not is_sparse(prune) or any(group["kept"] < group["width"] for group in prune["groups"])


def _sparsity(run: Run) -> Sparsity | None:
    if run.prune is None or not is_sparse(run.prune):
        return None
    return Sparsity(density_figure(run.prune["masks"]), facts(run.prune), stays(run.prune))


def _gallery(view: TaskView, pairs: Sequence[CasePair], *, dense: Path, pruned: Path) -> Gallery:
    chosen = choose_cases(pairs)
    ids = [pair.id for group in chosen.values() for pair in group]
    shown = [case_id for case_id in ids if pictures_exist(case_id, dense=dense, pruned=pruned)]
    pictures = {case_id: view.pictures(case_id, dense, pruned) for case_id in shown}
    return Gallery(chosen, pictures, absent=len(ids) - len(shown))


def _frames(view: TaskView, dense: Run, closeups: Sequence[Closeup]) -> Mapping[str, Any]:  # likewise
    """What several pruned networks share of their pictures, by case id, each once."""
    ids = dict.fromkeys(case_id for closeup in closeups if closeup.gallery for case_id in closeup.gallery.pictures)
    return view.frames(list(ids), _predictions(dense))


def _predictions(run: Run) -> Path:
    return run.folder / "predictions" / str((run.evaluation or {}).get("split"))


def _tradeoffs(rows: Sequence[SummaryRow], view: TaskView) -> list[tuple[str, Figure, str]]:
    """Heading, figure and what is saved: leading metric against MACs, weights, then milliseconds on every setup."""
    name = view.leading.name
    found = [(f"{name} against MACs", figures.score_against_macs(rows, view), "computation")]
    if any(row.sparse for row in rows):
        found.append((f"{name} against parameters left", figures.score_against_params(rows, view), "weights"))
    found += [
        (f"{name} against time: {setup.label}", figures.score_against_latency(rows, view, setup), "time")
        for setup in rows[0].latency
    ]
    return [(heading, figure, saved) for heading, figure, saved in found if figure]


def _curves(runs: Sequence[Run], view: TaskView) -> list[tuple[str, Figure]]:
    score = view.validation[0].upper() + view.validation[1:]
    found = [
        (
            f"{score} on the validation set",
            figures.learning_curves(runs, value=validation_score, title=view.validation),
        ),
        (
            "Loss on the training set",
            figures.learning_curves(runs, value=lambda epoch: float(epoch["train_loss"]), title="loss"),
        ),
    ]
    return [(heading, figure) for heading, figure in found if figure]
