"""The proof of every removal: the network with gates at zero equals the physically smaller network."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import ProofError
from secateur.graph.memory import release_freed_memory
from secateur.graph.patch import random_inputs
from secateur.graph.records import ChannelGraph, GroupId, Kept
from secateur.prune.comparison import (
    BREAKS,
    MODES,
    Difference,
    Outputs,
    compare,
    does_not_run,
    masked_outputs,
    outputs,
    repeatable,
    tensors_of,
)
from secateur.prune.precision import backward_in_double
from secateur.prune.reads import ReadSite, contributions
from secateur.prune.twins import random_twin, sharing_twin, wide_random_twin, widen_buffers_

# Draws of random weights: a second and more only for a read that none felt yet. The few hidden channels of a
# squeeze-excite are all dead behind their rectifier under one draw in four or so.
_DRAWS = 5

Cut = Callable[[nn.Module, ChannelGraph, Kept], None]

_Read = tuple[str, GroupId]  # a weight, and a group that it reads


@dataclass(frozen=True)
class Proof:
    """What was compared and how far apart it was.

    Attributes:
        passed: every comparison stayed within the tolerances.
        max_abs_diff: largest absolute difference of any output value.
        max_rel_diff: largest difference relative to the largest value of the same output tensor.
        modes: the comparisons made, as ``weights/mode``; further draws of random weights are numbered.
        reads: number of reads of removed units.
        untested: reads of removed units whose gates changed nothing, so that the proof says nothing of them.
        failure: what went wrong, in words; empty when passed.
        seconds: what the proof took.
        approximate: the scales of norms whose statistics the masked network took over the channels that stay, because
            the graph allows it: the indices are proved, the outputs are not those of the network with all statistics.
        noise: how far an output of the masked network moves, relative to its largest value, with the last bit of the
            inputs. Asked only where the difference is more than sums in another order make, 0 elsewhere; the tolerance
            is then a hundred times this, and at most a thousandth.
    """

    passed: bool
    max_abs_diff: float
    max_rel_diff: float
    modes: tuple[str, ...]
    reads: int
    untested: tuple[str, ...]
    failure: str
    seconds: float
    approximate: tuple[str, ...] = ()
    noise: float = 0.0

    def require(self) -> "Proof":
        """Return this proof, or raise `ProofError` where it failed."""
        if not self.passed:
            raise ProofError(f"masked and removed network differ: {self.failure}. The network is not handed back.")
        return self

    def to_record(self) -> dict[str, Any]:
        """The proof as JSON values."""
        return asdict(self)


def prove(
    dense: nn.Module, small: nn.Module, graph: ChannelGraph, kept: Kept, cut: Cut, *, real_weights: bool = True
) -> Proof:
    """Compare masked and removed network, with the real weights and with random ones, in both modes, in float64.

    Args:
        dense: the network before; untouched.
        small: the network after; untouched. Not read when ``real_weights`` is False.
        graph: the groups of ``dense``.
        kept: the units that stay.
        cut: the surgery in place.
        real_weights: also compare ``dense`` and ``small`` as they are.
    """
    proof = prove_surgery(dense, graph, kept, cut)
    return prove_weights(proof, dense, small, graph, kept) if real_weights else proof


def prove_surgery(dense: nn.Module, graph: ChannelGraph, kept: Kept, cut: Cut) -> Proof:
    """The half of a proof that needs no smaller network yet: random weights, masked and then removed by ``cut``.

    Random weights are needed because fresh networks hide wrong indices: equal norm scales, zero biases, dead
    activations. They are drawn for the dense network and then cut, by the same surgery that makes the smaller one.

    Takes the memory of one float32 copy of ``dense``, beside what running it on ``graph.patch`` takes.
    """
    started = time.perf_counter()
    inputs = random_inputs(graph.patch, like=dense, seed=1, dtype=torch.float64)
    losing = [group for group in graph.groups if len(kept.get(group.id, range(group.width))) < group.width]
    untested = list({(read.tensor, group.id): None for group in losing for read in group.reads()})
    proof = Proof(True, 0.0, 0.0, (), len(untested), (), "", 0.0, graph.approximated(kept))

    def attempt(draw: int) -> tuple[Proof, list[_Read]]:  # holds the only copy, and lets it go
        twin = random_twin(dense, seed=draw)
        silent = _silent_reads(twin, graph, kept, inputs, untested, asking_twice=draw == 0)
        if draw and silent == untested:
            return proof, untested  # these weights test nothing that others did not
        release_freed_memory()
        masked = masked_outputs(twin, graph, kept, inputs)
        cut(twin, graph, kept)
        removed = outputs(twin, inputs)
        del twin

        def again(given: Sequence[Tensor]) -> Outputs:
            return masked_outputs(wide_random_twin(dense, seed=draw), graph, kept, given)

        found = compare(masked, removed, inputs, again)
        return _with(proof, f"random {draw + 1}" if draw else "random", found), silent

    try:
        for draw in range(_DRAWS):
            proof, untested = attempt(draw)
            release_freed_memory()
            if not untested or not proof.passed:
                break
        proof = replace(proof, untested=tuple(f"{weight} of {group}" for weight, group in untested))
    except BREAKS as error:
        proof = replace(proof, passed=False, failure=does_not_run(error))
    return replace(proof, seconds=time.perf_counter() - started)


def prove_weights(proof: Proof, dense: nn.Module, small: nn.Module, graph: ChannelGraph, kept: Kept) -> Proof:
    """The other half: ``proof`` with ``dense``, masked, and ``small`` compared as they are. Takes no copy of either."""
    started = time.perf_counter()
    inputs = random_inputs(graph.patch, like=dense, seed=1, dtype=torch.float64)
    try:
        masked = masked_outputs(sharing_twin(dense), graph, kept, inputs)
        removed = outputs(sharing_twin(small), inputs)
        found = compare(masked, removed, inputs, lambda given: masked_outputs(sharing_twin(dense), graph, kept, given))
        proof = _with(proof, "real", found)
    except BREAKS as error:
        proof = replace(proof, passed=False, failure=proof.failure or does_not_run(error))
    release_freed_memory()
    return replace(proof, seconds=proof.seconds + time.perf_counter() - started)


def _with(proof: Proof, weights: str, compared: Mapping[str, list[Difference] | None]) -> Proof:
    """``proof`` with the comparison of both modes added."""
    for mode, found in compared.items():
        name = f"{weights}/{mode}"
        if found is None:
            return replace(proof, passed=False, failure=proof.failure or f"{name}: the outputs have other shapes")
        wrong = next((f"{name}: {difference}" for difference in found if not difference.close), "")
        proof = replace(
            proof,
            passed=proof.passed and not wrong,
            max_abs_diff=max([proof.max_abs_diff, *(difference.absolute for difference in found)]),
            max_rel_diff=max([proof.max_rel_diff, *(difference.relative for difference in found)]),
            noise=max([proof.noise, *(difference.noise / (difference.scale or 1.0) for difference in found)]),
            failure=proof.failure or wrong,
            modes=(*proof.modes, name),
        )
    return proof


def _silent_reads(
    model: nn.Module,
    graph: ChannelGraph,
    kept: Kept,
    inputs: Sequence[Tensor],
    reads: Sequence[_Read],
    *,
    asking_twice: bool,
) -> list[_Read]:
    """Those of ``reads`` of removed units whose gate gradient is zero for every sample, in both modes.

    A gradient that is there is mostly felt by one sample in float32, which takes little memory; only where one is
    not, all samples in train mode are asked and then, ``asking_twice``, both modes in float64. Afterwards the buffers
    of ``model``, a `random_twin`, are float64.
    """
    felt = dict.fromkeys(reads, False)
    gone = {group.id: set(range(group.width)) - set(kept[group.id]) for group in graph.groups if group.id in kept}

    def report(site: ReadSite, terms: Tensor) -> None:
        moved = terms.isfinite() & terms.ne(0)
        for group, positions, units in site.pieces:
            touched = [p for p, u in zip(positions.tolist(), units.tolist(), strict=True) if u in gone.get(group, ())]
            if touched and (site.weight, group) in felt and bool(moved[:, touched].any()):
                felt[site.weight, group] = True

    narrow = [tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs]
    with suppress(*BREAKS):  # constants in float64, say, do not meet float32 weights
        for samples, mode in (([tensor[:1] for tensor in narrow], "eval"), (narrow, "train")):
            if not all(felt.values()):
                _report_gradients(model, graph, samples, report, MODES[mode])
    widen_buffers_(model)
    for training in MODES.values() if asking_twice else ():
        if not all(felt.values()):
            with backward_in_double(model):
                _report_gradients(model, graph, inputs, report, training)
    return [read for read, moved in felt.items() if not moved]


def _report_gradients(
    model: nn.Module,
    graph: ChannelGraph,
    inputs: Sequence[Tensor],
    report: Callable[[ReadSite, Tensor], None],
    training: bool,
) -> None:
    """One forward and one backward pass, from a random gradient of every output, reported as by `contributions`.

    Gradients go back to the inputs, as the backward hooks of some modules expect.
    """
    with repeatable(model, training), torch.enable_grad(), contributions(model, graph, report):
        leaves = [tensor.clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs]
        found = [tensor for tensor in tensors_of(model(*(leaf.clone() for leaf in leaves))) if tensor.requires_grad]
        torch.autograd.backward(found, [torch.randn_like(tensor) for tensor in found])
