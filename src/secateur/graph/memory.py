"""Freed memory goes back to the system between steps that need blocks of other sizes."""

import ctypes
from collections.abc import Callable
from functools import cache


def release_freed_memory() -> None:
    """Give back what was freed; costs milliseconds.

    glibc keeps freed blocks of up to 32 MiB, which is most weights and activations, and cannot use them again for
    larger ones: after a few steps a process holds several times what any of them needs. Elsewhere nothing happens.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
