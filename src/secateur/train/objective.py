"""What is minimised: the task loss over one or several heads, and the agreement with a teacher."""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from secateur.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits (N, K, ...), target (N, 1 or K, ...))`` -> float ``(N,)``; no coupling between samples."""


class Agreement(Protocol):
    """How far a student's answer is from its teacher's."""

    def __call__(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """``(N, K, ...)`` twice -> ``(N,)``; zero when equal."""


def heads(output: object, target: Tensor) -> list[Tensor]:
    """Return the logits of each head in float32, the main one first.

    A network with deep supervision returns in train mode either a list or tuple of tensors or, like MONAI's
    DynUNet, one tensor ``(N, heads, K, ...)`` with one dimension more than ``target`` ``(N, 1, ...)``.

    Raises:
        InputError: an output that is none of these, or a head that has another size than the target.
    """
    if isinstance(output, Tensor) and output.ndim == target.ndim + 1:
        found: list[object] = list(output.unbind(1))
    else:
        found = list(output) if isinstance(output, list | tuple) else [output]
    logits = [head.float() for head in found if isinstance(head, Tensor)]
    if not logits or len(logits) != len(found):
        raise InputError(
            f"The network returns a {type(output).__name__}; training needs a tensor of logits, or a list or "
            "tuple of them with the main head first. Wrap the network so that it returns one."
        )
    for head in logits:
        if head.ndim != target.ndim or head.shape[2:] != target.shape[2:] or len(head) != len(target):
            raise InputError(
                f"A head of the network has the shape {tuple(head.shape)}, the mask {tuple(target.shape)}; "
                "every head must have the mask's samples and size. Resize the head inside the network."
            )
    return logits


def task_loss(logits: list[Tensor], target: Tensor, *, loss: Loss) -> Tensor:
    """Return the mean ``(N,)`` of ``loss`` over the heads, head k weighted with 0.5 ** k.

    The halving weights, scaled to the sum one, are nnU-Net's (Isensee et al. 2021); here the last head counts
    too, because the networks served here have already left the coarsest out.

    Raises:
        InputError: the loss does not return one value per sample.
    """
    total = torch.zeros(len(target), device=target.device)
    for k, head in enumerate(logits):
        values = loss(head, target)
        if values.shape != (len(target),):
            raise InputError(
                f"The loss returns the shape {tuple(values.shape)} for {len(target)} samples; it must return "
                f"one value per sample, ({len(target)},). Average over the pixels of each sample only."
            )
        total = total + 0.5**k * values
    return total / (2 - 0.5 ** (len(logits) - 1))


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return per sample ``(N,)`` how far the student's softened answer is from the teacher's; zero when
    equal.

    The Kullback-Leibler divergence KL(teacher || student) at temperature T, averaged over positions, times T
    squared so that its gradient does not shrink with T (Hinton, Vinyals & Dean 2015, section 2). One channel
    is a sigmoid: binary cross-entropy with the teacher's probability, less the teacher's entropy, which has
    no gradient. More channels are a softmax over classes.

    Args:
        student: logits ``(N, K, ...)``.
        teacher: logits of the same shape; no gradient flows into them.
        temperature: T, positive.

    Raises:
        InputError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"The network gives logits of the shape {tuple(student.shape)}, the teacher "
            f"{tuple(teacher.shape)}; distillation needs the same. Give the dense network of the same task."
        )
    student, teacher = student / temperature, teacher.detach() / temperature
    if student.shape[1] == 1:  # a sigmoid is a softmax over (z, 0)
        student = torch.cat((student, torch.zeros_like(student)), dim=1)
        teacher = torch.cat((teacher, torch.zeros_like(teacher)), dim=1)
    divergence = F.kl_div(
        F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1), reduction="none", log_target=True
    )
    return divergence.sum(dim=1).flatten(1).mean(dim=1) * temperature**2
