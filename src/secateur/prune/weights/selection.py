"""The largest of many keys: exactly as many as asked, without sorting them or holding a copy of them all.

Keys are integers, int32 or int64, 0 and up: the bits of a magnitude, or numbers drawn at random. `GONE` is what can
not be chosen. Ties go to the earlier tensor and, inside one, to the lower index, on any device and with any number of
threads, since only integers are counted.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secateur.errors import BudgetError

GONE = -1

Keys = Callable[[], Tensor]  # makes the keys of one tensor anew, so that not all need exist at once

_DIGIT = 11  # bits that one pass looks at


def largest(sources: Sequence[Keys], count: int) -> list[Tensor]:
    """Mark the ``count`` largest keys, one or more, over all ``sources`` together: bool, of the shapes of the keys.

    Raises:
        BudgetError: fewer than ``count`` keys are left to choose from.
    """
    threshold, ties = _threshold(sources, count)
    masks = []
    for source in sources:
        keys = source()
        mask, equal = keys > threshold, keys == threshold
        here = int(torch.count_nonzero(equal))
        if here > ties:
            equal &= (equal.flatten().cumsum(0) <= ties).view(equal.shape)
        masks.append(mask | equal)
        ties -= min(ties, here)
    return masks


def _threshold(sources: Sequence[Keys], count: int) -> tuple[int, int]:
    """The key of rank ``count`` from above, and how many of those equal to it are among the ``count`` largest.

    Radix selection: the histogram of the leading bits says which bin holds that rank; only its keys go on, each
    time with the bits that are left.
    """
    threshold, candidates = 0, list(sources)
    for shift in _shifts(sources[0]().dtype):
        digits = (_digits(source(), shift) for source in candidates)
        histogram = sum((torch.bincount(d, minlength=2**_DIGIT + 1).cpu() for d in digits), torch.tensor(0))
        above = histogram[1:].flip(0).cumsum(0)  # bin 0 holds what is gone
        if int(above[-1]) < count:
            raise BudgetError(f"{count} weights are to stay and {int(above[-1])} are left; ask for more compression.")
        place = int(torch.searchsorted(above, count))
        count -= int(above[place - 1]) if place else 0
        digit = len(above) - 1 - place
        threshold += digit << shift
        candidates = [_held(_inside(source(), shift, digit)) for source in candidates]
    return threshold, count


def _shifts(dtype: torch.dtype) -> Sequence[int]:
    return [*range(torch.iinfo(dtype).bits - 1 - _DIGIT, 0, -_DIGIT), 0]


def _digits(keys: Tensor, shift: int) -> Tensor:
    """The bits from ``shift`` up, plus one: 0 is what is gone."""
    return keys.flatten().bitwise_right_shift(shift) + 1


def _inside(keys: Tensor, shift: int, digit: int) -> Tensor:
    """The bits below ``shift`` of the keys whose bits from there up are ``digit``."""
    return keys[keys.bitwise_right_shift(shift) == digit] & ((1 << shift) - 1)


def _held(keys: Tensor) -> Keys:
    return lambda: keys


def largest_in_runs(keys: Tensor, n: int, m: int) -> Tensor:
    """Mark the ``n`` largest keys of every ``m`` consecutive ones along the last dimension: bool, of that shape.

    A shorter run at the end keeps ``n`` too, or all that it has.
    """
    length = keys.shape[-1]
    padded = torch.nn.functional.pad(keys, (0, -length % m), value=GONE)
    runs = padded.reshape(*keys.shape[:-1], -1, m)
    place = torch.arange(m, device=keys.device)
    rank = torch.zeros_like(runs, dtype=torch.int32)
    for i in range(m):
        one = runs[..., i : i + 1]
        rank += torch.where(place > i, one >= runs, one > runs)
    kept = (rank < n) & (runs > GONE)
    return kept.reshape(padded.shape)[..., :length]
