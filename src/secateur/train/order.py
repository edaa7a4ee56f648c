"""The order of samples, and every other draw of an epoch, from the seed and the epoch alone."""

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch; different for every pair, and independent of what ran before."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


@final
class EpochOrder(Sampler[int]):
    """A permutation of ``samples`` indices for each epoch; Accelerate's loader passes `set_epoch` on."""

    def __init__(self, samples: int, *, seed: int) -> None:
        self._samples = samples
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next iterations."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self._epoch))
        yield from torch.randperm(self._samples, generator=generator).tolist()
