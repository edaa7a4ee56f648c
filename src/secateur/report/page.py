"""The report: records of run folders in, one HTML file out that opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.records import atomic_path
from secateur.report import figures
from secateur.report.cases import (
    CasePair,
    CutPicture,
    FramePicture,
    case_pairs,
    choose_cases,
    cut_picture,
    frame_picture,
    pictures_exist,
)
from secateur.report.rendering import render
from secateur.report.runs import Run, read_runs
from secateur.report.tables import SummaryRow, summary_rows, table_cells
from secateur.report.wording import SYNTHETIC, Finding, Tile, caution, findings, tiles


@dataclass(frozen=True)
class Gallery:
    """The chosen cases of one pruned run under their headings, pictures by case id, how many have none."""

    chosen: dict[str, list[CasePair]]
    pictures: dict[str, CutPicture]
    absent: int


@dataclass(frozen=True)
class Closeup:
    """All that the page shows of one pruned run apart from the others."""

    run: Run
    findings: list[Finding]
    tiles: list[Tile]
    widths: figures.Figure | None
    scatter: figures.Figure | None
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
    html = render("page.html.j2", {**_contents(read_runs(runs), title=title), "command": command})
    with atomic_path(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out


def _contents(runs: Sequence[Run], *, title: str | None) -> dict[str, Any]:  # the template's variables
    rows = summary_rows(runs)
    header, cells = table_cells(rows)
    evaluation = next((run.evaluation for run in runs if run.evaluation), None)
    pairs = list(zip(runs, rows, strict=True))
    closeups = [_closeup(pair, dense=pairs[0]) for pair in pairs[1:]]
    return {
        "title": title
        or " ".join(["Pruned networks for", *([evaluation["task"]] if evaluation else []), "segmentation"]),
        "synthetic": SYNTHETIC if any(run.info["synthetic"] for run in runs) else None,
        "caution": caution(evaluation["n_cases"]) if evaluation else None,
        "runs": runs,
        "evaluation": evaluation,
        "input_shape": next((run.prune["input_shape"] for run in runs if run.prune), None),
        "header": header,
        "cells": cells,
        "tradeoffs": _tradeoffs(rows),
        "curves": _curves(runs),
        "closeups": closeups,
        "frames": _frames(runs[0], closeups),
    }


def _closeup(pruned: tuple[Run, SummaryRow], *, dense: tuple[Run, SummaryRow]) -> Closeup:
    run, row = pruned
    pairs = case_pairs(dense[0].evaluation, run.evaluation) if dense[0].evaluation and run.evaluation else []
    return Closeup(
        run=run,
        findings=findings(dense[1], row, proof=run.prune["proof"] if run.prune else None, parity=run.parity),
        tiles=tiles(dense[1], row),
        widths=figures.kept_widths(run.prune) if run.prune else None,
        scatter=figures.case_scatter(pairs) if pairs else None,
        gallery=_gallery(pairs, dense=_predictions(dense[0]), pruned=_predictions(run)) if pairs else None,
    )


def _gallery(pairs: Sequence[CasePair], *, dense: Path, pruned: Path) -> Gallery:
    chosen = choose_cases(pairs)
    ids = [pair.id for group in chosen.values() for pair in group]
    shown = [case_id for case_id in ids if pictures_exist(case_id, dense=dense, pruned=pruned)]
    pictures = {case_id: cut_picture(case_id, dense=dense, pruned=pruned) for case_id in shown}
    return Gallery(chosen, pictures, absent=len(ids) - len(shown))


def _frames(dense: Run, closeups: Sequence[Closeup]) -> dict[str, FramePicture]:
    """Frames by case id, each once however many pruned networks show it."""
    ids = dict.fromkeys(case_id for closeup in closeups if closeup.gallery for case_id in closeup.gallery.pictures)
    folder = _predictions(dense)
    return {case_id: frame_picture(case_id, number=number, dense=folder) for number, case_id in enumerate(ids)}


def _predictions(run: Run) -> Path:
    return run.folder / "predictions" / str((run.evaluation or {}).get("split"))


def _tradeoffs(rows: Sequence[SummaryRow]) -> list[tuple[str, figures.Figure]]:
    """Heading and figure of Dice against MACs, then against milliseconds on every setup."""
    found = [("Dice against MACs", figures.dice_against_macs(rows))]
    found += [
        (f"Dice against time: {setup.label}", figures.dice_against_latency(rows, setup)) for setup in rows[0].latency
    ]
    return [(heading, figure) for heading, figure in found if figure]


def _curves(runs: Sequence[Run]) -> list[tuple[str, figures.Figure]]:
    found = [
        ("Dice on the validation set", figures.learning_curves(runs, key="val_dice", title="Dice")),
        ("Loss on the training set", figures.learning_curves(runs, key="train_loss", title="loss")),
    ]
    return [(heading, figure) for heading, figure in found if figure]
