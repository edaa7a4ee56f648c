"""Dead units leave a network exactly: what weight pruning left as zeros becomes fewer channels."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError, ProofError
from secateur.graph.copying import safe_copy
from secateur.graph.patch import accepts, random_inputs
from secateur.graph.records import ChannelGraph, GroupId, InputSpec
from secateur.graph.tensors import named_tensors
from secateur.prune.comparison import MODES, Difference, compare, outputs
from secateur.prune.constants import read_constants
from secateur.prune.dead import Fold, Leaving, Survey, Unit, choose, dead_units, fold_, reason, survey
from secateur.prune.plan import PruningPlan
from secateur.prune.proof import Proof
from secateur.prune.surgery import check_finite, check_model, cut_, remove_with_proof
from secateur.prune.twins import randomise_, sharing_twin


@dataclass(frozen=True)
class Stay:
    """A unit with filters that are all zero, which stays."""

    group: GroupId
    unit: int
    reason: str


@dataclass(frozen=True)
class Compaction:
    """What left, what took its constants, what stayed, and how equal the networks are.

    Attributes:
        plan: the units that stay; ``graph.keep(plan.kept)`` is the graph of the smaller network.
        dead: units of which some filter is all zero.
        left: units that are gone: dead ones, those that only dead ones fed, and those that nothing listens to.
        folds: the consumers that took constants.
        stays: dead units that stay, and why.
        proof: of the removal, once the constants are folded; see `secateur.prune.proof.prove`.
        max_abs_diff: largest difference in eval mode between the outputs of the network before and after, both in
            float64, over several inputs and sizes, with the real weights and with random ones that have the same zeros.
        max_rel_diff: the same, relative to the largest value of the output.
        exact_in_train: whether train mode, without drop-out, agrees as well. It does unless a norm uses the statistics
            of the batch in train mode and others in eval mode.
        rounding: largest difference in eval mode, relative to the largest value of the output, between the network
            before and the one handed back, whose folded numbers are rounded to its own type; both run in float64.
        sizes: the shapes of the inputs on which this was seen; where the network takes it, of two batches.
        seconds: what it took.
    """

    plan: PruningPlan
    dead: int
    left: int
    folds: tuple[Fold, ...]
    stays: tuple[Stay, ...]
    proof: Proof
    max_abs_diff: float
    max_rel_diff: float
    exact_in_train: bool
    rounding: float
    sizes: tuple[tuple[tuple[int, ...], ...], ...]
    seconds: float

    def to_record(self) -> dict[str, Any]:
        """The compaction as JSON values."""
        return {**asdict(self), "plan": self.plan.to_json(), "proof": self.proof.to_record()}


@torch.inference_mode(False)
def compact(model: nn.Module, graph: ChannelGraph) -> tuple[nn.Module, Compaction]:
    """Return a smaller network that computes the same, without the units that say nothing of the input.

    Weight pruning leaves filters without weights. What they emit does not depend on the input, so it moves into the
    bias of the layers that read it, or into one *carrier* channel where zero padding is seen; see
    `secateur.prune.dead`. No parameter is added, so the result is saved with the plan as any pruned network is.

    Exact in eval mode. In train mode too, except behind batch norm: its running statistics of a dead channel are not
    those of the batch, so that the constant is another one there.

    Args:
        model: the network that ``graph`` was traced from; untouched.
        graph: its groups. Approximate ones stay as they are.

    Returns:
        The smaller network, and what was done. Where nothing can leave it is a copy.

    Raises:
        PlanMismatchError: the graph belongs to another network.
        InputError: weights or outputs that are not finite.
        ProofError: the smaller network differs; nothing is handed back.
    """
    started = time.perf_counter()
    check_model(model, graph)
    check_finite(model)
    sizes = _sizes(model, graph)
    exact = safe_copy(model).double()
    _check_outputs(exact, graph.patch)
    attempt = _attempt(exact, graph, sizes)
    random = safe_copy(exact)
    _randomise_(random)
    own = _differences(exact, attempt.small(graph), sizes)
    drawn = _differences(random, _attempt(random, graph, sizes).small(graph), sizes)
    _require_close(own["eval"], "its own weights")
    _require_close(drawn["eval"], "random weights")
    small, proof = remove_with_proof(_rounded(model, attempt), graph, attempt.plan)
    compaction = Compaction(
        plan=attempt.plan,
        dead=sum(int(units.sum()) for units in dead_units(exact, graph).values()),
        left=sum(int(units.sum()) for units in attempt.leaving.values()),
        folds=attempt.folds,
        stays=_stays(exact, attempt),
        proof=proof,
        max_abs_diff=max(difference.absolute for difference in own["eval"] + drawn["eval"]),
        max_rel_diff=max(difference.relative for difference in own["eval"] + drawn["eval"]),
        exact_in_train=all(difference.close for difference in own["train"]),
        rounding=max(difference.relative for difference in _differences(exact, sharing_twin(small), sizes)["eval"]),
        sizes=tuple(tuple(spec.shape for spec in size) for size in sizes),
        seconds=time.perf_counter() - started,
    )
    return small, compaction


@dataclass(frozen=True)
class _Attempt:
    """A network in float64 whose readers have taken the constants of the units that can leave."""

    found: Survey
    leaving: Leaving
    kept: dict[Unit, str]
    folds: tuple[Fold, ...]
    folded: nn.Module
    plan: PruningPlan

    def small(self, graph: ChannelGraph) -> nn.Module:
        """The network without these units."""
        small = safe_copy(self.folded)
        cut_(small, graph, self.plan.kept)
        return small


def _attempt(exact: nn.Module, graph: ChannelGraph, sizes: Sequence[Sequence[InputSpec]]) -> _Attempt:
    found = survey(exact, graph, read_constants(exact, graph, sizes))
    leaving, kept = choose(found)
    folded = safe_copy(exact)
    folds = fold_(folded, found, leaving)
    return _Attempt(found, leaving, kept, folds, folded, _plan(leaving, graph))


def _plan(leaving: Leaving, graph: ChannelGraph) -> PruningPlan:
    stay = {group: tuple((~units).nonzero().flatten().tolist()) for group, units in leaving.items() if units.any()}
    return PruningPlan(stay, {group: graph.group(group).width for group in stay}, "dead units leave")


def _rounded(model: nn.Module, attempt: _Attempt) -> nn.Module:
    """A copy of ``model`` with the numbers that folding changed, in its own type."""
    rounded = safe_copy(model)
    before, after = named_tensors(rounded), named_tensors(attempt.folded)
    changed = {fold.bias or fold.reader for fold in attempt.folds}
    with torch.no_grad():
        for name in changed:
            before[name].copy_(after[name])
    return rounded


def _randomise_(model: nn.Module) -> None:
    """Random numbers everywhere but where a weight is zero."""
    zeros = [(tensor, tensor == 0) for tensor in named_tensors(model).values() if tensor.ndim > 1]
    randomise_(model, seed=2)
    with torch.no_grad():
        for tensor, zero in zeros:
            tensor.masked_fill_(zero, 0)


def _check_outputs(exact: nn.Module, patch: Sequence[InputSpec]) -> None:
    found = outputs(exact, random_inputs(patch, like=exact, dtype=torch.float64))["eval"]
    if not all(bool(output.isfinite().all()) for output in found):
        raise InputError(
            "the network's output on random input is not finite, so nothing can be shown to be equal; "
            "a weight norm of a filter without weights does that: remove the norm before pruning weights."
        )


def _sizes(model: nn.Module, graph: ChannelGraph) -> list[tuple[InputSpec, ...]]:
    """The patch, and one more sample of uneven sides, odd ones where the network takes them."""
    twin = safe_copy(model)
    for samples, sides in product((1, 0), (_odd, _longer)):
        other = tuple(
            InputSpec((spec.shape[0] + samples, spec.shape[1], *sides(spec.shape[2:])), spec.dtype)
            for spec in graph.patch
        )
        if accepts(twin, other):
            return [graph.patch, other]
    return [graph.patch]


def _odd(sides: Sequence[int]) -> list[int]:
    return [side + 2 * axis + 1 for axis, side in enumerate(sides)]


def _longer(sides: Sequence[int]) -> list[int]:
    return [side + axis % 2 * side // 2 for axis, side in enumerate(sides)]


def _stays(exact: nn.Module, attempt: _Attempt) -> tuple[Stay, ...]:
    return tuple(
        Stay(group, unit, attempt.kept.get((group, unit)) or reason(attempt.found, group, unit))
        for group, units in dead_units(exact, attempt.found.graph).items()
        for unit in (units & ~attempt.leaving[group]).nonzero().flatten().tolist()
    )


def _differences(
    dense: nn.Module, small: nn.Module, sizes: Sequence[Sequence[InputSpec]]
) -> dict[str, list[Difference]]:
    """How far apart the outputs of two networks are, by mode, over one random input of each size."""
    found: dict[str, list[Difference]] = {mode: [] for mode in MODES}
    for seed, size in enumerate(sizes):
        inputs = random_inputs(size, like=dense, seed=seed, dtype=torch.float64)
        before, after = outputs(dense, inputs), outputs(small, inputs)
        compared = compare(before, after, inputs, lambda given: outputs(dense, given))
        for mode in MODES:
            found[mode] += compared[mode] or [Difference(torch.inf, 0)]
    return found


def _require_close(found: Sequence[Difference], weights: str) -> None:
    for difference in found:
        if not difference.close:
            raise ProofError(
                f"the network without its dead units is not the same: with {weights} {difference}. "
                f"It is not handed back."
            )
