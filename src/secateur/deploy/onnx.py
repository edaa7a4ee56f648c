"""Export a network to ONNX: weights inside the file, checked, whole or absent."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from secateur.deploy.extra import import_extra
from secateur.errors import GraphError, InputError
from secateur.graph.copying import safe_copy
from secateur.records import atomic_path

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18  # what torch's exporter writes natively: no conversion step, and every runtime of today reads it
INPUT_NAME = "image"
OUTPUT_NAME = "logits"


class Batch(StrEnum):
    """Whether an exported network takes one batch size or any; the other sizes are always fixed."""

    FIXED = "fixed"
    DYNAMIC = "dynamic"


@final
@dataclass(frozen=True)
class ExportedFile:
    """An ONNX file on disk."""

    path: Path
    batch: Batch

    @property
    def size_bytes(self) -> int:
        """Size on disk, weights included."""
        return self.path.stat().st_size


def export_onnx(model: nn.Module, example: Tensor, folder: Path) -> list[ExportedFile]:
    """Write ``model.onnx`` (batch 1) and ``model_dynamic.onnx`` (any batch) into ``folder``.

    Both map ``image`` to ``logits``, float32, at the example's channels and size, as the network does in eval
    mode. ``model`` is untouched. Nothing is written unless both exports succeed.

    Args:
        example: float ``(N, C, H, W)`` or ``(N, C, D, H, W)``; only its first sample is used.

    Raises:
        InputError: the extra ``deploy`` is missing, or the network's output is not one tensor.
        GraphError: torch cannot export the network.
    """
    one = example[:1]
    two = torch.cat([one, one])  # torch.export takes a batch of one for a constant
    graphs = {
        ExportedFile(folder / "model.onnx", Batch.FIXED): trace_onnx(model, one, Batch.FIXED),
        ExportedFile(folder / "model_dynamic.onnx", Batch.DYNAMIC): trace_onnx(model, two, Batch.DYNAMIC),
    }
    for file, graph in graphs.items():
        save_onnx(graph, file.path)
    return list(graphs)


def trace_onnx(model: nn.Module, example: Tensor, batch: Batch) -> "ModelProto":
    """Return ``model`` in eval mode as a checked ONNX graph of opset `OPSET`, at the example's shape.

    Raises:
        InputError, GraphError: as `export_onnx`.
    """
    onnx = import_extra("onnx")
    import_extra("onnxscript")
    network = safe_copy(model).to("cpu", torch.float32).eval()
    image = example.detach().to("cpu", torch.float32)
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (image,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},) if batch is Batch.DYNAMIC else None,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise GraphError(
            f"The network cannot be exported to ONNX at {tuple(image.shape)} with a {batch} batch: "
            f"{_root_cause(error)} Give an input shape that the network takes, or rewrite what is named."
        ) from error
    assert program is not None, "the exporter returns a program when no file is given"
    graph = program.model_proto
    _require_one_output(graph, batch)
    _strip_debug_notes(graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def save_onnx(graph: "ModelProto", path: Path) -> None:
    """Write an ONNX graph with its weights to ``path``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))


def _require_one_output(graph: "ModelProto", batch: Batch) -> None:
    outputs = graph.graph.output
    if len(outputs) != 1:
        raise InputError(
            f"The network returns {len(outputs)} tensors in eval mode, an exported one returns one; wrap it "
            "so that its forward returns the logits alone."
        )
    samples = outputs[0].type.tensor_type.shape.dim[0]
    if batch is Batch.DYNAMIC and not samples.dim_param:  # torch's exporter gives up the request silently
        raise GraphError(
            f"The network's forward fixes the batch to {samples.dim_value}, an exported one takes any batch; "
            "take the sizes in it from its input."
        )


def _strip_debug_notes(graph: "ModelProto") -> None:
    """Drop the exporter's notes, which hold stack traces with paths of this machine for every node."""
    body = graph.graph
    for item in (graph, body, *body.node, *body.input, *body.output, *body.value_info, *body.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _root_cause(error: BaseException) -> str:
    """First line of the exception that started the chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says about itself (no torchvision, its own deprecations)."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
