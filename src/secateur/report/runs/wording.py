"""Findings in plain words, never saying more than the interval does."""

from collections.abc import Callable
from dataclasses import dataclass

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import Finding
from secateur.report.rows import SummaryRow
from secateur.report.runs.sparsity import cut_findings, proof_finding
from secateur.report.tasks.task_view import TaskView


@dataclass(frozen=True)
class Tile:
    """One number of the pruned network; ``share`` is pruned over dense."""

    label: str
    value: str
    comparison: str
    share: float


def findings(view: TaskView, dense: SummaryRow, pruned: SummaryRow, *, parity: Record | None) -> list[Finding]:
    """What was cut, what it costs and gains, and whether the checks passed, in the order a reader asks."""
    return [
        *_what_was_cut(dense, pruned),
        *_cost(view, dense, pruned),
        *_gain(dense, pruned),
        *view.findings(dense, pruned),
        *_proof(pruned),
        *([_parity(parity)] if parity else []),
    ]


def tiles(view: TaskView, dense: SummaryRow, pruned: SummaryRow) -> list[Tile]:
    """The main numbers, dense and pruned side by side; what was not measured has no tile."""
    found = []
    if dense.score and pruned.score and dense.score.mean:
        leading = view.leading
        change = leading.change(pruned.score.mean - dense.score.mean)
        comparison = f"dense {leading.text(dense.score.mean)} ({change})"
        share = pruned.score.mean / dense.score.mean
        found.append(Tile(f"Mean {leading.name}", leading.text(pruned.score.mean), comparison, share))
    setup = next(iter(pruned.latency), None)
    ms_before, ms_after = (row.latency[setup].p50_ms if setup else None for row in (dense, pruned))
    latency = f"Latency: {setup.label}" if setup else "Latency"
    params = "Parameters that are not zero" if pruned.sparse else "Parameters"
    numbers: tuple[tuple[str, Callable[[float], str], float | None, float | None], ...] = (
        ("MACs", rounding.counted, dense.macs, pruned.macs),
        (params, rounding.counted, dense.params, pruned.params),
        ("File size", rounding.megabytes, dense.size_bytes, pruned.size_bytes),
        (latency, rounding.milliseconds, ms_before, ms_after),
    )
    for label, write, before, after in numbers:
        if before and after:
            comparison = f"{rounding.percent(after / before)} of the dense {write(before)}"
            found.append(Tile(label, write(after), comparison, after / before))
    return [*found, *_sparse_file(pruned.prune)]


def _sparse_file(prune: Record | None) -> list[Tile]:
    sizes = (prune or {}).get("sizes")
    if sizes is None:
        return []
    small, plain = sizes["compressed_bytes"], sizes["dense_bytes"]
    comparison = f"{rounding.percent(small / plain)} of the plain file, {rounding.megabytes(plain)}"
    return [Tile("Sparse file", rounding.megabytes(small), comparison, small / plain)]


def _what_was_cut(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    if pruned.prune is not None and pruned.sparse:
        return cut_findings(pruned.name, pruned.prune)
    if pruned.macs_keep_ratio is None or pruned.params_keep_ratio is None or not (dense.macs and pruned.macs):
        return []
    text = (
        f"{pruned.name} keeps {rounding.percent(pruned.macs_keep_ratio)} of the computation of {dense.name} "
        f"({rounding.counted(dense.macs)} to {rounding.counted(pruned.macs)} MACs) and "
        f"{rounding.percent(pruned.params_keep_ratio)} of its parameters."
    )
    return [Finding("What was cut", text)]


def _cost(view: TaskView, dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    change, leading = pruned.score_difference, view.leading
    if not (dense.score and pruned.score and change):
        return []
    low, high = leading.change(change.low), leading.change(change.high)
    text = (
        f"Mean {leading.name} goes from {leading.text(dense.score.mean)} to {leading.text(pruned.score.mean)} "
        f"({leading.change(change.mean)}; 95 % interval of the paired difference over {change.cases} cases: "
        f"{low} to {high}). "
    )
    if change.low <= 0 <= change.high:
        worst = high if leading.lower_is_better else low
        verdict = f"The interval contains zero: a change is not shown, but one as large as {worst} is not ruled out."
        good = None
    else:
        good = (change.low > 0) != leading.lower_is_better
        side, how = "above" if change.low > 0 else "below", "better" if good else "worse"
        verdict = f"The interval lies {side} zero: on average the pruned network segments {how}."
    return [Finding("What it costs", text + verdict, good)]


def _gain(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    speedups = [timing.speedup for timing in pruned.latency.values() if timing.speedup is not None]
    parts = [
        f"{rounding.times(timing.speedup)} the speed on {setup.label} "
        f"({rounding.milliseconds(dense.latency[setup].p50_ms)} to {rounding.milliseconds(timing.p50_ms)})"
        for setup, timing in pruned.latency.items()
        if timing.speedup is not None
    ]
    return [Finding("What it gains", "; ".join(parts) + ".", good=min(speedups) > 1)] if parts else []


def _proof(pruned: SummaryRow) -> list[Finding]:
    if pruned.prune is None:
        return []
    if pruned.sparse:
        found = proof_finding(pruned.prune)
        return [found] if found else []
    proof = pruned.prune["proof"]
    passed = bool(proof["passed"])
    verdict = "gives the same outputs as" if passed else "does not give the outputs of"
    text = (
        f"The smaller network {verdict} the full one with the removed channels silenced "
        f"(largest difference {rounding.tiny(proof['max_abs_diff'])})."
    )
    return [Finding("Proof passed" if passed else "Proof failed", text, good=passed)]


def _parity(parity: Record) -> Finding:
    checks = parity["runtimes"]
    flipped, pixels = (sum(check[key] for check in checks) for key in ("flipped_pixels", "pixels"))
    worst = max(checks, key=lambda check: (check["max_abs_diff"] is None, check["max_abs_diff"] or 0.0))
    found = (
        f"mark {flipped:,} of {pixels:,} pixels differently from PyTorch; no number is off by more than "
        f"{rounding.tiny(worst['max_abs_diff'])} (allowed: {rounding.tiny(worst['tolerance'])})"
    )
    passed = bool(parity["passed"])
    text = f"The exported files, run on {parity['cases']} cases, {found}."
    return Finding("Export passed" if passed else "Export failed", text, good=passed)
