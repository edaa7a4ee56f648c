"""Findings of a sweep over ratios in plain words, made from the record by rules."""

from collections.abc import Mapping, Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import Finding
from secateur.report.quantities import AJI, CORRELATION, SEMANTIC_DICE, Quantity
from secateur.report.sweeps.pooling import VERDICTS, Difference
from secateur.report.sweeps.ratios.limits import PUBLISHED, Limit, losses, relative_limit
from secateur.report.sweeps.ratios.results import LAYER, NETWORK, OUTPUTS, PRUNED, RANDOM, SMALL, Line, RatioSweep

HEADLINES = (SEMANTIC_DICE, CORRELATION, AJI)  # one per output
_UNDECIDED = {"seeds disagree": "seeds disagree", "no difference shown": "no difference is shown"}
_OF_THE_FIRST_SEED = {
    "random masks": "random_compressions",
    "small dense networks": "small_compressions",
    "whole filters": "structured_keep_ratios",
    "single branches": "branch_compressions",
}
PAIRS = ((NETWORK, LAYER), (LAYER, RANDOM), (LAYER, SMALL), (NETWORK, SMALL))  # what is held against what


def ratio_findings(sweep: RatioSweep, label: str) -> list[Finding]:
    """How far each output can be compressed, which scope wins where, and whether magnitudes beat chance and size."""
    limits = [_limits(sweep, label, quantity) for quantity in HEADLINES]
    scopes = [scope_finding(each, differences(sweep, (NETWORK, LAYER), label, each)) for each in HEADLINES]
    others = [against_finding(pair, differences(sweep, pair, label, AJI)) for pair in ((LAYER, RANDOM), (LAYER, SMALL))]
    return [finding for finding in (*limits, *scopes, *others, _dead(sweep)) if finding]


def differences(sweep: RatioSweep, pair: tuple[Line, Line], label: str, quantity: Quantity) -> dict[float, Difference]:
    """The first line minus the second at every ratio that both have, smallest first."""
    first, second = pair
    common = [ratio for ratio in sweep.ratios(first) if ratio in sweep.ratios(second)]
    phase = sweep.main_phase
    found = {
        ratio: sweep.difference((first, ratio), (second, ratio), label=label, phase=phase, quantity=quantity)
        for ratio in common
    }
    return {ratio: difference for ratio, difference in found.items() if difference}


def comparisons_made(sweep: RatioSweep) -> tuple[int, int]:
    """How many comparisons the tables hold, and how many of their intervals exclude zero."""
    shown = [
        found.excludes_zero
        for label in sweep.record["sets"]
        for pair in PAIRS
        for quantity in OUTPUTS
        for found in differences(sweep, pair, label, quantity).values()
    ]
    return len(shown), sum(shown)


def limit_text(limit: Limit) -> str:
    """A limit in a few words: 16x; 5x, and again 20x; none of those tested."""
    if limit.plain is None:
        return "none of those tested"
    plain = rounding.ratio(limit.plain.ratio)
    if limit.unbroken is None:
        return f"{plain}, but smaller ones do not"
    unbroken = rounding.ratio(limit.unbroken.ratio)
    return unbroken if unbroken == plain else f"{unbroken}, and again {plain}"


def scope_finding(quantity: Quantity, found: Mapping[float, Difference]) -> Finding | None:
    """Whether layer-wise is better at small ratios and network-wide at large ones, as the paper says."""
    if not found:
        return None
    verdicts = _by_verdict(found)
    layer, network = verdicts["worse"], verdicts["better"]  # of network-wide minus layer-wise
    parts = [f"{line.label} is better at {_ratios(won)}" for line, won in ((LAYER, layer), (NETWORK, network)) if won]
    parts += [f"{words} at {_ratios(verdicts[key])}" for key, words in _UNDECIDED.items() if verdicts[key]]
    text = f"{_sentence(parts)} {_beside_the_paper(list(layer), list(network))}"
    return Finding(f"Scopes, {quantity.name}", text)


def against_finding(pair: tuple[Line, Line], found: Mapping[float, Difference]) -> Finding | None:
    """Where the first of two lines is better in AJI, and where not; good or bad only over several trainings."""
    if not found:
        return None
    first, second = pair
    verdicts = _by_verdict(found)
    words = {"better": f"{first.label} is better", "worse": f"{first.label} is worse", **_UNDECIDED}
    parts = [f"{text} at {_ratios(verdicts[key])}" for key, text in words.items() if verdicts[key]]
    several = all(len(each.by_seed) > 1 for each in found.values())
    only = {key for key, ratios in verdicts.items() if ratios}
    good = {frozenset({"better"}): True, frozenset({"worse"}): False}.get(frozenset(only)) if several else None
    return Finding(f"{first.label[0].upper()}{first.label[1:]} against {second.label}, AJI", _sentence(parts), good)


