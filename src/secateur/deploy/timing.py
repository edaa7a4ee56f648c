"""Latency of networks side by side: one process, one runtime, one input, in turns."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import nn

from secateur.deploy.extra import require_extra
from secateur.deploy.onnx import Batch, save_onnx, trace_onnx
from secateur.deploy.runtimes import Array, Runner, Runtime, Target, open_runner
from secateur.errors import InputError
from secateur.records import Record

WARMUP_ROUNDS = 5  # the first runs allocate memory and choose kernels
LEAST_ROUNDS = 20  # below, p95 is the slowest run

Progress = Callable[[Target, float], None]


def _default_threads() -> int:
    """Threads that torch would take on this machine, but at most 8: one frame hardly uses more."""
    return min(8, torch.get_num_threads())


class BenchRecipe(BaseModel):
    """How latency is measured.

    Attributes:
        targets: runtimes with their precision; eager PyTorch is there for comparison, the others ship.
        threads: threads of every runtime.
        seconds: measuring time per target, shared by all networks; at least 20 rounds are run.
        frame_shape: rows and columns of the decoded frames in `secateur.deploy.frames`; many endoscopes give
            1280x1024 pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    targets: tuple[Target, ...] = Field(tuple(Target(runtime=runtime) for runtime in Runtime), min_length=1)
    threads: int = Field(default_factory=_default_threads, ge=1)
    seconds: float = Field(10.0, ge=0)
    frame_shape: tuple[PositiveInt, PositiveInt] = (1024, 1280)


def require_packages(targets: Sequence[Target]) -> None:
    """See that all that ``targets`` need is installed.

    Raises:
        InputError: a package of the extra ``deploy`` is missing.
    """
    for target in targets:
        if target.runtime is not Runtime.TORCH:
            require_extra("onnx", "onnxscript", target.runtime.value)


@final
@dataclass(frozen=True)
class NamedModel:
    """A network with its name, its number of parameters and its multiply-adds of one sample of the input."""

    name: str
    model: nn.Module
    params: int
    macs: int


def time_models(
    entries: Sequence[NamedModel],
    recipe: BenchRecipe,
    *,
    input_shape: Sequence[int],
    seed: int = 0,
    progress: Progress | None = None,
) -> Record:
    """Measure the latency of several networks on every target of ``recipe``.

    All networks of a target are loaded together and run in turns (A B C, B C A, ...), so that a change of the
    machine's speed meets all alike. One run goes from a NumPy array to a NumPy array.

    Args:
        entries: the dense network first, then the ones compared with it.
        input_shape: ``(N, C, H, W)`` of the input, which is Gaussian noise drawn with ``seed``.
        progress: called after every round with the target and the share of its time that is done.

    Returns:
        Record with the keys ``created`` and ``benches``. A bench has ``runtime, precision, threads,
        input_shape, iterations, versions``, ``models`` (``name, params, macs, size_bytes`` and ``latency_ms``
        with ``p50, p95, p99``, interpolated linearly) and ``pairs``, one for each network after the first:
        ``dense, pruned, speedup`` (ratio of the two p50) and ``macs_compression``.

    Raises:
        InputError: no network, two of one name, the extra is missing, or the machine cannot do what is asked.
        GraphError: a network cannot be exported to ONNX.
    """
    image: Array = np.random.default_rng(seed).standard_normal(tuple(input_shape), dtype=np.float32)
    with exported(entries, recipe, image) as open_on:
        benches = [
            _time_on(target, entries, open_on(target), image=image, recipe=recipe, progress=progress)
            for target in recipe.targets
        ]
    return {"created": datetime.now(UTC).isoformat(timespec="seconds"), "benches": benches}


