"""The nuclei task on the page of runs: AJI and PQ of the nuclei, each branch for itself, what became of nuclei."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import Finding
from secateur.report.intervals import interval_text, paired_difference, recorded_interval
from secateur.report.quantities import AJI, CORRELATION, MSE, NUCLEI_QUANTITIES, PQ, SEMANTIC_DICE, Quantity
from secateur.report.rows import SummaryRow
from secateur.report.tasks.nuclei_pictures import TilePicture, tile_picture
from secateur.report.tasks.task_view import Column, TaskView

_WORSE = ("lost", "merged", "split")


def _columns(rows: Sequence[SummaryRow]) -> list[Column]:
    measured = [(f"{each.title} [95 %]", [_mean(row, each) for row in rows]) for each in (PQ, SEMANTIC_DICE)]
    distances = [
        (f"{each.title} [95 %] (undefined)", [_counted_mean(row, each) for row in rows]) for each in (MSE, CORRELATION)
    ]
    return [
        *measured,
        *distances,
        ("Nuclei kept (spurious)", [_kept(_nuclei(row)) for row in rows]),
        ("Nuclei lost, merged, split by the cut", [_by_cut(_nuclei(row)) for row in rows]),
    ]


def _findings(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    return [*_branches(dense, pruned), *_fates(_nuclei(dense), _nuclei(pruned))]


def _branches(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    """Each branch before and after, with the interval of the paired difference; no more than it says."""
    if dense.evaluation is None or pruned.evaluation is None:
        return []
    parts = []
    for each in (SEMANTIC_DICE, CORRELATION, MSE):
        before, after = (_recorded(row, each) for row in (dense, pruned))
        change = paired_difference(dense.evaluation, pruned.evaluation, metric=each.key)
        if before is None:
            continue
        text = f"{each.name} {each.text(before)} to {each.text(after)}"
        undefined = [row["metrics"][each.key]["undefined"] for row in (dense.evaluation, pruned.evaluation)]
        if any(undefined):
            text += f", undefined in {undefined[0]} and {rounding.plural(undefined[1], 'case')}"
        if change:
            low, high = each.change(change.low), each.change(change.high)
            over = f" over {rounding.plural(change.cases, 'case')}" if any(undefined) else ""
            text += f" ({each.change(change.mean)}{over}, 95 % interval {low} to {high})"
        parts.append(text)
    text = "; ".join(parts)
    return [Finding("Each branch alone", f"{text[0].upper()}{text[1:]}.")] if parts else []


def _fates(before: Record, after: Record) -> list[Finding]:
    parts = []
    lost, merged, split = (int(after.get(f"{fate}_by_cut", 0)) for fate in _WORSE)
    if "kept_by_dense" in after:
        parts.append(
            f"Of {after['kept_by_dense']:,} nuclei that the dense network kept, {lost:,} {_are(lost)} lost, "
            f"{merged:,} {_are(merged)} merged and {split:,} {_are(split)} split now."
        )
    if before and after:
        parts.append(
            f"Of {after['total']:,} nuclei of the truth, {before['kept']:,} were kept before and {after['kept']:,} are "
            f"now; spurious ones: {before['spurious']:,} before, {after['spurious']:,} now."
        )
    return [Finding("Nuclei", " ".join(parts), good=False if lost + merged + split else None)] if parts else []


def _nuclei(row: SummaryRow) -> Record:
    found: Record = (row.evaluation or {}).get("nuclei", {})
    return found


def _recorded(row: SummaryRow, quantity: Quantity) -> float | None:
    found: float | None = (row.evaluation or {}).get("metrics", {}).get(quantity.key, {}).get("mean")
    return found


def _mean(row: SummaryRow, quantity: Quantity) -> str:
    if row.evaluation is None:
        return ""
    metric = row.evaluation["metrics"][quantity.key]
    return interval_text(recorded_interval(metric), digits=quantity.digits) or quantity.text(metric["mean"])


def _counted_mean(row: SummaryRow, quantity: Quantity) -> str:
    text = _mean(row, quantity)
    return f"{text} ({row.evaluation['metrics'][quantity.key]['undefined']})" if row.evaluation else text


def _kept(nuclei: Record) -> str:
    return f"{nuclei['kept']:,} of {nuclei['total']:,} ({nuclei['spurious']:,})" if nuclei else ""


def _by_cut(nuclei: Record) -> str:
    if "kept_by_dense" not in nuclei:
        return ""
    counts = ", ".join(f"{nuclei[f'{fate}_by_cut']:,}" for fate in _WORSE)
    return f"{counts} of {nuclei['kept_by_dense']:,}"


def _no_harm(case: Record) -> int:
    """Almost every tile loses some nuclei: none comes first for that, the change in AJI decides."""
    return 0


def _badge(case: Record) -> str:
    counts = [(case["nuclei"].get(f"{fate}_by_cut", 0), fate) for fate in _WORSE]
    words = ", ".join(f"{count} {fate}" for count, fate in counts if count)
    return f"{words} by the cut" if words else ""


def _no_frames(ids: Sequence[str], dense: Path) -> Mapping[str, Any]:
    """Nothing: the part of a tile that is shown depends on the pruned network."""
    return {}


def _pictures(case_id: str, dense: Path, pruned: Path) -> TilePicture:
    return tile_picture(case_id, dense=dense, pruned=pruned)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


NUCLEI = TaskView(
    leading=AJI,
    validation="mean of Dice and correlation",
    unit="window",
    quantities=NUCLEI_QUANTITIES,
    columns=_columns,
    findings=_findings,
    harm=_no_harm,
    badge=_badge,
    harmed="",
    frames=_no_frames,
    pictures=_pictures,
    gallery="tasks/nuclei_gallery.html.j2",
    terms="tasks/nuclei_terms.html.j2",
)