def not_run(record: Record) -> list[str]:
    """What the recipe left out, a sentence each: the reader should not take it for done."""
    recipe, ratios = record["recipe"], record["recipe"]["ratios"]
    tested, repeated = ratios["compressions"], ratios["repeated_compressions"]
    found = []
    if len(ratios["seeds"]) == 1:
        found.append("All of it comes from one dense training: the spread between trainings is not known.")
    elif repeated is not None and set(repeated) < set(tested):
        once = rounding.listed([rounding.ratio(ratio) for ratio in tested if ratio not in repeated])
        found.append(f"At {once} there is one dense training only, seed {ratios['seeds'][0]}.")
    for words, key in (
        ("Random masks were not drawn", "random_compressions"),
        ("Small dense networks were not trained", "small_compressions"),
    ):
        absent = [rounding.ratio(ratio) for ratio in tested if ratio not in ratios[key] and ratio > 1]
        found += [f"{words} at {rounding.listed(absent)}."] if absent else []
    absent_scopes = [line.label for line in PRUNED if line.key not in ratios["scopes"]]
    found += [f"Nothing was pruned {rounding.listed(absent_scopes)}."] if absent_scopes else []
    return [*found, *_protocol_gaps(recipe)]


def _protocol_gaps(recipe: Record) -> list[str]:
    sparsity, ratios, found = recipe["sparsity"], recipe["ratios"], []
    beside = [words for words, key in _OF_THE_FIRST_SEED.items() if ratios[key]]
    if len(ratios["seeds"]) > 1 and beside:
        found.append(f"Of seed {ratios['seeds'][0]} alone: {rounding.listed(beside)}.")
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
    if not sparsity["branches"] and not ratios["branches"]:
        found.append("Both branches are pruned together: each branch pruned alone is not in this sweep.")
    return found


def _limits(sweep: RatioSweep, label: str, quantity: Quantity) -> Finding | None:
    phase, parts = sweep.main_phase, []
    for line in PRUNED:
        limit = relative_limit(losses(sweep, line, label, phase, quantity))
        if limit.plain or limit.broken:
            named = limit.unbroken or limit.plain
            seeds = f", {rounding.plural(named.seeds, 'training')}" if named else ""
            parts.append(f"{line.label} {limit_text(limit)}{seeds}")
    if not parts:
        return None
    reference = sweep.reference(phase)[0].label
    text = f"Largest ratio with a mean loss under 2 % against “{reference}”: {'; '.join(parts)}."
    paper = f"The paper, layer-wise, other data, metric not named: {rounding.ratio(PUBLISHED[quantity])}."
    return Finding(quantity.title, f"{text} {paper}")


def _beside_the_paper(layer: Sequence[float], network: Sequence[float]) -> str:
    """What the ratios at which one scope is better say of the claim."""
    claim = "layer-wise wins at small ratios and network-wide at large ones"
    if layer and network:
        if max(layer) < min(network):
            return f"This is the direction of what the paper says: {claim}."
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
    for line in PRUNED:
        counts = {
            ratio: max((len(cell["sparsity"]["masks"]["dead"]) for cell in _done(sweep, line, ratio)), default=0)
            for ratio in sweep.ratios(line)
        }
        died = {ratio: count for ratio, count in counts.items() if count}
        if died:
            most = rounding.plural(max(died.values()), "layer")
            at = rounding.listed([rounding.ratio(ratio) for ratio in died])
            parts.append(f"{line.label}, {most} at most, at {at}")
    return Finding("Layers that died", _sentence(parts), good=False) if parts else None


def _done(sweep: RatioSweep, line: Line, ratio: float) -> list[Record]:
    return [cell for cell in sweep.cells((line, ratio), sweep.main_phase) if cell["status"] == "done"]


def _by_verdict(found: Mapping[float, Difference]) -> dict[str, dict[float, Difference]]:
    return {verdict: {ratio: each for ratio, each in found.items() if each.verdict == verdict} for verdict in VERDICTS}


def _ratios(found: Mapping[float, Difference]) -> str:
    """Ratios in a sentence, each with its dense trainings."""
    return rounding.listed([f"{rounding.ratio(ratio)} ({len(each.by_seed)})" for ratio, each in found.items()])


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
