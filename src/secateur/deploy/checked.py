"""Export a network and keep only files that say what PyTorch says."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.deploy.onnx import ExportedFile, export_onnx
from secateur.deploy.parity import Labels, check_parity, classes, require_parity
from secateur.deploy.pt2 import export_pt2
from secateur.deploy.runtimes import Array
from secateur.errors import InputError
from secateur.records import Record, write_record

FORMATS: Mapping[str, Callable[[nn.Module, Tensor, Path], Sequence[ExportedFile]]] = {
    "onnx": export_onnx,  # for ONNX Runtime and OpenVINO
    "pt2": lambda model, image, folder: [export_pt2(model, image, folder)],  # for PyTorch, without secateur
}
PARITY = "parity.json"


def export_checked(
    model: nn.Module,
    inputs: Sequence[Tensor],
    folder: Path,
    *,
    formats: Sequence[str],
    threads: int,
    labels: Callable[[Array], Labels] = classes,
    facts: Record | None = None,
) -> Record:
    """Write ``model`` into ``folder`` in each of ``formats`` and compare every file with PyTorch on ``inputs``.

    Files of an earlier export go when this one is through; the record ``parity.json`` is written last, so that files
    without it were not checked. An export that fails leaves the folder as it was.

    Args:
        inputs: per case a float ``(1, C, *space)``, all of one size, which becomes the files' size.
        formats: names in `FORMATS`.
        threads: of every runtime.
        labels: see `check_parity`.
        facts: added to the record, such as what the inputs are.

    Returns:
        The record of `check_parity`, with ``facts``.

    Raises:
        InputError: an unknown format, a missing extra, or a network that does not return one tensor.
        GraphError: torch cannot export the network.
        ParityError: a file differs from PyTorch; its record stays, the files do not.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        raise InputError(f"there is no export format {', '.join(sorted(unknown))!r}; give one of {', '.join(FORMATS)}.")
    _require_one_tensor(model, inputs[0])
    fresh = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
    try:
        files = [file for name in dict.fromkeys(formats) for file in FORMATS[name](model, inputs[0], fresh)]
        record = {**check_parity(model, files, inputs, threads=threads, labels=labels), **(facts or {})}
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in (folder / PARITY, *folder.glob("model*")):
            earlier.unlink(missing_ok=True)
        for file in files if record["passed"] else ():
            file.path.replace(folder / file.path.name)
        write_record(folder / PARITY, record)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    require_parity(record)
    return record


def _require_one_tensor(model: nn.Module, example: Tensor) -> None:
    training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(example)
    finally:
        model.train(training)
    if not isinstance(output, Tensor):
        raise InputError(
            f"the network returns a {type(output).__name__} in eval mode, an exported one returns one tensor; wrap it "
            f"so that its forward returns the logits alone."
        )
