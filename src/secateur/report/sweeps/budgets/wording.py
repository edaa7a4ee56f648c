"""Findings of a sweep in plain words, made from the record by rules."""

from secateur.report import rounding
from secateur.report.findings import Finding
from secateur.report.sweeps.budgets.cells import DENSE, Arm, Sweep
from secateur.report.sweeps.budgets.tables import compared_arms, leading_budgets
from secateur.report.sweeps.pooling import Difference, Phase

_CRITERIA = {
    "taylor": "Square of the first-order Taylor prediction of how the loss changes when the channel leaves, mean over "
    "scoring samples; each sample's gradient is scaled to unit norm first.",
    "taylor-absolute": "As taylor, with the absolute value in place of the square.",
    "taylor-signed": "As taylor, with the sign kept: the predicted rise of the loss.",
    "taylor-unnormalised": "As taylor, without scaling the gradient of each sample.",
    "taylor-random-gradient": "As taylor, but a random gradient starts at the output: no labels are used.",
    "l2": "Euclidean norm of the channel's own weights, over the mean of its group.",
    "l1": "Sum of the absolute values of the channel's own weights, over the mean of its group.",
    "random": "Channels leave at random: what any criterion has to beat.",
    "uniform": "Every layer keeps the same share of its channels; which of them, their L2 norm decides.",
}


def sweep_findings(sweep: Sweep, label: str) -> list[Finding]:
    """For every budget, the leading criterion against dense and all others on one set, recovered where it was."""
    after, before = (leading_budgets(sweep, phase) for phase in Phase)
    places = [(ratio, Phase.AFTER) for ratio in after]
    places += [(ratio, Phase.BEFORE) for ratio in before if ratio not in after]
    found = [_finding(sweep, ratio, phase, label) for ratio, phase in places]
    return [finding for finding in found if finding]


def comparisons_made(sweep: Sweep) -> tuple[int, int]:
    """How many comparisons the tables hold, and how many of their intervals exclude zero."""
    shown = [
        found.excludes_zero
        for label in sweep.record["sets"]
        for phase in Phase
        for ratio in leading_budgets(sweep, phase)
        for found in _differences(sweep, ratio, phase, label).values()
    ]
    return len(shown), sum(shown)


def known_criteria(sweep: Sweep) -> dict[str, str]:
    """What the criteria of this sweep choose by."""
    names = dict.fromkeys(arm.criterion for arm, _ in sweep.places if arm.criterion)
    return {name: _CRITERIA[name] for name in names if name in _CRITERIA}


def _finding(sweep: Sweep, keep_ratio: float, phase: Phase, label: str) -> Finding | None:
    reached = sweep.at(label, phase, sweep.leading, keep_ratio)
    if reached is None or reached.dice.interval is None:
        return None
    differences = _differences(sweep, keep_ratio, phase, label)
    dense = differences.pop(DENSE, None)
    seeds = rounding.plural(len(reached.dice.by_seed), "seed")
    text = f"Dice {rounding.score(reached.dice.interval.mean)}"
    if dense:
        low, high = rounding.signed(dense.interval.low), rounding.signed(dense.interval.high)
        text += f", {rounding.signed(dense.interval.mean)} [{low}, {high}] against dense: {_against_dense(dense)}"
    lost = "" if reached.seen is None else f"{rounding.share_text(reached.lost, reached.seen)} polyps lost. "
    text += f". {lost}{_against_others(differences)}"
    good = {"better": True, "worse": False}.get(dense.verdict) if dense else None
    topic = f"{sweep.leading.label} at {rounding.percent(keep_ratio)} {phase.value} ({seeds})"
    return Finding(topic, text.rstrip(), good)


def _differences(sweep: Sweep, keep_ratio: float, phase: Phase, label: str) -> dict[Arm, Difference]:
    found = {
        arm: sweep.difference(
            (sweep.leading, keep_ratio),
            (arm, None if arm == DENSE else keep_ratio),
            label=label,
            phase=phase,
        )
        for arm in compared_arms(sweep, phase)
    }
    return {arm: difference for arm, difference in found.items() if difference}


def _against_dense(found: Difference) -> str:
    if found.verdict == "no difference shown":
        return (
            f"no difference shown, but a loss as large as {rounding.signed(min(found.interval.low, 0.0))} not ruled out"
        )
    return found.verdict


def _against_others(differences: dict[Arm, Difference]) -> str:
    """Sentences such as "Better than random (+0.020); no difference shown against l2 (0.000)."."""
    parts = []
    links = {"better": "than", "worse": "than", "seeds disagree": "against", "no difference shown": "against"}
    for verdict, link in links.items():
        names = [
            f"{arm.label} ({rounding.signed(difference.interval.mean)})"
            for arm, difference in differences.items()
            if difference.verdict == verdict
        ]
        parts += [f"{verdict} {link} {rounding.listed(names)}"] if names else []
    return f"{parts[0][0].upper()}{'; '.join(parts)[1:]}." if parts else ""
