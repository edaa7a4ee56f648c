"""Masks over single weights: a record of what stays, and the guard that no training step can get around."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.errors import BudgetError, CheckError, InputError, PlanMismatchError
from secateur.prune.wrappers import parameters_of


@dataclass(frozen=True)
class LayerDensity:
    """How many of the weights of the parameter ``name`` are left."""

    name: str
    weights: int
    kept: int

    @property
    def density(self) -> float:
        """``kept / weights``, in [0, 1]."""
        return self.kept / self.weights


@final
@dataclass(frozen=True, eq=False)
class WeightMasks:
    """Which single weights stay.

    Attributes:
        kept: per parameter, by first qualified name, bool on the CPU and of its shape; True = keep. What is absent
            stays whole and is not counted.
        choice: how they were chosen, as text.
        asked: the compression that was asked for, weights before / weights left.
        too_small: names of layers with fewer weights than ``asked``, which keep one nevertheless.
    """

    kept: Mapping[str, Tensor]
    choice: str = ""
    asked: float = 1.0
    too_small: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = next((name for name, mask in self.kept.items() if mask.dtype is not torch.bool), None)
        if wrong is not None:
            raise InputError(f"the mask of {wrong!r} is {self.kept[wrong].dtype}; masks are bool, True = keep.")
        if self.remaining == 0:
            raise BudgetError(f"the masks leave none of {self.weights} weights; keep at least one.")

    @cached_property
    def layers(self) -> tuple[LayerDensity, ...]:
        """What is left of each parameter."""
        return tuple(
            LayerDensity(name, mask.numel(), int(torch.count_nonzero(mask))) for name, mask in self.kept.items()
        )

    @property
    def weights(self) -> int:
        """How many there were."""
        return sum(layer.weights for layer in self.layers)

    @property
    def remaining(self) -> int:
        """How many are left."""
        return sum(layer.kept for layer in self.layers)

    @property
    def compression(self) -> float:
        """``weights / remaining``, 1 or more: what was reached, of the weights that could leave."""
        return self.weights / self.remaining

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each masked parameter."""
        return {name: tuple(mask.shape) for name, mask in self.kept.items()}

    @property
    def dead(self) -> tuple[str, ...]:
        """Names of layers of which nothing is left: they give their bias, whatever they see."""
        return tuple(layer.name for layer in self.layers if layer.kept == 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for every layer that died, or that keeps one weight only because one has to stay."""
        sizes = {layer.name: layer.weights for layer in self.layers}
        died = (f"{name} died: none of its {sizes[name]} weights is left" for name in self.dead)
        small = (f"{name} keeps one of {sizes[name]}, fewer than {self.asked:g}" for name in self.too_small)
        return (*died, *small)

    def of(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The mask of one parameter.

        Raises:
            PlanMismatchError: there is none, or it has another shape.
        """
        if name not in self.kept or tuple(self.kept[name].shape) != shape:
            has = f"of shape {tuple(self.kept[name].shape)}" if name in self.kept else "none"
            raise PlanMismatchError(f"{name!r} has the shape {shape}, its mask is {has}; choose masks in this network.")
        return self.kept[name]

    def apply_(self, model: nn.Module) -> None:
        """Set to zero what has left, in ``model`` or the network that it wraps, and in its gradients.

        Raises:
            PlanMismatchError: the masks belong to another network.
        """
        for item in self._of(model):
            item.zero_()

    def check(self, model: nn.Module) -> None:
        """Raise unless every weight that has left is zero.

        Raises:
            CheckError: names the first layer with one that is not.
            PlanMismatchError: the masks belong to another network.
        """
        for name, parameter in parameters_of(model, self.shapes).items():
            gone = ~self.kept[name].to(parameter.device)
            back = int(torch.count_nonzero(parameter.detach()[gone]))
            if back:
                raise CheckError(
                    f"{back} of the {int(torch.count_nonzero(gone))} weights that left {name!r} are not zero; "
                    f"train inside `with masks.held(model, optimizer)`, and apply the masks to what was loaded."
                )

    @contextmanager
    def held(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        ema: nn.Module | Sequence[nn.Module] = (),
    ) -> Iterator[None]:
        """Apply the masks, and let nothing undo them inside the ``with`` block.

        Gradients of what has left are zeroed as they arrive, before they are clipped or scaled back, so that they
        count nowhere. Weights are zeroed after every step, exactly and whatever moved them: momentum from before,
        decay, a state that was loaded. Averages are zeroed at the start and after every step; then their own update
        mixes zeros with zeros. A step costs about as much more as two additions over the weights, and one integer
        per weight is held.

        Args:
            model: the network, or a wrapper around it such as `DistributedDataParallel`, on any device.
            optimizer: every one that trains it, Accelerate's wrapper included.
            ema: averaged copies, such as `torch.optim.swa_utils.AveragedModel`; one or several.

        Raises:
            InputError: an optimizer that holds none of the masked parameters, or one of these that requires a
                gradient and is in no optimizer: some other one may train it, and would bring back what has left.
            PlanMismatchError: the masks belong to another network, at the start or, after a removal, at a step or
                the end.
        """
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        averages = [ema] if isinstance(ema, nn.Module) else list(ema)
        own = self._of(model)
        everything = [*own, *(item for average in averages for item in self._of(average))]
        _check_optimizers(optimizers, own)

        def project(*_: Any) -> None:  # whatever the optimizer passes
            for item in everything:
                item.zero_()

        with ExitStack() as hooks:
            for item in own:
                if item.parameter.requires_grad:
                    register = item.parameter.register_post_accumulate_grad_hook
                    hooks.enter_context(register(item.zero_gradient_))  # type: ignore[no-untyped-call]
            for each in optimizers:
                inner = getattr(each, "optimizer", each)  # Accelerate's wrapper has no hooks of its own
                hooks.enter_context(inner.register_step_post_hook(project))
            project()
            yield
            project()  # what was loaded last

    def state_dict(self) -> dict[str, Tensor]:
        """The masks as tensors for a checkpoint; ``WeightMasks(state)`` holds as these do."""
        return dict(self.kept)

    def to_record(self) -> dict[str, Any]:
        """Counts as JSON values, without the masks."""
        return {
            "choice": self.choice,
            "asked_compression": self.asked,
            "compression": self.compression,
            "weights": self.weights,
            "kept": self.remaining,
            "layers": [
                {"name": layer.name, "weights": layer.weights, "kept": layer.kept, "density": layer.density}
                for layer in self.layers
            ],
            "dead": list(self.dead),
            "too_small": list(self.too_small),
        }

    def __str__(self) -> str:
        rows = [f"{layer.name:44} {layer.weights:9d} -> {layer.kept:9d}" for layer in self.layers]
        total = f"{self.choice}: {self.remaining} of {self.weights} weights, compression {self.compression:.4g}"
        return "\n".join([*rows, total, *self.warnings])

    def _of(self, model: nn.Module) -> "list[_Masked]":
        parameters = parameters_of(model, self.shapes)
        return [_Masked(name, parameter, self.kept[name]) for name, parameter in parameters.items()]


@final
class _Masked:
    """A parameter with its mask as integers of its width, all bits set where it stays.

    ``and`` with the bits of a float gives +0 where it leaves, also for a NaN and where a product would give -0, and
    is about ten times as fast as `masked_fill_`.
    """

    def __init__(self, name: str, parameter: nn.Parameter, kept: Tensor) -> None:
        self.name = name
        self.parameter = parameter
        self._bits = _bits(kept, parameter)

    def zero_(self) -> None:
        """In the values, and in the gradient if there is one."""
        self._zero_(self.parameter)
        self.zero_gradient_(self.parameter)

    def zero_gradient_(self, parameter: Tensor) -> None:
        """In the gradient of ``parameter``, which is this one, if it has any."""
        if parameter.grad is not None:
            self._zero_(parameter.grad)

    def _zero_(self, tensor: Tensor) -> None:
        if tensor.shape != self._bits.shape:
            raise PlanMismatchError(
                f"{self.name!r} has the shape {tuple(tensor.shape)} by now, its mask {tuple(self._bits.shape)}; "
                f"end `held` before channels are removed, and choose masks in the smaller network."
            )
        if self._bits.device != tensor.device or self._bits.element_size() != tensor.element_size():
            self._bits = _bits(self._bits != 0, tensor)
        tensor.detach().view(self._bits.dtype).bitwise_and_(self._bits)


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(kept: Tensor, like: Tensor) -> Tensor:
    """-1, all bits set, where ``kept``, else 0; in the width, the device and the memory format of ``like``."""
    bits = torch.empty_like(like, dtype=_INTEGERS[like.element_size()], requires_grad=False)
    return bits.copy_(kept).neg_()


def _check_optimizers(optimizers: Sequence[Optimizer], masked: "Sequence[_Masked]") -> None:
    own, trained = {id(item.parameter) for item in masked}, set[int]()
    for optimizer in optimizers:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if own.isdisjoint(map(id, held)):
            raise InputError(
                f"{type(getattr(optimizer, 'optimizer', optimizer)).__name__} holds {len(held)} parameters, none of "
                f"the {len(own)} masked ones; give the optimizer that trains this network."
            )
        trained |= set(map(id, held))
    loose = [item.name for item in masked if item.parameter.requires_grad and id(item.parameter) not in trained]
    if loose:
        raise InputError(
            f"{len(loose)} of the {len(own)} masked parameters are in no optimizer that was given, {loose[0]!r} "
            f"first; give every optimizer that trains them, or freeze them with requires_grad_(False)."
        )
