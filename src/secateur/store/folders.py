"""Folders that are whole or absent, for what is written in one go."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import InputError
from secateur.store.runs import RunFolder


def require_free(path: Path, *, overwrite: bool) -> None:
    """Raise unless a run may be written to ``path``; to be called before the work that ends there.

    Raises:
        InputError: something is there, and ``overwrite`` is False.
        RecordError: something is there that is no run folder, which is never overwritten.
    """
    run = RunFolder(path)
    if not run.is_taken():
        return
    if not overwrite:
        raise InputError(f"{path} exists; give another --out, or --overwrite to take its place.")
    run.check()


@contextmanager
def whole_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an exception.

    Killed at any moment, ``path`` is what it was before, absent, or whole.

    Args:
        path: parents are made where they are missing.
        overwrite: a run folder may be there, and goes.

    Raises:
        InputError, RecordError: see `require_free`.
    """
    require_free(path, overwrite=overwrite)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, earlier = (path.with_name(f".{path.name}.{kind}.part") for kind in ("new", "old"))
    for stale in (temporary, earlier):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(earlier)
        temporary.rename(path)
    finally:
        for left in (temporary, earlier):
            shutil.rmtree(left, ignore_errors=True)
