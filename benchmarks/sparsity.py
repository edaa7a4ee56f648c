"""What single zeros are worth on a CPU, and what they cost in training: writes one JSON record.

    python benchmarks/sparsity.py benchmarks/records/sparsity.json

Untrained networks: neither latency nor size on disk nor the cost of masks depends on what weights are, only on how many
are zero and where. The tables go to standard output, as Markdown. Run it when nothing else runs.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino
import torch

import secateur as sc
from secateur.cost.macs import count_macs, count_params
from secateur.deploy.onnx import Batch, save_onnx, trace_onnx
from secateur.deploy.timing import BenchRecipe, NamedModel, time_models
from secateur.graph.copying import safe_copy
from secateur.graph.records import Role
from secateur.nets.nuclei import two_networks
from secateur.nets.reference import monai_unet
from secateur.prune.weights import LayerWise, NetworkWise, magnitude_masks, prunable_weights
from secateur.records import write_record
from secateur.store.runs import surroundings
from secateur.store.sparse import sizes
from secateur.tasks.nuclei import NucleiTask

_SIDE = 256
_THREADS = 2
_DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_TIMED = (0.1, 0.02)
_TARGETS = ("torch", "onnxruntime", "openvino", "openvino:bfloat16")
_RATE = 0.5  # of zeros in a layer from which OpenVINO keeps its weights compressed
_ROUNDS = 30
_STEPS = 30


def masked(model, density):
    """A copy that keeps the largest weights of every layer."""
    copy = safe_copy(model)
    masks = magnitude_masks(copy, prunable_weights(copy, keep=()), LayerWise(1 / density))
    masks.apply_(copy)
    return copy


def half_dead(model):
    """A copy of which every other filter is zero, wherever filters can leave, and the same without them."""
    graph = sc.trace(model, torch.zeros(1, 3, 64, 64))
    copy = safe_copy(model)
    tensors = dict(copy.named_parameters())
    with torch.no_grad():
        for group in graph.groups:
            for piece in (piece for piece in group.slices if piece.role is Role.WRITE):
                gone = [p for p, unit in zip(piece.positions, piece.units, strict=True) if unit % 2]
                tensors[piece.tensor].index_fill_(piece.dim, torch.tensor(gone), 0.0)
    return copy, *sc.compact(copy, graph)


def latencies(networks):
    shape = (1, 3, _SIDE, _SIDE)
    entries = [NamedModel(n, m, count_params(m), count_macs(m, torch.zeros(shape))) for n, m in networks.items()]
    recipe = BenchRecipe(targets=_TARGETS, threads=_THREADS, seconds=20)
    return time_models(entries, recipe, input_shape=shape)


def decompression(networks):
    """Median milliseconds on OpenVINO with and without sparse-weight decompression, all in turns."""
    image = np.random.default_rng(0).standard_normal((1, 3, _SIDE, _SIDE), dtype=np.float32)
    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": _THREADS}
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in networks.items():
            file = Path(folder) / f"{len(times)}.onnx"
            save_onnx(trace_onnx(model, torch.from_numpy(image), Batch.FIXED), file)
            for rate in (1.0, _RATE):  # 1 is the default: never
                own = {**settings, "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": rate}
                request = core.compile_model(core.read_model(file), "CPU", own).create_infer_request()
                times[name, rate] = (request, [])
        for _ in range(_ROUNDS + 3):
            for request, taken in times.values():
                started = time.perf_counter()
                request.infer({0: image}, share_inputs=True)
                taken.append(1000 * (time.perf_counter() - started))
    return [
        {"name": name, "rate": rate, "p50_ms": statistics.median(taken[3:])}
        for (name, rate), (_, taken) in times.items()
    ]


def training_step():
    """Median seconds of a step with masks and without, in turns, and those of a threshold over 30 M weights."""
    task = NucleiTask(128)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 128, 128, generator=generator)
    target = torch.rand(8, 2, 128, 128, generator=generator)
    target[:, 0] = target[:, 0].round()
    torch.manual_seed(0)
    models = [two_networks().build().train() for _ in range(2)]
    optimizers = [torch.optim.AdamW(model.parameters()) for model in models]
    masks = magnitude_masks(models[1], prunable_weights(models[1], keep=()), NetworkWise(16))
    taken = [[], []]
    with masks.held(models[1], optimizers[1]):
        for _ in range(_STEPS + 3):
            for model, optimizer, seconds in zip(models, optimizers, taken, strict=True):
                started = time.perf_counter()
                optimizer.zero_grad()
                task.loss(model(images), target).mean().backward()
                optimizer.step()
                seconds.append(time.perf_counter() - started)
    plain, guarded = (statistics.median(seconds[3:]) for seconds in taken)
    large = monai_unet(68).build()
    weights = prunable_weights(large, keep=())
    thresholds = []
    for _ in range(5):
        started = time.perf_counter()
        magnitude_masks(large, weights, NetworkWise(16))
        thresholds.append(time.perf_counter() - started)
    return {
        "step_s": plain,
        "step_with_masks_s": guarded,
        "overhead": guarded / plain - 1,
        "threshold_weights": sum(weight.size for weight in weights),
        "threshold_s": statistics.median(thresholds),
    }


def latency_table(bench):
    names = [model["name"] for model in bench["benches"][0]["models"]]
    heads = [f"{each['runtime']} {each['precision']}" for each in bench["benches"]]
    rows = []
    for place, name in enumerate(names):
        models = [each["models"] for each in bench["benches"]]
        dense = [each[0]["latency_ms"]["p50"] for each in models]
        own = [each[place]["latency_ms"]["p50"] for each in models]
        rows.append([name, *(f"{ms:.1f} ({base / ms:.2f})" for ms, base in zip(own, dense, strict=True))])
    return markdown(["network", *heads], rows)


def markdown(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main():
    torch.set_num_threads(_THREADS)
    torch.manual_seed(0)
    dense = two_networks().build().eval()
    for name, parameter in dense.named_parameters():
        if name.endswith("bias"):  # so that a dead filter still says something
            torch.nn.init.normal_(parameter, std=0.1)
    zeroed, compacted, compaction = half_dead(dense)
    networks = {"dense": dense}
    networks |= {f"{density:.0%} of weights, scattered": masked(dense, density) for density in _TIMED}
    networks |= {"half of the filters zero": zeroed, "the same, removed": compacted}
    files = {density: sizes(masked(dense, density)).to_record() for density in _DENSITIES}
    record = {
        **surroundings(),
        "threads": _THREADS,
        "input_shape": [1, 3, _SIDE, _SIDE],
        "latency": latencies(networks),
        "decompression": decompression({name: networks[name] for name in list(networks)[:3]}),
        "training": training_step(),
        "files": [{"density": density, **found} for density, found in files.items()],
        "compaction": {"left": compaction.left, "max_rel_diff": compaction.max_rel_diff, "seconds": compaction.seconds},
    }
    write_record(Path(sys.argv[1]), record)
    print(latency_table(record["latency"]), end="\n\n")
    rows = [[row["name"], row["rate"], f"{row['p50_ms']:.1f}"] for row in record["decompression"]]
    print(markdown(["network", "OpenVINO's decompression rate", "ms"], rows), end="\n\n")
    keys = [key for key in record["files"][0] if key.endswith("_bytes") or key == "zeros"]
    rows = [[row["density"], *(row[key] for key in keys)] for row in record["files"]]
    print(markdown(["density", *keys], rows), end="\n\n")
    print(record["training"], record["compaction"])


if __name__ == "__main__":
    main()
