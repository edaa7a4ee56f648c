"""Run folders with plausible records and pictures, for the tests of the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from secateur.records import Record, write_record

DENSE_MACS, DENSE_PARAMS = 19_830_000_000, 7_932_417
SETUPS = (("openvino", "float32", 2), ("onnxruntime", "float32", 2), ("torch", "float32", 2))


@dataclass(frozen=True)
class Cut:
    """One pruned run to make; ``harm`` is how much of a polyp it misses on average."""

    name: str
    criterion: str
    keep_ratio: float
    harm: float


CUTS = (
    Cut("taylor-10", "taylor", 0.10, 0.03),
    Cut("taylor-25", "taylor", 0.25, 0.01),
    Cut("random-10", "random", 0.10, 0.12),
)


def make_runs(root: Path, *, cuts: Sequence[Cut] = CUTS, cases: int = 24, side: int = 64) -> list[Path]:
    """Write a dense run and pruned ones under ``root`` with every record; return the folders, dense first."""
    rng = np.random.default_rng(7)
    folders = [root / "dense", *(root / cut.name for cut in cuts)]
    frames = [_frame(rng, side) for _ in range(cases)]
    dense_masks = [_shrunk(truth, 0.97 - 0.25 * rng.random() ** 3) for _, truth in frames]
    _write_run(folders[0], None)
    _write_evaluation(folders[0], frames, dense_masks, dense_masks=None)
    _write_metrics(folders[0], ("train",), best=0.87, rng=rng)
    for folder, cut in zip(folders[1:], cuts, strict=True):
        masks = [_shrunk(mask, max(0.0, 1 - cut.harm * rng.exponential())) for mask in dense_masks]
        if cut.harm > 0.02:
            masks[3] = np.zeros_like(masks[3])
        _write_run(folder, cut)
        _write_evaluation(folder, frames, masks, dense_masks=dense_masks)
        _write_metrics(folder, ("recover-1", "recover-2"), best=0.87 - cut.harm / 2, rng=rng)
        write_record(folder / "prune.json", prune_record(cut))
        write_record(folder / "export/parity.json", parity_record(cut.keep_ratio))
    write_record(folders[0] / "export/parity.json", parity_record(1.0))
    write_record(folders[0] / "bench.json", bench_record(cuts))
    return folders


def prune_record(cut: Cut) -> Record:
    """A plausible ``prune.json``."""
    widths = [32, 32, 64, 64, 128, 128, 256, 256, 320, 320, 256, 256, 128, 128, 64, 64, 32, 32]
    share = np.sqrt(cut.keep_ratio) * np.linspace(1.3, 0.7, len(widths))
    groups = [
        {"id": f"blocks.{number}.conv", "width": width, "kept": max(8, int(min(1, part) * width / 8) * 8)}
        for number, (width, part) in enumerate(zip(widths, share, strict=True))
    ]
    return {
        "criterion": cut.criterion,
        "criterion_settings": {"normalize_gradient": True},
        "budget": {"kind": "macs", "keep_ratio": cut.keep_ratio},
        "reached": {
            "params": int(DENSE_PARAMS * cut.keep_ratio * 1.1),
            "macs": int(DENSE_MACS * cut.keep_ratio * 0.99),
            "params_keep_ratio": cut.keep_ratio * 1.1,
            "macs_keep_ratio": cut.keep_ratio * 0.99,
        },
        "dense": {"params": DENSE_PARAMS, "macs": DENSE_MACS},
        "input_shape": [1, 3, 352, 352],
        "round_to": 8,
        "groups": groups,
        "pinned": [
            {"module": "input", "reason": "the network's input", "channels": 3},
            {"module": "output_block.conv", "reason": "the network's output", "channels": 1},
        ],
        "proof": {
            "passed": True,
            "max_abs_diff": 3.1e-14,
            "max_rel_diff": 2.2e-13,
            "modes": ["random/eval", "random/train", "real/eval", "real/train"],
            "reads": 41,
            "untested": [],
            "failure": "",
            "seconds": 2.4,
        },
        "rounds": [
            {
                "round": number,
                "keep_ratio": cut.keep_ratio ** (number / 2),
                "macs": int(DENSE_MACS * cut.keep_ratio ** (number / 2)),
                "val_dice_before": 0.41 / number,
                "val_dice_after": 0.86 - cut.harm * number / 2,
                "seconds": 310.0,
            }
            for number in (1, 2)
        ],
        "scoring": {"samples": 256, "zero_gradients": 2, "seconds": 8.1},
    }


def parity_record(keep_ratio: float) -> Record:
    """A plausible ``export/parity.json``."""
    size = int(4 * DENSE_PARAMS * keep_ratio)
    check = {"precision": "float32", "flipped_pixels": 3, "pixels": 1_239_040, "max_dice_diff": 1e-5}
    return {
        "passed": True,
        "cases": 10,
        "runtimes": [
            {
                **check,
                "runtime": runtime,
                "file": file,
                "max_abs_diff": 4e-5,
                "tolerance": 1e-3,
                "passed": True,
            }
            for runtime in ("onnxruntime", "openvino")
            for file in ("model.onnx", "model_dynamic.onnx")
        ],
        "files": [
            {"name": "model.onnx", "size_bytes": size, "batch": "fixed"},
            {"name": "model_dynamic.onnx", "size_bytes": size, "batch": "dynamic"},
        ],
    }


def bench_record(cuts: Sequence[Cut], *, dense_ms: float = 190.0, created: str = "2026-01-02T10:00:00") -> Record:
    """A plausible ``bench.json``: dense and every cut on every setup."""
    benches = []
    for place, (runtime, precision, threads) in enumerate(SETUPS):
        slow = dense_ms * (1 + 0.4 * place)
        times = {"dense": slow} | {cut.name: slow * (cut.keep_ratio * (1 + 0.5 * place) + 0.05) for cut in cuts}
        ratios = {"dense": 1.0} | {cut.name: cut.keep_ratio for cut in cuts}
        benches.append(
            {
                "runtime": runtime,
                "precision": precision,
                "threads": threads,
                "input_shape": [1, 3, 352, 352],
                "iterations": 60,
                "versions": {runtime: "1.0"},
                "models": [
                    {
                        "name": name,
                        "params": int(DENSE_PARAMS * ratios[name]),
                        "macs": int(DENSE_MACS * ratios[name]),
                        "size_bytes": int(4 * DENSE_PARAMS * ratios[name]),
                        "latency_ms": {"p50": ms, "p95": 1.1 * ms, "p99": 1.3 * ms},
                    }
                    for name, ms in times.items()
                ],
                "pairs": [
                    {
                        "dense": "dense",
                        "pruned": cut.name,
                        "speedup": slow / times[cut.name],
                        "macs_compression": 1 / cut.keep_ratio,
                    }
                    for cut in cuts
                ],
            }
        )
    return {"created": created, "benches": benches}


def evaluation_record(dices: Sequence[float | None], *, lost: Sequence[int] | None = None) -> Record:
    """An ``evaluation.json`` with these values per case; ``lost`` polyps per case for a pruned run."""
    values = np.array([dice for dice in dices if dice is not None])
    spread = 1.96 * values.std() / np.sqrt(values.size)

    def metric(mean: float) -> Record:
        ci95 = [float(mean - spread), float(mean + 0.8 * spread)]
        return {"mean": mean, "std": float(values.std()), "ci95": ci95, "n": int(values.size), "undefined": 1}

    cases: list[Record] = []
    for number, dice in enumerate(dices):
        case = {"id": f"case-{number:03d}", "polyps": 1, "false_polyp": number % 9 == 0, "hd95_px": 12.0}
        case |= dict.fromkeys(("dice", "iou", "precision", "recall"), dice)
        cases.append(case | ({"polyps_lost": lost[number]} if lost is not None else {}))
    means = {name: metric(float(values.mean())) for name in ("dice", "iou", "precision", "recall")}
    return {
        "task": "polyp",
        "split": "test",
        "n_cases": len(cases),
        "synthetic": True,
        "input_size": 352,
        "metrics": {**means, "hd95_px": metric(14.2)},
        "cases": cases,
        "polyps": {
            "total": len(cases),
            "seen_by_dense": None if lost is None else len(cases) - 1,
            "lost": None if lost is None else sum(lost),
        },
        "false_polyp_frames": {"count": sum(case["false_polyp"] for case in cases), "of": len(cases)},
    }


def edit_record(path: Path, **changes) -> None:
    """Change top-level keys of a record on disk."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def run_record(name: str, role: str, command: Sequence[str]) -> Record:
    """A plausible ``run.json``."""
    return {
        "name": name,
        "role": role,
        "parent": None if role == "dense" else "../dense",
        "task": "polyp",
        "synthetic": True,
        "seed": 0,
        "created": "2026-01-02T09:00:00",
        "command": list(command),
        "commands": [list(command), ["secateur", "evaluate", f"runs/{name}"]],
        "versions": {"python": "3.12.3", "torch": "2.13.0", "monai": "1.6.1"},
        "git_revision": None,
        "machine": {"cpu": "An x86 processor", "cores": 2, "accelerator": None},
        "input_size": 352,
        "data": {"source": "synthetic", "splits": {"train": 200, "val": 40, "test": 60}},
        "training": {"epochs": 30, "best_epoch": 27, "best_val_dice": 0.868, "seconds": 1234.0},
    }


