"""The proof of every removal: the network with gates at zero equals the physically smaller network."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from secateur.errors import ProofError
from secateur.graph.copying import safe_copy
from secateur.graph.patch import random_inputs
from secateur.graph.records import ChannelGraph, Kept
from secateur.prune.reads import ReadSite, contributions, gated, masks

RELATIVE_TOLERANCE = 1e-9  # float64 sums in another order differ by about 1e-13 of the largest output
ABSOLUTE_TOLERANCE = 1e-10

Cut = Callable[[nn.Module, ChannelGraph, Kept], None]


@dataclass(frozen=True)
class Proof:
    """What was compared and how far apart it was.

    Attributes:
        passed: every comparison stayed within the tolerances.
        max_abs_diff: largest absolute difference of any output value.
        max_rel_diff: largest difference relative to the largest value of the same output tensor.
        modes: the comparisons made, as ``weights/mode``.
        reads: number of reads of removed units.
        untested: reads of removed units whose gates changed nothing, so that the proof says nothing of them.
        failure: what went wrong, in words; empty when passed.
        seconds: what the proof took.
    """

    passed: bool
    max_abs_diff: float
    max_rel_diff: float
    modes: tuple[str, ...]
    reads: int
    untested: tuple[str, ...]
    failure: str
    seconds: float

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
    """Compare masked and removed network, with the real weights and with random ones, in both modes.

    Random weights are needed because fresh networks hide wrong indices: equal norm scales, zero biases, dead
    activations. They are drawn for the dense network and then cut by ``cut``, the same surgery that made ``small``.

    Args:
        dense: the network before; untouched.
        small: the network after; untouched. Not read when ``real_weights`` is False.
        graph: the groups of ``dense``.
        kept: the units that stay.
        cut: the surgery in place.
        real_weights: also compare ``dense`` and ``small`` as they are.
    """
    started = time.perf_counter()
    pairs: list[tuple[str, nn.Module, nn.Module]] = []
    random_dense = safe_copy(dense).double()
    randomise_(random_dense, seed=0)
    proof = Proof(True, 0.0, 0.0, (), 0, (), "", 0.0)
    try:
        random_small = safe_copy(random_dense)
        cut(random_small, graph, kept)
        pairs.append(("random", random_dense, random_small))
        if real_weights:
            pairs.append(("real", safe_copy(dense).double(), safe_copy(small).double()))
        inputs = random_inputs(graph.patch, like=dense, seed=1, dtype=torch.float64)
        for weights, before, after in pairs:
            for mode in ("eval", "train"):
                proof = _compare(proof, f"{weights}/{mode}", before, after, graph, kept, inputs)
        reads, untested = _untested_reads(random_dense, graph, kept, inputs)
        proof = replace(proof, reads=reads, untested=untested)
    except _BREAKS as error:
        proof = replace(proof, passed=False, failure=_does_not_run(error))
    return replace(proof, seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class Disagreement:
    """How masked and removed network differ, and the module in which the smaller one stopped, if it did."""

    text: str
    module: str | None = None


class Trial:
    """The part of a proof that finds wrong groups, for many removals from one network with random weights."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, cut: Cut) -> None:
        self._dense = safe_copy(model).double()
        randomise_(self._dense, seed=0)
        self._graph, self._cut = graph, cut
        self._inputs = random_inputs(graph.patch, like=model, seed=1, dtype=torch.float64)

    def disagreement(self, kept: Kept) -> Disagreement | None:
        """What is wrong when only ``kept`` stays; None where both networks agree in both modes."""
        small = safe_copy(self._dense)
        proof = Proof(True, 0.0, 0.0, (), 0, (), "", 0.0)
        try:
            self._cut(small, self._graph, kept)
            for mode in ("eval", "train"):
                proof = _compare(proof, mode, self._dense, small, self._graph, kept, self._inputs)
                if not proof.passed:
                    return Disagreement(proof.failure)
        except _BREAKS as error:
            return Disagreement(_does_not_run(error), _where(error, small))
        return None


_BREAKS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


