"""Speed and memory of the engine, and latency of what it leaves: writes one JSON record.

    python benchmarks/speed.py benchmarks/records/speed.json
    python benchmarks/speed.py benchmarks/records/latency.json "22.7 GMACs"    # latency alone, of the networks named

Untrained networks: latency and scoring cost depend on widths, not on weights. Run it when nothing else runs, on a
CPU that computes in bfloat16.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from measuring import peak_mib, reset_peak_mib
from torch.nn import functional as F

import secateur as sc
from secateur.cost.macs import count_macs, count_params
from secateur.deploy.timing import BenchRecipe, NamedModel, time_models
from secateur.nets.reference import monai_unet
from secateur.records import write_record
from secateur.store.runs import surroundings

_SIDE = 352
_WIDTHS = {"5.7 GMACs": 32, "22.7 GMACs": 64}
_ROUNDS = 5
_KEEP_RATIOS = (0.5, 0.25, 0.1, 0.05)
_TARGETS = ("torch", "onnxruntime", "openvino", "openvino:bfloat16")


def loss(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))


def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 192, 192, generator=generator), torch.rand(4, 1, 192, 192, generator=generator).round())
        for _ in range(2)
    ]


def forward_backward(model, evidence):
    for images, target in evidence:
        loss(model(images), target).mean().backward()


def score(model, graph, evidence):
    sc.TaylorFirstOrder().score(model, graph, sc.Evidence(evidence, loss))


def scoring_seconds():
    """Scoring and a plain forward + backward over the same batches, in turns; the median of each."""
    model = monai_unet(32).build().eval()
    graph = sc.trace(model, torch.zeros(1, 3, 192, 192))
    evidence = batches()
    plain, scoring = [], []
    for _ in range(_ROUNDS + 1):
        for times, work in (
            (plain, lambda: forward_backward(model, evidence)),
            (scoring, lambda: score(model, graph, evidence)),
        ):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    plain_s, scoring_s = statistics.median(plain[1:]), statistics.median(scoring[1:])
    return {"plain_s": plain_s, "scoring_s": scoring_s, "scoring_over_plain": scoring_s / plain_s}


def added_mib(kind):
    """Peak memory of a process that does one of the two, above what it holds before: run as a child of its own."""
    model = monai_unet(32).build().eval()
    graph = sc.trace(model, torch.zeros(1, 3, 192, 192))
    evidence = batches()
    forward_backward(model, [(images[:1, :, :32, :32], target[:1, :, :32, :32]) for images, target in evidence])
    model.zero_grad()
    before = reset_peak_mib()
    forward_backward(model, evidence) if kind == "plain" else score(model, graph, evidence)
    return peak_mib() - before


def scoring_memory():
    peaks = {
        kind: float(subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True).stdout)
        for kind in ("plain", "scoring")
    }
    return {"plain_mib": peaks["plain"], "scoring_mib": peaks["scoring"], "ratio": peaks["scoring"] / peaks["plain"]}


def engine_seconds():
    """Trace with trial, allocate, remove with proof, for one network."""
    model = monai_unet(32).build()
    started = time.perf_counter()
    graph = sc.trace(model, torch.zeros(1, 3, _SIDE, _SIDE))
    traced = time.perf_counter()
    plan = sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(0.1), round_to=8, min_channels=8)
    allocated = time.perf_counter()
    sc.remove(model, graph, plan)
    removed = time.perf_counter()
    return {"trace_s": traced - started, "allocate_s": allocated - traced, "remove_and_prove_s": removed - allocated}


def latency(width, *, targets=_TARGETS, seconds=20.0):
    """Dense, uniform width, L2 and Taylor at every budget; Taylor on batches of noise, untrained weights."""
    torch.manual_seed(0)
    example = torch.zeros(1, 3, _SIDE, _SIDE)
    model = monai_unet(width).build().eval()
    graph = sc.trace(model, example)
    evidence = sc.Evidence(batches(), loss)
    entries = [NamedModel("dense", model, count_params(model), count_macs(model, example))]
    for criterion in (sc.UniformWidth(), sc.L2Norm(), sc.TaylorFirstOrder()):
        scores = criterion.score(model, graph, evidence)
        for keep_ratio in _KEEP_RATIOS:
            plan = sc.allocate(graph, scores, sc.MacsBudget(keep_ratio), round_to=8, min_channels=8)
            small = sc.remove(model, graph, plan)
            name = f"{type(criterion).__name__} {keep_ratio:.0%}"
            entries.append(NamedModel(name, small, count_params(small), count_macs(small, example)))
    recipe = BenchRecipe(targets=targets, threads=2, seconds=seconds)
    return time_models(entries, recipe, input_shape=(1, 3, _SIDE, _SIDE))["benches"]


def table(latency):
    """Markdown: median milliseconds with the speed-up, one row for each network, runtime and criterion."""
    lines = [
        "| network | runtime | criterion | dense | " + " | ".join(f"{ratio:.0%}" for ratio in _KEEP_RATIOS) + " |",
        "| --- " * (4 + len(_KEEP_RATIOS)) + "|",
    ]
    for name, benches in latency.items():
        for bench in benches:
            dense, *rest = (model["latency_ms"]["p50"] for model in bench["models"])
            cells = [f"{ms:.1f} ({pair['speedup']:.1f})" for ms, pair in zip(rest, bench["pairs"], strict=True)]
            for first in range(0, len(cells), len(_KEEP_RATIOS)):
                criterion = bench["pairs"][first]["pruned"].split()[0]
                row = [name, f"{bench['runtime']} {bench['precision']}", criterion, f"{dense:.1f}"]
                lines.append("| " + " | ".join([*row, *cells[first : first + len(_KEEP_RATIOS)]]) + " |")
    return "\n".join(lines)


def main():
    if sys.argv[1] in ("plain", "scoring"):
        print(added_mib(sys.argv[1]))
        return
    path, named = Path(sys.argv[1]), sys.argv[2:]
    record = surroundings()
    if not named:
        record |= {"engine": engine_seconds(), "scoring": scoring_seconds(), "scoring_memory": scoring_memory()}
        print(record["engine"], record["scoring"], record["scoring_memory"])
    record["latency"] = {name: latency(width) for name, width in _WIDTHS.items() if not named or name in named}
    write_record(path, record)
    print(table(record["latency"]))


if __name__ == "__main__":
    main()
