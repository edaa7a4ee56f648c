"""Findings in plain words, never saying more than the interval does."""

from collections.abc import Callable
from dataclasses import dataclass

from secateur.records import Record
from secateur.report import rounding
from secateur.report.tables import SummaryRow

SYNTHETIC = "Synthetic data: shows that the machinery works, says nothing about clinical value."
_FEW_CASES = 20


@dataclass(frozen=True)
class Finding:
    """One line of the summary: what it is about, and what was found; ``good`` is None where it is neither."""

    topic: str
    text: str
    good: bool | None = None


@dataclass(frozen=True)
class Tile:
    """One number of the pruned network; ``share`` is pruned over dense."""

    label: str
    value: str
    comparison: str
    share: float


def findings(dense: SummaryRow, pruned: SummaryRow, *, proof: Record | None, parity: Record | None) -> list[Finding]:
    """What was cut, what it costs and gains, and whether the checks passed, in the order a reader asks."""
    return [
        *_what_was_cut(dense, pruned),
        *_cost(dense, pruned),
        *_gain(dense, pruned),
        *_polyps(dense, pruned),
        *([_proof(proof)] if proof else []),
        *([_parity(parity)] if parity else []),
    ]


def tiles(dense: SummaryRow, pruned: SummaryRow) -> list[Tile]:
    """The main numbers, dense and pruned side by side; what was not measured has no tile."""
    found = []
    if dense.dice and pruned.dice and dense.dice.mean:
        change = rounding.signed(pruned.dice.mean - dense.dice.mean)
        comparison = f"dense {rounding.score(dense.dice.mean)} ({change})"
        share = pruned.dice.mean / dense.dice.mean
        found.append(Tile("Mean Dice", rounding.score(pruned.dice.mean), comparison, share))
    setup = next(iter(pruned.latency), None)
    ms_before, ms_after = (row.latency[setup].p50_ms if setup else None for row in (dense, pruned))
    latency = f"Latency: {setup.label}" if setup else "Latency"
    numbers: tuple[tuple[str, Callable[[float], str], float | None, float | None], ...] = (
        ("MACs", rounding.counted, dense.macs, pruned.macs),
        ("Parameters", rounding.counted, dense.params, pruned.params),
        ("File size", rounding.megabytes, dense.size_bytes, pruned.size_bytes),
        (latency, rounding.milliseconds, ms_before, ms_after),
    )
    for label, write, before, after in numbers:
        if before and after:
            comparison = f"{rounding.percent(after / before)} of the dense {write(before)}"
            found.append(Tile(label, write(after), comparison, after / before))
    return found


def caution(cases: int) -> str | None:
    """A warning where there are too few cases for intervals to be trusted."""
    if cases >= _FEW_CASES:
        return None
    if cases == 1:
        return "A single case has no interval, so no mean is shown."
    return f"Only {cases} cases: intervals from so few are rough and tend to be too narrow."


def _what_was_cut(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    if pruned.macs_keep_ratio is None or pruned.params_keep_ratio is None or not (dense.macs and pruned.macs):
        return []
    text = (
        f"{pruned.name} keeps {rounding.percent(pruned.macs_keep_ratio)} of the computation of {dense.name} "
        f"({rounding.counted(dense.macs)} to {rounding.counted(pruned.macs)} MACs) and "
        f"{rounding.percent(pruned.params_keep_ratio)} of its parameters."
    )
    return [Finding("What was cut", text)]


def _cost(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    change = pruned.dice_difference
    if not (dense.dice and pruned.dice and change):
        return []
    low, high = rounding.signed(change.low), rounding.signed(change.high)
    text = (
        f"Mean Dice goes from {rounding.score(dense.dice.mean)} to {rounding.score(pruned.dice.mean)} "
        f"({rounding.signed(change.mean)}; 95 % interval of the paired difference over {change.cases} cases: "
        f"{low} to {high}). "
    )
    if change.high < 0:
        verdict, good = "The interval lies below zero: on average the pruned network segments worse.", False
    elif change.low > 0:
        verdict, good = "The interval lies above zero: on average the pruned network segments better.", True
    else:
        verdict = f"The interval contains zero: a change is not shown, but one as large as {low} is not ruled out."
        good = None
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


def _polyps(dense: SummaryRow, pruned: SummaryRow) -> list[Finding]:
    parts = []
    if pruned.polyps_lost is not None and pruned.polyps_seen is not None:
        verb = "is" if pruned.polyps_lost == 1 else "are"
        parts.append(f"Of {pruned.polyps_seen} polyps that the dense network found, {pruned.polyps_lost} {verb} lost.")
    if pruned.false_polyp_frames is not None and dense.false_polyp_frames is not None:
        parts.append(
            f"Frames with a false polyp: {dense.false_polyp_frames} of {dense.frames} before, "
            f"{pruned.false_polyp_frames} after."
        )
    return [Finding("Polyps", " ".join(parts), good=False if pruned.polyps_lost else None)] if parts else []


def _proof(proof: Record) -> Finding:
    passed = bool(proof["passed"])
    verdict = "gives the same outputs as" if passed else "does not give the outputs of"
    text = (
        f"The smaller network {verdict} the full one with the removed channels silenced "
        f"(largest difference {rounding.tiny(proof['max_abs_diff'])})."
    )
    return Finding("Proof passed" if passed else "Proof failed", text, good=passed)


def _parity(parity: Record) -> Finding:
    flipped = sum(check["flipped_pixels"] for check in parity["runtimes"])
    pixels = sum(check["pixels"] for check in parity["runtimes"])
    text = (
        f"The exported files, run on {parity['cases']} cases, mark {flipped:,} of {pixels:,} pixels "
        "differently from PyTorch."
    )
    passed = bool(parity["passed"])
    return Finding("Export passed" if passed else "Export failed", text, good=passed)
