"""Findings of a sweep over ratios in plain words, never saying more than the intervals do."""

from collections.abc import Mapping, Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.quantities import AJI, CORRELATION, SEMANTIC_DICE, Quantity
from secateur.report.ratio_limits import PUBLISHED, Limit, losses, relative_limit
from secateur.report.ratio_results import (
    LAYER,
    NETWORK,
    OUTPUTS,
    RANDOM,
    SCOPES,
    SMALL,
    Difference,
    Line,
    RatioSweep,
)
from secateur.report.rows import Finding

HEADLINES = (SEMANTIC_DICE, CORRELATION, AJI)  # one per output
PAIRS = ((NETWORK, LAYER), (LAYER, RANDOM), (LAYER, SMALL), (NETWORK, SMALL))  # what is held against what


def ratio_findings(sweep: RatioSweep, label: str) -> list[Finding]:
    """How far each output can be compressed, which scope wins where, and whether magnitudes beat chance and size."""
    limits = [_limits(sweep, label, quantity) for quantity in HEADLINES]
    scopes = [scope_finding(each, differences(sweep, (NETWORK, LAYER), label, each)) for each in HEADLINES]
    others = [against_finding(pair, differences(sweep, pair, label, AJI)) for pair in ((LAYER, RANDOM), (LAYER, SMALL))]
    return [finding for finding in (*limits, *scopes, *others, _dead(sweep)) if finding]


def differences(sweep: RatioSweep, pair: tuple[Line, Line], label: str, quantity: Quantity) -> dict[float, Difference]:
    """The first line minus the second at every ratio above 1 that both have, smallest first."""
    first, second = pair
    common = [ratio for ratio in sweep.ratios(first) if ratio > 1 and ratio in sweep.ratios(second)]
    phase = sweep.main_phase
    found = {
        ratio: sweep.difference((first, ratio), (second, ratio), label=label, phase=phase, quantity=quantity)
        for ratio in common
    }
    return {ratio: difference for ratio, difference in found.items() if difference}


def comparisons_made(sweep: RatioSweep) -> tuple[int, int]:
    """How many comparisons the tables hold, and how many of their intervals exclude zero."""
    verdicts = [
        found.verdict
        for label in sweep.record["sets"]
        for pair in PAIRS
        for quantity in OUTPUTS
        for found in differences(sweep, pair, label, quantity).values()
    ]
    return len(verdicts), sum(verdict != "no difference shown" for verdict in verdicts)


def limit_text(limit: Limit) -> str:
    """A limit in a few words: 16x; 5x, and again 20x; none tested."""
    if limit.plain is None:
        return "none tested"
    plain = rounding.ratio(limit.plain.ratio)
    if limit.unbroken is None:
        return f"{plain}, but smaller ones do not"
    unbroken = rounding.ratio(limit.unbroken.ratio)
    return unbroken if unbroken == plain else f"{unbroken}, and again {plain}"


def scope_finding(quantity: Quantity, found: Mapping[float, Difference]) -> Finding | None:
    """Whether layer-wise is better at small ratios and network-wide at large ones, as the paper says."""
    if not found:
        return None
    network, layer, neither = (
        [ratio for ratio, difference in found.items() if difference.verdict == verdict]
        for verdict in ("better", "worse", "no difference shown")
    )
    parts = [f"{line.label} is better at {_ratios(won)}" for line, won in ((LAYER, layer), (NETWORK, network)) if won]
    parts += [f"no difference is shown at {_ratios(neither)}"] if neither else []
    text = "; ".join(parts)
    return Finding(
        f"Scopes, {quantity.name}",
        f"{text[0].upper()}{text[1:]}. {_beside_the_paper(layer, network)}",
    )


def against_finding(pair: tuple[Line, Line], found: Mapping[float, Difference]) -> Finding | None:
    """Where the first of two lines is better in AJI, and where not."""
    if not found:
        return None
    first, second = pair
    parts = []
    for verdict, words in (
        ("better", f"{first.label} is better"),
        ("worse", f"{first.label} is worse"),
        ("no difference shown", "no difference is shown"),
    ):
        ratios = [ratio for ratio, difference in found.items() if difference.verdict == verdict]
        parts += [f"{words} at {_ratios(ratios)}"] if ratios else []
    text = "; ".join(parts)
    verdicts = {difference.verdict for difference in found.values()}
    good = {frozenset({"better"}): True, frozenset({"worse"}): False}.get(frozenset(verdicts))
    return Finding(f"Against {second.label}, AJI", f"{text[0].upper()}{text[1:]}.", good)


