"""Frames per second from a decoded frame to the overlay drawn on it: one process, real frames, in turns."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.data.cases import ImageArray
from secateur.deploy.runtimes import Array, Runner, Target
from secateur.deploy.timing import (
    LEAST_ROUNDS,
    WARMUP_ROUNDS,
    BenchRecipe,
    NamedModel,
    Progress,
    exported,
    turns,
)
from secateur.errors import InputError
from secateur.records import Record

_STEPS = ("prepare", "network", "overlay")


def time_frames(
    entries: Sequence[NamedModel],
    recipe: BenchRecipe,
    *,
    frames: Sequence[ImageArray],
    prepare: Callable[[ImageArray], Array],
    overlay: Callable[[ImageArray, Array], ImageArray],
    progress: Progress | None = None,
) -> Record:
    """Measure how many frames per second several networks keep up with, on every target of ``recipe``.

    All networks of a target are loaded together and take turns on every frame (A B C, B C A, ...), as in
    `time_models`. One run goes from the decoded frame to the frame with the overlay; reading and decoding the
    video, and showing it, are not in it. Runs follow one another: nothing overlaps, as in a loop that waits for
    each frame. All three steps have the threads of ``recipe``.

    Args:
        entries: the dense network first, then the ones compared with it.
        frames: RGB, uint8 ``(H, W, 3)``, each of the recipe's ``frame_shape``. They come again and again for the
            time of ``recipe``, and each at least once.
        prepare: from a frame to the network's input, float32 ``(1, 3, S, S)``.
        overlay: from a frame and its logits, float32 ``(1, K, S, S)``, to the frame with the overlay.
        progress: called after every round with the target and the share of its time that is done.

    Returns:
        Record with the keys ``created, frame_shape`` ([H, W]), ``network_side`` (S), ``frames`` (how many
        different ones), ``threads, versions`` and ``rows``, one for each target and network: ``name, runtime,
        precision, iterations`` (frames timed, repeats included), ``ms`` (medians over these of ``prepare, network,
        overlay`` and of their sum in each frame, ``total``) and ``fps`` (1000 / ``ms.total``).

    Raises:
        InputError: no frame, one of another shape, no network, two of one name, the extra is missing, or
            the machine cannot do what is asked.
        GraphError: a network cannot be exported to ONNX.
    """
    shapes = sorted({frame.shape for frame in frames})
    if shapes != [(*recipe.frame_shape, 3)]:
        raise InputError(
            f"frames of shapes {shapes} were given, the recipe's frame_shape is {recipe.frame_shape}; give at least "
            f"one frame, all of shape {(*recipe.frame_shape, 3)}."
        )
    image = prepare(frames[0])

    def rows_on(target: Target, runners: Sequence[Runner]) -> list[Record]:
        report = None if progress is None else lambda share: progress(target, share)
        with _torch_threads(recipe.threads):
            nanoseconds = interleave_frames(
                runners, frames, prepare=prepare, overlay=overlay, seconds=recipe.seconds, progress=report
            )
        return [_row(entry.name, target, nanoseconds[:, place]) for place, entry in enumerate(entries)]

    with exported(entries, recipe, image) as open_on:
        rows = [row for target in recipe.targets for row in rows_on(target, open_on(target))]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "frame_shape": list(recipe.frame_shape),
        "network_side": image.shape[-1],
        "frames": len(frames),
        "threads": recipe.threads,
        "versions": {name: number for target in recipe.targets for name, number in target.versions().items()},
        "rows": rows,
    }


def interleave_frames(
    runners: Sequence[Runner],
    frames: Sequence[ImageArray],
    *,
    prepare: Callable[[ImageArray], Array],
    overlay: Callable[[ImageArray, Array], ImageArray],
    seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.int64]:
    """Run all runners in turns, all on one frame in a round, and return the nanoseconds of every step.

    Args:
        seconds: after `WARMUP_ROUNDS` that are not counted, rounds go on for this time, but at least
            `LEAST_ROUNDS` and until every frame was seen.
        clock: nanoseconds that only go forward.
        progress: called after every round with the share done, in (0, 1].

    Returns:
        int64 ``(rounds, runners, 3)``: prepare, network, overlay.
    """

    def readings(runner: Runner, frame: ImageArray) -> list[int]:
        start = clock()
        image = prepare(frame)
        prepared = clock()
        logits = runner.run(image)
        answered = clock()
        overlay(frame, logits)
        return [start, prepared, answered, clock()]

    for number in range(WARMUP_ROUNDS):
        for runner in runners:
            readings(runner, frames[number % len(frames)])
    rounds: list[list[list[int]]] = []
    least = max(LEAST_ROUNDS, len(frames))
    for order in turns(len(runners), seconds=seconds, least=least, clock=clock, progress=progress):
        frame = frames[len(rounds) % len(frames)]
        taken = {place: readings(runners[place], frame) for place in order}
        rounds.append([taken[place] for place in range(len(runners))])
    clocked = np.array(rounds, dtype=np.int64)
    return clocked[..., 1:] - clocked[..., :-1]


def _row(name: str, target: Target, nanoseconds: NDArray[np.int64]) -> Record:
    """One network on one target, from its nanoseconds ``(rounds, 3)``."""
    steps = np.median(nanoseconds, axis=0) / 1e6
    total = float(np.median(nanoseconds.sum(axis=1)) / 1e6)
    return {
        "name": name,
        "runtime": target.runtime.value,
        "precision": target.precision.value,
        "iterations": len(nanoseconds),
        "fps": 1000 / total,
        "ms": {**dict(zip(_STEPS, steps.tolist(), strict=True)), "total": total},
    }


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Let torch's own operators, which prepare and overlay may use, have ``threads``; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
