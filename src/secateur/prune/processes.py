"""Several processes under torch.distributed: each sees its own batches, and all score, plan and remove the same."""

from collections.abc import Callable
from typing import TypeVar

from torch import distributed as dist

from secateur.errors import SecateurError

T = TypeVar("T")


def in_every_process(work: Callable[[], T]) -> list[T]:
    """Do ``work`` in every process and return what all of them made of it, by rank: the same list everywhere.

    Every process of the default group has to call this; without one, or alone in it, the list is ``[work()]``.

    Args:
        work: returns something that can be pickled.

    Raises:
        SecateurError: what ``work`` raised, here or in another process, so that none is left waiting for the others.
    """
    if _processes() == 1:
        return [work()]
    outcome: T | SecateurError
    try:
        outcome = work()
    except SecateurError as error:
        outcome = error
    outcomes: list[T | SecateurError] = [outcome] * _processes()
    dist.all_gather_object(outcomes, outcome)
    if isinstance(outcome, SecateurError):
        raise outcome
    results: list[T] = []
    for rank, other in enumerate(outcomes):
        if isinstance(other, SecateurError):
            raise type(other)(f"process {rank} of {len(outcomes)}: {other}")
        results.append(other)
    return results


def number_among_all(sample: int) -> int:
    """The number, over all processes, of this one's ``sample``: dealt in turn, as ``DistributedSampler`` does."""
    return sample if _processes() == 1 else sample * _processes() + dist.get_rank()


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
