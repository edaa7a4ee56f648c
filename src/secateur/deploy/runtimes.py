"""Run a network on a runtime with its precision and its threads pinned: one small runner per runtime.

Runtimes choose for themselves otherwise: all take every core, and OpenVINO computes in bfloat16 where it can.
"""

from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn

from secateur.deploy.extra import import_extra
from secateur.errors import InputError
from secateur.graph.copying import safe_copy

Array = NDArray[np.float32]


class Runtime(StrEnum):
    """What executes the network."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """Number format that convolutions are computed in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@final
class Target(BaseModel):
    """A runtime and its precision; recipes may write it as ``openvino`` or ``openvino:bfloat16``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Runtime
    precision: Precision = Precision.FLOAT32

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        runtime, colon, precision = value.partition(":")
        return {"runtime": runtime, **({"precision": precision} if colon else {})}

    @model_validator(mode="after")
    def _is_possible(self) -> "Target":
        if self.runtime is Runtime.ONNXRUNTIME and self.precision is not Precision.FLOAT32:
            raise ValueError(
                f"onnxruntime computes in float32 on a CPU, not in {self.precision}; "
                f"use onnxruntime:float32 or openvino:{self.precision}"
            )
        return self

    def __str__(self) -> str:
        return f"{self.runtime}:{self.precision}"

    def versions(self) -> dict[str, str]:
        """Versions of torch, which exports the network, and of the runtime."""
        return {name: version(name) for name in dict.fromkeys((Runtime.TORCH.value, self.runtime.value))}


class Runner(Protocol):
    """A network loaded on a runtime."""

    @property
    def size_bytes(self) -> int:
        """Size of what was loaded: the ONNX file, or all parameters and buffers for torch."""

    def run(self, images: Array) -> Array:
        """Return the logits float32 ``(N, K, H, W)`` of ``images`` float32 ``(N, C, H, W)``."""


def open_runner(target: Target, *, model: nn.Module, file: Path, threads: int) -> Runner:
    """Load a network on ``target``: ``model`` itself on torch, the ONNX ``file`` on the others.

    Raises:
        InputError: the extra ``deploy`` is missing, or this machine cannot do what ``target`` asks.
    """
    match target.runtime:
        case Runtime.TORCH:
            return TorchRunner(model, precision=target.precision, threads=threads)
        case Runtime.ONNXRUNTIME:
            return OnnxRuntimeRunner(file, threads=threads)
        case Runtime.OPENVINO:
            return OpenVinoRunner(file, precision=target.precision, threads=threads)


@final
class TorchRunner:
    """Eager PyTorch on the CPU, on a copy of the network in eval mode."""

    def __init__(self, model: nn.Module, *, precision: Precision = Precision.FLOAT32, threads: int) -> None:
        self._dtype = {Precision.FLOAT32: torch.float32, Precision.BFLOAT16: torch.bfloat16}[precision]
        self._model = safe_copy(model).to("cpu", self._dtype).eval()
        self._threads = threads

    @property
    def size_bytes(self) -> int:
        """Bytes of all parameters and buffers, each once."""
        return sum(tensor.nbytes for tensor in (*self._model.parameters(), *self._model.buffers()))

    def run(self, images: Array) -> Array:
        """Return the logits; the process's thread count is as before afterwards."""
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                logits = self._model(torch.from_numpy(images).to(self._dtype))
                result: Array = logits.float().numpy()
                return result
        finally:
            torch.set_num_threads(threads_before)


@final
class OnnxRuntimeRunner:
    """ONNX Runtime on the CPU, float32."""

    def __init__(self, file: Path, *, threads: int) -> None:
        runtime = import_extra("onnxruntime")
        runtime.disable_telemetry_events()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        # Idle workers of one session would otherwise keep spinning into the run of the next network.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.size_bytes = file.stat().st_size

    def run(self, images: Array) -> Array:
        """Return the logits."""
        logits: Array = self._session.run(None, {self._input: images})[0]
        return logits


@final
class OpenVinoRunner:
    """OpenVINO on the CPU: one stream, lowest latency."""

    def __init__(self, file: Path, *, precision: Precision = Precision.FLOAT32, threads: int) -> None:
        core = import_extra("openvino").Core()
        if precision is Precision.BFLOAT16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("This machine's CPU has no bfloat16 for OpenVINO; use openvino:float32.")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16"}[precision],
        }
        network = core.compile_model(core.read_model(file), "CPU", settings)
        allowed = network.get_property("INFERENCE_NUM_THREADS")
        if allowed != threads:  # it takes fewer without a word
            raise InputError(
                f"OpenVINO uses at most {allowed} threads on this machine, {threads} were asked for; "
                f"use {allowed} or fewer."
            )
        self._request = network.create_infer_request()
        self.size_bytes = file.stat().st_size

    def run(self, images: Array) -> Array:
        """Return the logits."""
        logits: Array = self._request.infer({0: images}, share_inputs=True)[0]
        return logits