def _does_not_run(error: Exception) -> str:
    """The failure in one line; a lack of memory says nothing of the network and is raised on."""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        raise error
    return f"the smaller network does not run ({next(iter(str(error).strip().splitlines()), type(error).__name__)})"


def _where(error: Exception, model: nn.Module) -> str | None:
    """The innermost module whose own code the error passed through."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = None, error.__traceback__
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


def randomise_(model: nn.Module, *, seed: int) -> None:
    """Replace every parameter and floating buffer by distinct values of a scale at which deep networks stay finite."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5
            else:  # biases, scales and variances: positive, distinct, of order one
                values = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(values.to(tensor))


def _compare(
    proof: Proof, name: str, dense: nn.Module, small: nn.Module, graph: ChannelGraph, kept: Kept,
    inputs: Sequence[Tensor],
) -> Proof:  # fmt: skip
    training = name.endswith("train")
    with torch.no_grad():
        with _repeatable(dense, training), gated(dense, graph, masks(graph, kept)):
            masked = _tensors(dense(*inputs))
        with _repeatable(small, training):
            removed = _tensors(small(*inputs))
    if [tensor.shape for tensor in masked] != [tensor.shape for tensor in removed]:
        return replace(proof, passed=False, failure=f"{name}: the outputs have other shapes")
    for before, after in zip(masked, removed, strict=True):
        scale = float(before.abs().max())
        absolute = float((before - after).abs().max())
        close = absolute <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * scale  # False also for NaN
        proof = replace(
            proof,
            passed=proof.passed and close,
            max_abs_diff=max(proof.max_abs_diff, absolute),
            max_rel_diff=max(proof.max_rel_diff, absolute / scale if scale else 0.0),
            failure=proof.failure or ("" if close else f"{name}: an output differs by {absolute:.3g} of {scale:.3g}"),
        )
    return replace(proof, modes=(*proof.modes, name))


def _untested_reads(
    model: nn.Module, graph: ChannelGraph, kept: Kept, inputs: Sequence[Tensor]
) -> tuple[int, tuple[str, ...]]:
    """Reads of removed units whose gate gradient is zero for every sample, in eval mode and in train mode."""
    felt: dict[tuple[str, str], bool] = {
        (read.tensor, group.id): False for group in graph.groups if group.id in kept for read in group.reads()
    }
    gone = {group.id: set(range(group.width)) - set(kept[group.id]) for group in graph.groups if group.id in kept}

    def report(site: ReadSite, terms: Tensor) -> None:
        for group, positions, units in site.pieces:
            touched = [p for p, u in zip(positions.tolist(), units.tolist(), strict=True) if u in gone.get(group, ())]
            if touched and bool(terms[:, touched].any()):
                felt[site.weight, group] = True

    for training in (False, True):
        with _repeatable(model, training), torch.enable_grad(), contributions(model, graph, report):
            outputs = [tensor for tensor in _tensors(model(*inputs)) if tensor.requires_grad]
            torch.autograd.backward(outputs, [torch.randn_like(tensor) for tensor in outputs])
    return len(felt), tuple(f"{weight} of {group}" for (weight, group), moved in felt.items() if not moved)


def _tensors(output: Any) -> list[Tensor]:  # networks return tensors, lists, dicts; label maps are compared too
    leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    return [leaf if leaf.is_floating_point() else leaf.double() for leaf in leaves]


@contextmanager
def _repeatable(model: nn.Module, training: bool) -> Iterator[None]:
    """Run ``model`` in a mode, without drop-out, with the same random numbers each time; its buffers come back."""
    model.train(training)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), _NoDropout():
        torch.manual_seed(0)
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


class _NoDropout(TorchFunctionMode):
    """Drop-out draws one number per channel or element, so that networks of other widths drop other things."""

    _dropouts = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout})

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in self._dropouts:
            return args[0] if args else (kwargs or {})["input"]
        if func is F.scaled_dot_product_attention:
            kwargs = {**(kwargs or {}), "dropout_p": 0.0}
        return func(*args, **(kwargs or {}))