def not_run(record: Record) -> list[str]:
    """What the recipe left out, a sentence each: the reader should not take it for done."""
    recipe, ratios = record["recipe"], record["recipe"]["ratios"]
    tested, repeated = ratios["compressions"], ratios["repeated_compressions"]
    found = []
    if len(ratios["seeds"]) == 1:
        found.append("All of it comes from one dense training: the spread between trainings is not known.")
    elif repeated is not None and set(repeated) < set(tested):
        once = _ratios([ratio for ratio in tested if ratio not in repeated])
        found.append(f"At {once} there is one dense training only, seed {ratios['seeds'][0]}.")
    for words, key in (
        ("Random masks were not drawn", "random_compressions"),
        ("Small dense networks were not trained", "small_compressions"),
    ):
        absent = [ratio for ratio in tested if ratio not in ratios[key] and ratio > 1]
        found += [f"{words} at {_ratios(absent)}."] if absent else []
    absent_scopes = [line.label for line in SCOPES if line.key not in ratios["scopes"]]
    found += [f"Nothing was pruned {rounding.listed(absent_scopes)}."] if absent_scopes else []
    return [*found, *_protocol_gaps(recipe)]


def _protocol_gaps(recipe: Record) -> list[str]:
    sparsity, ratios, found = recipe["sparsity"], recipe["ratios"], []
    if len(ratios["seeds"]) > 1 and (ratios["random_compressions"] or ratios["small_compressions"]):
        found.append(f"Random masks and small dense networks stand beside seed {ratios['seeds'][0]} alone.")
    if not ratios["structured_keep_ratios"]:
        found.append("No network was cut by whole filters.")
    if sparsity["recovery"] is None:
        found.append("No network was trained after its cut.")
    elif not ratios["before_recovery"]:
        found.append("No network was measured between its cut and its recovery.")
    if sparsity["rounds"] == 1:
        found.append("Masks are set once: pruning in rounds is not in this sweep.")
    if sparsity["rewind_epoch"] is None:
        found.append("Weights are not rewound.")
    if not sparsity["branches"]:
        found.append("Both branches are pruned together: each branch pruned alone is not in this sweep.")
    return found


def _limits(sweep: RatioSweep, label: str, quantity: Quantity) -> Finding | None:
    phase, parts = sweep.main_phase, []
    for line in SCOPES:
        found = losses(sweep, line, label, phase, quantity)
        if found:
            parts.append(f"{line.label} {limit_text(relative_limit(found))}")
    if not parts:
        return None
    text = f"Largest ratio with a loss under 2 % of dense: {'; '.join(parts)}."
    paper = f"The paper, layer-wise on its own data: {rounding.ratio(PUBLISHED[quantity])}."
    return Finding(quantity.title, f"{text} {paper}")


def _beside_the_paper(layer: Sequence[float], network: Sequence[float]) -> str:
    """What the ratios at which one scope is better say of the claim."""
    claim = "layer-wise wins at small ratios and network-wide at large ones"
    if layer and network:
        if max(layer) < min(network):
            return f"This agrees with what the paper says: {claim}."
        if max(network) < min(layer):
            return f"This is the reverse of what the paper says: {claim}."
        return f"No single ratio parts them; the paper says that {claim}."
    if not layer and not network:
        return f"What the paper says, that {claim}, is not shown."
    never = (NETWORK if layer else LAYER).label.capitalize()
    return f"{never} is better nowhere: what the paper says, that {claim}, is not shown."


def _dead(sweep: RatioSweep) -> Finding | None:
    """At which ratios layers died."""
    parts = []
    for line in SCOPES:
        counts = {
            ratio: max((len(cell["sparsity"]["masks"]["dead"]) for cell in _done(sweep, line, ratio)), default=0)
            for ratio in sweep.ratios(line)
        }
        died = {ratio: count for ratio, count in counts.items() if count}
        if died:
            most = rounding.plural(max(died.values()), "layer")
            parts.append(f"{line.label}, {most} at most, at {_ratios(list(died))}")
    text = "; ".join(parts)
    return Finding("Layers that died", f"{text[0].upper()}{text[1:]}.", good=False) if parts else None


def _done(sweep: RatioSweep, line: Line, ratio: float) -> list[Record]:
    return [cell for cell in sweep.cells((line, ratio), sweep.main_phase) if cell["status"] == "done"]


def _ratios(ratios: Sequence[float]) -> str:
    return rounding.listed([rounding.ratio(ratio) for ratio in ratios])
