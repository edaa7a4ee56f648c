"""Products of activations, as in attention: matmul, einsum and what can be written as one.

What is summed over leaves as a whole: the channels of one head in queries and keys stand and fall together, and
with them the head's attention and its values. Channels summed over without heads are pinned.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from secateur.graph.labels import Channels, Labels, ParameterValue, Value, along
from secateur.graph.records import Role
from secateur.graph.rules.arithmetic import Operand, combine, meet
from secateur.graph.walk import Call

_DOTS = "ABCDEFGHIJ"


def matmul(call: Call) -> Value:
    """``x @ y`` with any number of batch dimensions; a weight on the right is a linear layer's, transposed."""
    names = call.tensors()[:2]
    (_, x_shape), (y, y_shape) = operands = [(call.value(name), call.shape(name)) for name in names]
    if isinstance(y, ParameterValue) and len(y_shape) == 2 and len(x_shape) > 1:
        call.multiplies(y, prod(x_shape[:-1]))
        call.space.unite(call.line(names[0], len(x_shape) - 1), call.slot(y, 0, Role.READ))
        return Channels(along(call.slot(y, 1, Role.WRITE), len(x_shape) - 1, len(x_shape)))
    if len(x_shape) < 2 or len(y_shape) < 2:
        return call.unknown()
    return contract(call, ["...nk", "...km"], "...nm", operands)


def batched_sum(call: Call) -> Value:
    """``baddbmm`` and ``addmm``: a product plus an input that has no channels."""
    if call.value("self") is not None:
        return call.unknown()
    names = ["batch1", "batch2"] if call.operator == "baddbmm" else ["mat1", "mat2"]
    return contract(call, ["...nk", "...km"], "...nm", [(call.value(name), call.shape(name)) for name in names])


def einsum(call: Call) -> Value:
    """Any product of two tensors in Einstein's notation with an arrow, no letter twice in one term."""
    left, arrow, output = str(call.constant("equation")).replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or any(len(set(term)) < len(term.replace("...", ".")) for term in terms):
        return call.unknown()
    operands = list(zip(call.values("tensors"), call.shapes("tensors"), strict=True))
    return contract(call, terms, output, operands)


def attention(call: Call) -> Value:
    """Scaled dot-product attention: queries by keys, a softmax over the keys, then by values."""
    query, key, value = ((call.value(name), call.shape(name)) for name in ("query", "key", "value"))
    scores = contract(call, ["...nd", "...md"], "...nm", [query, key])
    shape = (*query[1][:-1], key[1][-2])
    if "attn_mask" in call:
        operands = [(scores, shape), (call.value("attn_mask"), call.shape("attn_mask"))]
        if any(isinstance(operand, Channels) for operand, _ in operands):
            labels = combine(call, operands)
            scores = None if labels is None else Channels(labels)
    return contract(call, ["...nm", "...md"], "...nd", [(scores, shape), value])


def contract(call: Call, terms: Sequence[str], output: str, operands: Sequence[Operand]) -> Value:
    """The labels of a product of two tensors, each dimension named by a letter.

    Args:
        call: the operator.
        terms: the letters of both tensors; ``...`` stands for any number of leading dimensions.
        output: the letters of the result; those that are missing are summed over.
        operands: both tensors.
    """
    spelled = [_letters(term, len(shape)) for term, (_, shape) in zip(terms, operands, strict=True)]
    sizes: dict[str, int] = {}
    for term, (_, shape) in zip(spelled, operands, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    dots = "".join(sorted((letter for letter in sizes if letter in _DOTS), reverse=True))
    result = output.replace("...", dots)
    letters = result + "".join(letter for letter in sizes if letter not in result)
    shapes = [_aligned(shape, term, letters) for term, (_, shape) in zip(spelled, operands, strict=True)]
    found = [call.labels_of(value) for value, _ in operands]
    aligned = [
        None if labels is None else _ordered(labels, term, letters) for labels, term in zip(found, spelled, strict=True)
    ]
    summed = range(len(result), len(letters))
    labels = _product(call, aligned, shapes, summed)
    call.multiplies_activations(prod(sizes.values()), labels)
    return None if labels is None else Channels(labels.reshape(labels.shape[: len(result)]))


def _product(
    call: Call, operands: Sequence[Labels | None], shapes: Sequence[tuple[int, ...]], summed: range
) -> Labels | None:
    """Labels of the result over all letters, with size 1 along those that are summed over."""
    left: list[Labels | None] = []
    for own, other in ((0, 1), (1, 0)):
        labels, met = operands[own], operands[other]
        if labels is not None:
            unlabelled = [d for d, size in enumerate(shapes[other]) if size > 1 and (met is None or met.shape[d] == 1)]
            labels = call.mix(labels, {*unlabelled, *summed})
        left.append(labels)
    first, second = left
    if first is None or second is None:
        return second if first is None else first
    kept = [tuple(1 if d in summed else size for d, size in enumerate(shape)) for shape in shapes]
    return meet(call, (first, kept[0]), (second, kept[1]))


def _letters(term: str, rank: int) -> str:
    """``...`` written out: its last dimension is always called A, the one before it B, as broadcasting has it."""
    count = rank - len(term.replace("...", ""))
    return term.replace("...", _DOTS[:count][::-1])


def _aligned(shape: tuple[int, ...], term: str, letters: str) -> tuple[int, ...]:
    sizes = dict(zip(term, shape, strict=True))
    return tuple(sizes.get(letter, 1) for letter in letters)


def _ordered(labels: Labels, term: str, letters: str) -> Labels:
    """``labels`` with one dimension for each of ``letters``, of size 1 where ``term`` lacks it."""
    present = [term.index(letter) for letter in letters if letter in term]
    shape = _aligned(labels.shape, term, letters)
    return np.transpose(labels, present).reshape(shape)