def _write_run(folder: Path, cut: Cut | None) -> None:
    command = (
        ["secateur", "train"] if cut is None else ["secateur", "prune", "runs/dense", "--macs", str(cut.keep_ratio)]
    )
    write_record(folder / "run.json", run_record(folder.name, "dense" if cut is None else "pruned", command))


def _write_metrics(folder: Path, stages: Sequence[str], *, best: float, rng: np.random.Generator) -> None:
    lines = [
        {
            "stage": stage,
            "epoch": epoch,
            "epochs": 12,
            "train_loss": float(1.2 * np.exp(-(epoch + 6 * place) / 4) + 0.1 + 0.01 * rng.random()),
            "val_dice": float(best * (1 - 0.7 * np.exp(-(epoch + 6 * place) / 3)) + 0.005 * rng.random()),
            "lr": 1e-3,
            "seconds": 40.0,
        }
        for place, stage in enumerate(stages)
        for epoch in range(1, 13)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_evaluation(folder: Path, frames, masks, *, dense_masks) -> None:
    dices = [
        2 * (mask & truth).sum() / (mask.sum() + truth.sum()) for mask, (_, truth) in zip(masks, frames, strict=True)
    ]
    lost = None
    if dense_masks is not None:
        lost = [int(not mask.any() and dense.any()) for mask, dense in zip(masks, dense_masks, strict=True)]
    write_record(folder / "evaluation.json", evaluation_record([float(dice) for dice in dices], lost=lost))
    pictures = folder / "predictions/test"
    pictures.mkdir(parents=True)
    for number, ((image, truth), mask) in enumerate(zip(frames, masks, strict=True)):
        stem = f"case-{number:03d}"
        Image.fromarray(image).save(pictures / f"{stem}_image.jpg", quality=90)
        Image.fromarray((truth * 255).astype(np.uint8)).save(pictures / f"{stem}_truth.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(pictures / f"{stem}.png")


def _frame(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A reddish disc of mucosa with one elliptic polyp; the frame is wider than high."""
    height, width = side, side * 5 // 4
    y, x = np.mgrid[:height, :width] / side
    centre_y, centre_x = rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.85)
    radius_y, radius_x = rng.uniform(0.08, 0.25, 2)
    distance = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2
    light = 1.1 - ((y - 0.5) ** 2 + (x - 0.6) ** 2) + 0.1 * np.sin(9 * x + 4 * y + rng.uniform(0, 6))
    colour = np.array([185, 95, 80]) + 45 * np.exp(-distance)[..., None] * np.array([1, 0.9, 0.8])
    noise = rng.normal(0, 4, (height, width, 1))
    return np.clip(colour * light[..., None] + noise, 0, 255).astype(np.uint8), distance < 1


def _shrunk(mask: np.ndarray, share: float) -> np.ndarray:
    """The mask without the rows below ``share`` of its area, shifted by one pixel."""
    kept = np.cumsum(mask.sum(axis=1)) <= share * mask.sum()
    return np.roll(mask & kept[:, None], 1, axis=1)
