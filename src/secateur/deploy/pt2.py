"""Export a network to a ``.pt2`` file: the program and its weights, which PyTorch runs without secateur."""

from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from secateur.deploy.onnx import Batch, ExportedFile
from secateur.deploy.runtimes import Array
from secateur.errors import GraphError
from secateur.graph.capture import quiet_export
from secateur.graph.copying import safe_copy
from secateur.records import atomic_path

SUFFIX = ".pt2"


def export_pt2(model: nn.Module, example: Tensor, folder: Path) -> ExportedFile:
    """Write ``model.pt2`` into ``folder``: ``torch.export.load(path).module()(image)`` runs it anywhere PyTorch does.

    It takes any batch, at the example's channels and size, in float32, as the network does in eval mode; where the
    network's forward fixes the batch, it takes one sample. ``model`` is untouched.

    Args:
        example: float ``(N, C, *space)``, of which only the shape is used: the file holds no image.

    Raises:
        GraphError: torch cannot export the network, such as one whose control flow depends on values.
    """
    network = safe_copy(model).to("cpu", torch.float32).eval()
    one = torch.zeros(1, *example.shape[1:])
    two = torch.cat([one, one])  # torch.export takes a batch of one for a constant
    batch = Batch.DYNAMIC
    with quiet_export(), torch.no_grad():
        try:
            program = torch.export.export(network, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        except Exception:  # export raises many kinds
            batch = Batch.FIXED
            try:
                program = torch.export.export(network, (one,))
            except Exception as error:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise GraphError(
                    f"The network cannot be exported to {SUFFIX} at {tuple(one.shape)}: {reason} "
                    "Give an input shape that the network takes, or rewrite what is named."
                ) from error
    _strip_stack_traces(program)
    file = ExportedFile(folder / f"model{SUFFIX}", batch)
    with atomic_path(file.path) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream)
    return file


def _strip_stack_traces(program: ExportedProgram) -> None:
    """Drop what names paths of this machine for every node."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)


@final
class ProgramRunner:
    """A ``.pt2`` file on the CPU, float32."""

    def __init__(self, file: Path, *, threads: int) -> None:
        self._program = torch.export.load(file).module()
        self._threads = threads
        self.size_bytes = file.stat().st_size

    def run(self, images: Array) -> Array:
        """Return the logits; the process's thread count is as before afterwards."""
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                logits: Array = np.asarray(self._program(torch.from_numpy(images)).float())
                return logits
        finally:
            torch.set_num_threads(threads_before)
