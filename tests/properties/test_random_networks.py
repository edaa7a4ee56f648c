"""Random networks x random plans: traced, cut, compared with the masked network, trained, traced again."""

from collections import Counter
from dataclasses import dataclass, field

import hypothesis
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from masking import assert_same_outputs, halving, plan_of, random_plan, scramble_, silenced
from random_networks import PARTS, build, random_recipe, small_recipes
from secateur.cost.macs import count_macs, count_params, graph_macs, graph_params
from secateur.errors import ProofError
from secateur.graph.records import Role
from secateur.graph.trace import trace_channels
from secateur.prune import surgery
from secateur.prune.surgery import cut_, remove
from secateur.prune.trial import trace

REMOVABLE = 0.6  # of all channels, on average over a sample
FEW = 3  # of 100 networks hold a part or an operator at least
OPERATORS = {  # torch's names
    "conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d", "linear",
    "batch_norm", "instance_norm", "group_norm", "layer_norm", "weight_norm",
    "relu", "leaky_relu", "gelu", "silu", "prelu", "sigmoid", "tanh", "dropout",
    "max_pool", "avg_pool", "adaptive_avg_pool", "interpolate", "pixel_shuffle", "pixel_unshuffle",
    "add", "mul", "cat", "stack", "chunk", "unbind", "pad", "roll", "flip", "getitem",
    "reshape", "flatten", "transpose", "permute", "mean", "softmax", "matmul", "scaled_dot_product_attention",
}  # fmt: skip
_POOLINGS = ("dropout", "max_pool", "avg_pool", "adaptive_avg_pool")  # counted in 2D and 3D together


class Operators(TorchFunctionMode):
    """Notes the torch functions that make tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            name = func.__name__.strip("_")
            self.names.add(name[:-2] if name[:-2] in _POOLINGS else name)
        return result


@dataclass
class Sample:
    """What the networks of one run were made of, and the share of their channels that can go."""

    shares: list[float] = field(default_factory=list)
    operators: Counter = field(default_factory=Counter)  # in how many networks
    parts: Counter = field(default_factory=Counter)

    def add(self, graph, operators: set[str], parts: set[str]) -> None:
        free = sum(len(piece.positions) for g in graph.groups for piece in g.slices if piece.role is Role.WRITE)
        stuck = sum(pin.channels for pin in graph.pinned)
        self.shares.append(free / (free + stuck))
        self.operators.update(operators)
        self.parts.update(parts)

    def report(self) -> str:
        share = sum(self.shares) / len(self.shares)
        lines = [f"\n{len(self.shares)} random networks; {share:.1%} of their channels are removable; networks with:"]
        counts = (*self.operators.most_common(), *self.parts.most_common())
        return "\n".join(lines + [f"{count:6d} {name}" for name, count in counts])

    def require(self) -> None:
        """Fails where too little is removable, or the networks hold an operator or a part hardly ever."""
        assert sum(self.shares) / len(self.shares) >= REMOVABLE, self.report()
        rare = {name for name in OPERATORS if self.operators[name] < FEW}
        rare |= {name for name in PARTS if self.parts[name] < FEW}
        assert not rare, f"hardly ever: {sorted(rare)}\n{self.report()}"


def inputs_of(recipe, seed) -> Tensor:
    return torch.randn(2, *recipe.shape, generator=torch.Generator().manual_seed(seed))


def scrambled(recipe, seed):
    model = build(recipe)
    scramble_(model, seed=seed)
    return model


def check(recipe, seed, sample, *, again):
    """One network and one plan; ``again`` also traces the smaller network."""
    model, x = scrambled(recipe, seed), inputs_of(recipe, seed)
    graph = trace(model, x)
    with Operators() as seen, torch.no_grad():
        model.eval()(x)
    sample.add(graph, seen.names, recipe.parts())
    assert not [pin for pin in graph.pinned if pin.reason.startswith("proof failed")]
    plan = random_plan(graph, seed=seed)
    if again:  # where one unit is left, a grouped convolution is a depthwise one, and a product broadcasts
        plan = plan_of(graph, {group: kept if len(kept) > 1 else (0, 1) for group, kept in plan.kept.items()})
    small = remove(model, graph, plan)
    assert_same_outputs(silenced(model, graph, plan), small, [x])
    assert backward(small, x) == backward(model, x)
    shrunk = graph.keep(plan.kept)
    assert shrunk.shapes == {name: tuple(tensor.shape) for name, tensor in tensors(small).items()}
    assert (graph_macs(shrunk), graph_params(shrunk)) == (count_macs(small, x), count_params(small))
    if again:
        fresh = trace_channels(small, x)
        assert widths(fresh) == widths(shrunk)
        assert graph_macs(fresh) == graph_macs(shrunk)


def backward(model, x) -> set[str]:
    """The parameters that a training step reaches, all with finite gradients; the buffers come back."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    leaves = pytree.tree_leaves(model.train()(x))
    torch.stack([leaf.square().mean() for leaf in leaves]).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    for buffer, value in before:
        buffer.copy_(value)
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())
    return set(found)