@contextmanager
def exported(
    entries: Sequence[NamedModel], recipe: BenchRecipe, image: Array
) -> Iterator[Callable[[Target], list[Runner]]]:
    """Export the networks where a target of ``recipe`` needs it, and yield what loads them all on a target.

    The files are gone when the block ends. Inputs have the shape of ``image``.

    Raises:
        InputError: no network, two of one name, the extra is missing, or the machine cannot do what is asked.
        GraphError: a network cannot be exported to ONNX.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise InputError(f"Networks named {names} were given; give at least one, each with its own name.")
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.onnx" for place in range(len(entries))]
        if any(target.runtime is not Runtime.TORCH for target in recipe.targets):
            for entry, file in zip(entries, files, strict=True):
                save_onnx(trace_onnx(entry.model, torch.from_numpy(image), Batch.FIXED), file)
        yield lambda target: [
            open_runner(target, model=entry.model, file=file, threads=recipe.threads)
            for entry, file in zip(entries, files, strict=True)
        ]


def _time_on(
    target: Target,
    entries: Sequence[NamedModel],
    runners: Sequence[Runner],
    *,
    image: Array,
    recipe: BenchRecipe,
    progress: Progress | None,
) -> Record:
    """One bench: all networks on one target."""
    report = None if progress is None else lambda share: progress(target, share)
    nanoseconds = interleave(runners, image, seconds=recipe.seconds, progress=report)
    percentiles = np.percentile(nanoseconds / 1e6, (50, 95, 99), axis=0)
    models = [
        {
            "name": entry.name,
            "params": entry.params,
            "macs": entry.macs,
            "size_bytes": runner.size_bytes,
            "latency_ms": dict(zip(("p50", "p95", "p99"), percentiles[:, place].tolist(), strict=True)),
        }
        for place, (entry, runner) in enumerate(zip(entries, runners, strict=True))
    ]
    dense = entries[0]
    pairs = [
        {
            "dense": dense.name,
            "pruned": entry.name,
            "speedup": float(percentiles[0, 0] / percentiles[0, place]),
            "macs_compression": dense.macs / entry.macs,
        }
        for place, entry in enumerate(entries[1:], start=1)
    ]
    return {
        "runtime": target.runtime.value,
        "precision": target.precision.value,
        "threads": recipe.threads,
        "input_shape": list(image.shape),
        "iterations": len(nanoseconds),
        "versions": target.versions(),
        "models": models,
        "pairs": pairs,
    }


def interleave(
    runners: Sequence[Runner],
    image: Array,
    *,
    seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.int64]:
    """Run all runners in turns and return the nanoseconds of every run, ``(rounds, runners)``.

    Each round starts one runner later than the one before. After `WARMUP_ROUNDS` that are not counted, rounds
    go on for ``seconds``, but at least `LEAST_ROUNDS`.

    Args:
        clock: nanoseconds that only go forward.
        progress: called after every round with the share done, in (0, 1].
    """
    for _ in range(WARMUP_ROUNDS):
        for runner in runners:
            runner.run(image)
    rounds: list[list[int]] = []
    for order in turns(len(runners), seconds=seconds, clock=clock, progress=progress):
        durations = [0] * len(runners)
        for place in order:
            before = clock()
            runners[place].run(image)
            durations[place] = clock() - before
        rounds.append(durations)
    return np.array(rounds, dtype=np.int64)


def turns(
    count: int,
    *,
    seconds: float,
    least: int = LEAST_ROUNDS,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[float], None] | None = None,
) -> Iterator[list[int]]:
    """Yield for every round the order in which ``count`` runners run: 0 1 2, then 1 2 0, then 2 0 1, ...

    Args:
        seconds: rounds begin until this time is over, but at least ``least`` do.
        clock: nanoseconds that only go forward.
        progress: called after every round with the share done, in (0, 1].
    """
    budget = seconds * 1e9
    start = clock()
    done = 0
    while done < least or clock() - start < budget:
        yield [(done + turn) % count for turn in range(count)]
        done += 1
        if progress is not None:
            share_of_time = (clock() - start) / budget if budget else 1.0
            progress(min(1.0, share_of_time, done / least))
