"""The masked network in two lines, and what is needed to compare it with the one after removal.

The package masks what consumers read; here the consumers' weights are zeroed instead, which is the same for every
read that is linear in its channels and shares no code with it.
"""

import copy
import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.graph.records import ChannelGraph, GroupId
from secateur.prune.plan import PruningPlan


def silenced(model: nn.Module, graph: ChannelGraph, plan: PruningPlan) -> nn.Module:
    """A copy of ``model`` whose consumers ignore every unit that ``plan`` drops."""
    twin = copy.deepcopy(model)
    silence_(twin, graph, plan)
    return twin


def silence_(model: nn.Module, graph: ChannelGraph, plan: PruningPlan) -> None:
    """The same in place."""
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for group_id, kept in plan.kept.items():
            for read in graph.group(group_id).reads():
                for position, unit in zip(read.positions, read.units, strict=True):
                    if unit not in kept:
                        tensors[read.tensor].select(read.dim, position).zero_()


def outputs(model: nn.Module, inputs: Sequence[Tensor], *, training: bool) -> list[Tensor]:
    """Every output tensor of a float64 copy of ``model`` without drop-out, in the given mode."""
    twin = copy.deepcopy(model).double().train(training)
    for module in twin.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        leaves = pytree.tree_leaves(twin(*(tensor.double() for tensor in inputs)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def scramble_(model: nn.Module, *, seed: int) -> None:
    """Distinct values everywhere: norm scales of one and biases of zero hide wrong indices."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.mul_(0.7 + 0.6 * noise).add_(0.1 * noise)


def random_plan(graph: ChannelGraph, *, seed: int) -> PruningPlan:
    """Any subset of the groups, each keeping at least one unit."""
    chance = random.Random(seed)
    chosen = [group for group in graph.groups if group.width > 1 and chance.random() < 0.8]
    kept = {g.id: tuple(sorted(chance.sample(range(g.width), chance.randint(1, g.width)))) for g in chosen}
    return plan_of(graph, kept)


def halving(graph: ChannelGraph) -> PruningPlan:
    """Every other unit of every group."""
    return plan_of(graph, {g.id: tuple(range(0, g.width, 2)) for g in graph.groups if g.width > 1})


def plan_of(graph: ChannelGraph, kept: dict[GroupId, tuple[int, ...]]) -> PruningPlan:
    """The plan that keeps ``kept``."""
    approximate = frozenset(group for group in kept if not graph.group(group).exact)
    return PruningPlan(kept, {group: graph.group(group).width for group in kept}, approximate=approximate)


def assert_same_outputs(first: nn.Module, second: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Float64, eval and train mode, every output."""
    for training in (False, True):
        before = outputs(first, inputs, training=training)
        after = outputs(second, inputs, training=training)
        assert before
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-10)
