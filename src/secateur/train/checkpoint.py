"""Checkpoints: all that a stage needs to go on exactly as if it had never stopped.

No state of a random generator is stored: each epoch draws from its own seed (`order.epoch_seed`), and
checkpoints are written between epochs. The lines of ``metrics.jsonl`` are part of the checkpoint and the
file is rewritten from it, so that the two agree wherever a run is killed.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.errors import RecordError
from secateur.records import Record, atomic_path

CHECKPOINT_SCHEMA = 2  # 1 has no constraint
_READABLE = (1, 2)


@dataclass(frozen=True)
class Checkpoint:
    """A stage of training after a whole epoch.

    Attributes:
        settings: what decides the result (recipe, distillation, number of samples); another set cannot
            resume.
        epoch: epochs done.
        model: state dict after ``epoch``.
        optimizer: state dict of the optimizer (the values are torch's own).
        best_epoch: the earliest epoch with the best validation score.
        best_score: that score; higher is better.
        best_model: state dict after ``best_epoch``.
        history: one record for each epoch done, as in ``metrics.jsonl``.
        constraint: what training must not undo, such as masks over single weights, as tensors by name; another
            cannot resume.
    """

    settings: Record
    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_epoch: int
    best_score: float
    best_model: dict[str, Tensor]
    history: list[Record]
    constraint: dict[str, Tensor] = field(default_factory=dict)


def checkpoint_path(folder: Path, stage: str, epoch: int | None = None) -> Path:
    """Where in a run folder the last checkpoint of a stage is, or the one kept of that ``epoch`` for good."""
    return folder / "checkpoints" / (f"{stage}.pt" if epoch is None else f"{stage}-epoch-{epoch}.pt")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` atomically: a kill leaves the one before."""
    values = {each.name: getattr(checkpoint, each.name) for each in fields(checkpoint)}
    with atomic_path(path) as temporary:
        torch.save({"schema": CHECKPOINT_SCHEMA, **values}, temporary)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU with weights-only loading.

    Raises:
        RecordError: the file is missing or unreadable, or has another schema version.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordError(
            f"{path} is not a readable checkpoint ({reason}); delete it to train this stage from its start."
        ) from error
    found = values.pop("schema", None) if isinstance(values, dict) else None
    if found not in _READABLE:
        raise RecordError(
            f"{path} has the checkpoint schema {found!r}, this version of secateur reads "
            f"{' and '.join(map(str, _READABLE))}; resume with the version that wrote it, or delete it to train this "
            "stage from its start."
        )
    return Checkpoint(**values)


def check_resumable(
    checkpoint: Checkpoint,
    path: Path,
    *,
    settings: Record,
    model: Mapping[str, Tensor],
    constraint: Mapping[str, Tensor],
) -> None:
    """Refuse a checkpoint of other settings, of another network or under another constraint.

    Raises:
        RecordError: says every setting that differs, or the first parameter that does.
    """
    names = sorted(checkpoint.settings.keys() | settings.keys())
    pairs = [(name, checkpoint.settings.get(name), settings.get(name)) for name in names]
    changed = [f"{name} was {old!r}, now {new!r}" for name, old, new in pairs if old != new]
    if changed:
        raise RecordError(
            f"{path} was trained with other settings: {'; '.join(changed)}. Resume with the settings it "
            "began with, or train into another folder."
        )
    old_shapes = {name: tuple(value.shape) for name, value in checkpoint.model.items()}
    new_shapes = {name: tuple(value.shape) for name, value in model.items()}
    for name in [*old_shapes, *new_shapes]:
        if old_shapes.get(name) != new_shapes.get(name):
            raise RecordError(
                f"{path} was made for another network: {name!r} has the shape {old_shapes.get(name)} there "
                f"and {new_shapes.get(name)} here. Resume with the network it began with."
            )
    for name in [*checkpoint.constraint, *constraint]:
        old, new = checkpoint.constraint.get(name), constraint.get(name)
        if old is None or new is None or not torch.equal(old, new):
            raise RecordError(
                f"{path} was trained under another constraint, which differs for {name!r}, such as other masks. "
                "Resume with the one it began with, or train into another folder."
            )


def write_metrics(path: Path, history: list[Record], *, stage: str) -> None:
    """Make the lines of ``stage`` in ``metrics.jsonl`` equal ``history``; other stages' lines stay in place.

    Raises:
        RecordError: the file has a line that is not a JSON object.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        own = [json.loads(line)["stage"] == stage for line in lines]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecordError(f"{path} has a line that is no record of an epoch ({error!r}); delete the line.") from error
    start = own.index(True) if any(own) else len(lines)
    others = [line for line, mine in zip(lines, own, strict=True) if not mine]
    fresh = [json.dumps(record, allow_nan=False) for record in history]
    with atomic_path(path) as temporary:
        merged = [*others[:start], *fresh, *others[start:]]
        temporary.write_text("".join(f"{line}\n" for line in merged), encoding="utf-8")
