"""The polyp task on the page of runs: Dice, lost polyps, false polyps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import Finding
from secateur.report.quantities import DICE, POLYP_QUANTITIES
from secateur.report.rows import SummaryRow
from secateur.report.tasks.polyp_pictures import CutPicture, FramePicture, cut_picture, frame_picture
from secateur.report.tasks.task_view import Column, TaskView


def _columns(rows: Sequence[SummaryRow]) -> list[Column]:
    counts = [(_polyps(row), _false_frames(row)) for row in rows]
    return [
        ("HD95, px (undefined)", [_distance(row) for row in rows]),
        ("Polyps lost", [rounding.share_text(polyps.get("lost"), polyps.get("seen_by_dense")) for polyps, _ in counts]),
        ("False-polyp frames", [rounding.share_text(false.get("count"), false.get("of")) for _, false in counts]),
    ]


def _findings(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    polyps, before, after = _polyps(pruned), _false_frames(dense), _false_frames(pruned)
    lost, seen = polyps.get("lost"), polyps.get("seen_by_dense")
    parts = []
    if lost is not None and seen is not None:
        verb = "is" if lost == 1 else "are"
        parts.append(f"Of {seen} polyps that the dense network found, {lost} {verb} lost.")
    if before and after:
        parts.append(f"Frames with a false polyp: {before['count']} of {before['of']} before, {after['count']} after.")
    return [Finding("Polyps", " ".join(parts), good=False if lost else None)] if parts else []


def _polyps(row: SummaryRow) -> Record:
    found: Record = (row.evaluation or {}).get("polyps", {})
    return found


def _false_frames(row: SummaryRow) -> Record:
    found: Record = (row.evaluation or {}).get("false_polyp_frames", {})
    return found


def _distance(row: SummaryRow) -> str:
    hd95 = (row.evaluation or {}).get("metrics", {}).get("hd95_px")
    return "" if hd95 is None else f"{rounding.pixels(hd95['mean'])} ({hd95['undefined']})"


def _lost(case: Record) -> int:
    return case.get("polyps_lost") or 0


def _badge(case: Record) -> str:
    lost = _lost(case)
    return f"{rounding.plural(lost, 'polyp')} lost" if lost else ""


def _frames(ids: Sequence[str], dense: Path) -> Mapping[str, FramePicture]:
    return {case_id: frame_picture(case_id, number=number, dense=dense) for number, case_id in enumerate(ids)}


def _pictures(case_id: str, dense: Path, pruned: Path) -> CutPicture:
    return cut_picture(case_id, dense=dense, pruned=pruned)


POLYP = TaskView(
    leading=DICE,
    validation="Dice",
    unit="frame",
    quantities=POLYP_QUANTITIES,
    columns=_columns,
    findings=_findings,
    harm=_lost,
    badge=_badge,
    harmed="case with a lost polyp",
    frames=_frames,
    pictures=_pictures,
    gallery="tasks/polyp_gallery.html.j2",
    terms="tasks/polyp_terms.html.j2",
)
