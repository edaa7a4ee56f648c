"""Latencies as pages see them."""

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.records import Record
from secateur.report import rounding

_RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "torch": "PyTorch"}  # what ships first


@dataclass(frozen=True)
class Setup:
    """What a latency was measured on."""

    runtime: str
    precision: str
    threads: int
    input_shape: tuple[int, ...]

    @property
    def label(self) -> str:
        """In words, for a heading."""
        threads = f"{self.threads} thread" + "s" * (self.threads != 1)
        return f"{_RUNTIMES.get(self.runtime, self.runtime)}, {self.precision}, {threads}"


@dataclass(frozen=True)
class Timing:
    """Latency of one network on one setup; ``speedup`` is against the dense network in the same process."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    speedup: float | None
    size_bytes: int
    params: int
    macs: int


def timings_beside(dense: str, records: Sequence[Record]) -> dict[Setup, dict[str, Timing]]:
    """Latencies by setup and network, from bench records.

    Only networks that were timed in one process with the network named ``dense`` are taken; where there are
    several measurements on one setup, the latest counts. Order: OpenVINO, ONNX Runtime, PyTorch.
    """
    timings: dict[Setup, dict[str, Timing]] = {}
    for record in sorted(records, key=lambda record: str(record["created"])):
        for bench in record["benches"]:
            if dense not in {model["name"] for model in bench["models"]}:
                continue
            setup = Setup(bench["runtime"], bench["precision"], bench["threads"], tuple(bench["input_shape"]))
            speedups = {pair["pruned"]: pair["speedup"] for pair in bench["pairs"] if pair["dense"] == dense}
            for model in bench["models"]:
                name, latency = model["name"], model["latency_ms"]
                timings.setdefault(setup, {})[name] = Timing(
                    p50_ms=latency["p50"],
                    p95_ms=latency["p95"],
                    p99_ms=latency["p99"],
                    speedup=speedups.get(name),
                    size_bytes=model["size_bytes"],
                    params=model["params"],
                    macs=model["macs"],
                )
    ranks = {runtime: rank for rank, runtime in enumerate(_RUNTIMES)}
    return dict(sorted(timings.items(), key=lambda item: (ranks.get(item[0].runtime, len(ranks)), item[0].label)))


def latency_text(timing: Timing | None) -> str:
    """Median and speed-up; empty for None."""
    if timing is None:
        return ""
    speedup = "" if timing.speedup is None else f" ({rounding.times(timing.speedup)})"
    return rounding.milliseconds(timing.p50_ms) + speedup
