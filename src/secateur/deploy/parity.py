"""Does an exported network say what PyTorch says? Checked on real cases, on every runtime that ships."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.deploy.onnx import Batch, ExportedFile
from secateur.deploy.pt2 import SUFFIX, ProgramRunner
from secateur.deploy.runtimes import Array, Runner, Runtime, Target, TorchRunner, open_runner
from secateur.errors import InputError, ParityError
from secateur.metrics.overlap import overlap
from secateur.records import Record

# Largest difference allowed, as a share of the largest logit over all cases; chosen between what float32 and bfloat16
# were measured to do to MONAI's U-Nets on colonoscopy frames. The runtimes' instance norms sum a whole map in plain
# float32: at 352x352 ONNX Runtime is off by up to 1.5e-4 and OpenVINO by up to 9e-4 (PyTorch itself by 2e-6; on small
# maps all are below 1e-5). bfloat16 is off by 5e-3 to 5e-2, a wrong operator or weight usually by more.
RELATIVE_TOLERANCE = 2e-3

SHIPPING = (Target(runtime=Runtime.ONNXRUNTIME), Target(runtime=Runtime.OPENVINO))
_SEVERAL = 3  # batch size that a dynamic file is tried with, besides 1

Labels = NDArray[Any]  # bool for one class, integers for several


def classes(output: Array) -> Labels:
    """Class of every pixel ``(H, W)`` of logits ``(1, K, H, W)``: above 0 for one channel, else the largest."""
    labels: Labels = output[0, 0] > 0 if output.shape[1] == 1 else output[0].argmax(axis=0)
    return labels


def check_parity(
    model: nn.Module,
    files: Sequence[ExportedFile],
    inputs: Sequence[Tensor],
    targets: Sequence[Labels] | None = None,
    *,
    threads: int,
    labels: Callable[[Array], Labels] = classes,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Compare every exported file with eager PyTorch, in float32: ONNX on ONNX Runtime and OpenVINO, ``.pt2`` on torch.

    A file passes on a runtime if no logit of any case differs by more than `RELATIVE_TOLERANCE` times the
    largest absolute logit of PyTorch over all cases. A mask can then change only where PyTorch's own decision
    hangs on a difference that small. A file with a dynamic batch runs the first case alone, then all cases in
    batches of three, the last batch filled up from the first case on.

    Args:
        inputs: per case a float ``(1, C, H, W)``, preprocessed as for the network, all of one size.
        targets: per case the truth ``(H, W)``, bool for one class, integer classes for K classes. Without it,
            Dice is taken between the two predictions.
        labels: what the network's answer ``(1, K, H, W)`` for a case says of every pixel, ``(H, W)``.
        progress: called with the number of rows done and of all rows (one per file and runtime).

    Returns:
        Record with the keys ``passed``, ``cases`` (how many), ``runtimes`` and ``files`` (``name, size_bytes,
        batch``). ``runtimes`` has per file and runtime the keys ``runtime, precision, file, max_abs_diff``
        (of logits; null if the runtime returned one that is not finite)``, flipped_pixels, pixels`` (over all
        runs, by ``labels``)``, max_dice_diff`` (largest change of a case's Dice, for K classes the mean over
        classes 1 to K - 1)``, tolerance`` (absolute)``, passed``.

    Raises:
        InputError: no cases, cases of different sizes, or targets that do not fit them.
        ParityError: a runtime cannot run a file, or PyTorch's own logits are not finite.
    """
    _require_one_size(inputs, targets)
    torch_runner = TorchRunner(model, threads=threads)
    images: list[Array] = [image.detach().cpu().float().numpy() for image in inputs]
    expected = [torch_runner.run(image) for image in images]
    if not all(np.isfinite(logits).all() for logits in expected):
        raise ParityError("The network's logits are not finite in PyTorch, so nothing can be compared; train it again.")
    reference = _Reference(model, images, expected, targets, threads, labels)
    rows: list[Record] = []
    pairs = [(file, target) for file in files for target in _targets(file)]
    for file, target in pairs:
        rows.append(_compare(file, target, reference))
        if progress is not None:
            progress(len(rows), len(pairs))
    return {
        "passed": all(row["passed"] for row in rows),
        "cases": len(images),
        "runtimes": rows,
        "files": [{"name": file.path.name, "size_bytes": file.size_bytes, "batch": file.batch.value} for file in files],
    }