def tensors(model) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def widths(graph) -> Counter:
    """(module, width) of every group: groups of one module are numbered in the order of their first channel."""
    return Counter((group.id.partition("#")[0], group.width) for group in graph.groups)


def test_random_networks(capsys):
    sample = Sample()

    @hypothesis.seed(1)  # another one makes other networks, of which one part may be rare
    @settings(max_examples=100, database=None)
    @given(recipe=small_recipes(), seed=st.integers(1, 2**32 - 1))
    def each(recipe, seed):
        check(recipe, seed, sample, again=seed % 10 == 0)

    each()
    with capsys.disabled():
        print(sample.report())  # noqa: T201
    sample.require()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_many_random_networks(first, capsys):
    sample = Sample()
    for seed in range(first, first + 100):
        recipe = random_recipe(seed)
        try:
            check(recipe, seed + 1, sample, again=True)
        except Exception as error:
            error.add_note(f"random_recipe({seed}): {recipe}")
            raise
    with capsys.disabled():
        print(sample.report())  # noqa: T201
    sample.require()


FAULTS = {  # name -> (tensor and dimension with wrong positions, what a recipe must have)
    "wrong concat offset": ("skip.0.merge.0.weight", 1, lambda recipe: recipe.levels[0].skip == "cat"),
    "wrong rows of a head": ("bottom.qkv.weight", 0, lambda recipe: recipe.bottom[1].startswith("transformer")),
    "forgotten norm buffer": ("stem.1.running_mean", 0, lambda recipe: recipe.style.norm == "batch"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first", [0, 1000])
def test_planted_faults_are_caught_by_either_judge(fault, first, monkeypatch):
    """A cut that takes the wrong channels of one tensor, or forgets it: the engine's proof and ours both see it."""
    tensor, dim, fits = FAULTS[fault]
    recipe = next(recipe for seed in range(first, first + 1000) if fits(recipe := random_recipe(seed, small=True)))
    model, x = scrambled(recipe, 1), inputs_of(recipe, 1)
    graph = trace(model, x)
    plan = halving(graph)
    masked = silenced(model, graph, plan)
    assert_same_outputs(masked, remove(model, graph, plan), [x])
    right = surgery.removed_positions

    def wrong(graph, kept):
        removed = right(graph, kept)
        gone, size = removed.pop((tensor, dim)), graph.shapes[tensor][dim]
        shifted = {} if fault.startswith("forgotten") else {(tensor, dim): {(place + 1) % size for place in gone}}
        return removed | shifted

    monkeypatch.setattr(surgery, "removed_positions", wrong)
    with pytest.raises(ProofError):
        remove(model, graph, plan)
    cut_(model, graph, plan.kept)
    with pytest.raises((AssertionError, RuntimeError)):
        assert_same_outputs(masked, model, [x])