def require_parity(record: Record) -> None:
    """Raise `ParityError`, naming the worst file, unless the record of `check_parity` passed."""
    failed = [row for row in record["runtimes"] if not row["passed"]]
    if not failed:
        return
    worst = max(failed, key=lambda row: np.inf if row["max_abs_diff"] is None else row["max_abs_diff"])
    found = "not finite" if worst["max_abs_diff"] is None else f"off by {worst['max_abs_diff']:.3g}"
    raise ParityError(
        f"{len(failed)} of {len(record['runtimes'])} checks of exported networks failed. Worst: "
        f"{worst['file']} on {worst['runtime']}, a logit is {found} (at most {worst['tolerance']:.3g} is "
        f"allowed), {worst['flipped_pixels']} of {worst['pixels']} pixels flipped. Do not ship it; export "
        "again with the versions of constraints.txt."
    )


@final
@dataclass(frozen=True)
class _Reference:
    """The cases, and what PyTorch makes of them."""

    model: nn.Module
    images: Sequence[Array]
    logits: Sequence[Array]
    targets: Sequence[Labels] | None
    threads: int
    labels: Callable[[Array], Labels]

    @property
    def tolerance(self) -> float:
        return RELATIVE_TOLERANCE * max(float(np.abs(logits).max()) for logits in self.logits)

    def batches(self, batch: Batch) -> list[list[int]]:
        """Case numbers of every run."""
        count = len(self.images)
        if batch is Batch.FIXED:
            return [[case] for case in range(count)]
        starts = range(0, count, _SEVERAL)
        return [[0], *([(start + place) % count for place in range(_SEVERAL)] for start in starts)]


def _compare(file: ExportedFile, target: Target, reference: _Reference) -> Record:
    """One row of the record: one file on one runtime."""
    largest, flipped, pixels, dice_diff = 0.0, 0, 0, 0.0
    for case, logits in _run(file, target, reference):
        expected = reference.logits[case]
        finite = bool(np.isfinite(logits).all())
        largest = max(largest, float(np.abs(logits - expected).max()) if finite else np.inf)
        found, wanted = reference.labels(logits), reference.labels(expected)
        flipped += int(np.count_nonzero(found != wanted))
        pixels += found.size
        truth = wanted if reference.targets is None else reference.targets[case]
        count = 2 if found.dtype == bool else logits.shape[1]
        dice_diff = max(dice_diff, abs(_dice(found, truth, count) - _dice(wanted, truth, count)))
    return {
        "runtime": target.runtime.value,
        "precision": target.precision.value,
        "file": file.path.name,
        "max_abs_diff": largest if np.isfinite(largest) else None,
        "flipped_pixels": flipped,
        "pixels": pixels,
        "max_dice_diff": dice_diff,
        "tolerance": reference.tolerance,
        "passed": largest <= reference.tolerance,
    }


def _run(file: ExportedFile, target: Target, reference: _Reference) -> list[tuple[int, Array]]:
    """The case number and the logits ``(1, K, H, W)`` of every sample that was run."""
    results: list[tuple[int, Array]] = []
    try:
        runner = _open(file, target, reference)
        for cases in reference.batches(file.batch):
            logits = runner.run(np.concatenate([reference.images[case] for case in cases]))
            results += zip(cases, np.split(logits, len(cases)), strict=True)
    except InputError:
        raise
    except Exception as error:  # the runtimes' own exceptions have no common base
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ParityError(
            f"{target.runtime} cannot run {file.path.name}: {reason} Give cases of the size it was exported "
            "for, and export with the versions of constraints.txt."
        ) from error
    return results


def _targets(file: ExportedFile) -> tuple[Target, ...]:
    """What a file is run on."""
    return (Target(runtime=Runtime.TORCH),) if file.path.suffix == SUFFIX else SHIPPING


def _open(file: ExportedFile, target: Target, reference: _Reference) -> Runner:
    if target.runtime is Runtime.TORCH:  # the file's program, not the network itself
        return ProgramRunner(file.path, threads=reference.threads)
    return open_runner(target, model=reference.model, file=file.path, threads=reference.threads)


def _dice(labels: Labels, truth: Labels, count: int) -> float:
    """Mean Dice over the foreground classes, of ``count`` with the background."""
    return float(np.mean([overlap(labels == k, truth == k).dice for k in range(1, count)]))


def _require_one_size(inputs: Sequence[Tensor], targets: Sequence[Labels] | None) -> None:
    shapes = sorted({tuple(image.shape) for image in inputs})
    if len(shapes) != 1 or shapes[0][0] != 1:
        raise InputError(
            f"{len(inputs)} cases of the shapes {shapes} were given; give one or more, each (1, C, H, W), "
            "all of one size."
        )
    if targets is None:
        return
    sizes = sorted({target.shape for target in targets})
    if len(targets) != len(inputs) or sizes != [shapes[0][2:]]:
        raise InputError(
            f"{len(inputs)} cases of size {shapes[0][2:]} and {len(targets)} targets of the sizes {sizes} "
            "were given; give one target per case, of its size."
        )
