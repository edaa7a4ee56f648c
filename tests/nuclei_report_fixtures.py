"""Run folders of the nuclei task with plausible records and pictures, for the tests of the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from report_fixtures import run_record
from secateur.data.cases import CaseId
from secateur.data.distance import distance_targets
from secateur.data.nuclei_synthetic import SyntheticTile
from secateur.prune.weights import LayerWise, NetworkWise, PrunableWeight, WeightMasks, random_masks
from secateur.records import Record, write_record
from secateur.tasks.nuclei_record import Seconds, measure, summary

DENSE_MACS, DENSE_PARAMS = 3_100_000_000, 240_000
SHAPES = {f"semantic.levels.{number}.conv.weight": (2 ** (3 + number), 2**number, 3, 3) for number in range(1, 5)}


@dataclass(frozen=True)
class SparseCut:
    """One sparse run to make; ``harm`` is the share of nuclei that it loses, and half of which it merges or splits."""

    name: str
    scope: str
    compression: float
    harm: float
    dead: bool = False


CUTS = (SparseCut("layer-16", "layer", 16, 0.06), SparseCut("network-64", "network", 64, 0.25, dead=True))


def make_nuclei_runs(
    root: Path, *, cuts: Sequence[SparseCut] = CUTS, tiles: int = 3, side: int = 128, images: bool = True
) -> list[Path]:
    """Write a dense run and sparse ones under ``root`` with every record; return the folders, dense first."""
    cases = [
        (f"tile-{number}", *SyntheticTile(CaseId(str(number)), (0, number), side).read()) for number in range(tiles)
    ]
    dense = [damaged(truth, 0.04, seed=number) for number, (_, _, truth) in enumerate(cases)]
    folders = [root / "dense", *(root / cut.name for cut in cuts)]
    _write_run(folders[0], "dense", ["secateur", "train", "--task", "nuclei"])
    _write_evaluation(folders[0], cases, dense, before=None, blur=0.05, images=images)
    for folder, cut in zip(folders[1:], cuts, strict=True):
        found = [damaged(labels, cut.harm, seed=100 + number) for number, labels in enumerate(dense)]
        _write_run(folder, "sparse", ["secateur", "prune", "runs/dense", "--granularity", "weight"])
        _write_evaluation(folder, cases, found, before=dense, blur=0.05 + cut.harm / 4, images=images)
        write_record(folder / "prune.json", sparse_record(cut))
    return folders


def sparse_record(cut: SparseCut) -> Record:
    """A plausible ``prune.json`` of weight pruning."""
    masks = masks_record(cut.scope, cut.compression, dead=cut.dead)
    left = 6 if cut.dead else 0
    proof = {
        "passed": True,
        "max_abs_diff": 2.0e-14,
        "max_rel_diff": 1.0e-15,
        "modes": ["random/eval", "real/eval"],
        "reads": left,
        "untested": [],
        "failure": "",
        "seconds": 1.5,
        "approximate": [],
    }
    stay = {"group": "semantic.levels.1.conv", "unit": 1, "reason": "it carries the constants that others read"}
    plain = 4 * DENSE_PARAMS
    return {
        "granularity": "weight",
        "criterion": "magnitude",
        "scope": cut.scope,
        "branches": [],
        "outputs": False,
        "budget": {"kind": "compression", "compression": cut.compression},
        "dense": {"params": DENSE_PARAMS, "macs": DENSE_MACS},
        "input_shape": [1, 3, 128, 128],
        "masks": masks,
        "warnings": [],
        "groups": [
            {"id": name.removesuffix(".weight"), "width": shape[0], "kept": shape[0] - left // 3}
            for name, shape in SHAPES.items()
        ],
        "pinned": [{"module": "output.conv", "reason": "network output", "channels": 1}],
        "rewind_epoch": None,
        "rounds": [
            {
                "round": 1,
                **masks,
                "val_dice_and_correlation_before": 0.4,
                "val_dice_and_correlation_after": 0.7,
                "seconds": 1.0,
            }
        ],
        "reached": {
            "params": masks["kept"] + 500,
            "macs": int(DENSE_MACS * (0.93 if left else 1)),
            "params_keep_ratio": (masks["kept"] + 500) / DENSE_PARAMS,
            "macs_keep_ratio": 0.93 if left else 1.0,
        },
        "sizes": sizes_record(plain, cut.compression),
        "compaction": {
            "plan": {},
            "dead": left + 1 if left else 0,
            "left": left,
            "folds": [{"reader": "semantic.levels.2.conv.weight", "channels": 2, "bias": "b", "carriers": []}],
            "stays": [stay] if left else [],
            "proof": proof,
            "max_abs_diff": 8.9e-16,
            "max_rel_diff": 3.2e-16,
            "exact_in_train": True,
            "rounding": 6.0e-8,
            "sizes": [],
            "seconds": 4.0,
        },
        "proof": proof,
    }


def masks_record(scope: str, compression: float, *, dead: bool = False) -> Record:
    """The record of real masks, drawn at random; with ``dead`` the last layer has no weight left."""
    weights = [PrunableWeight(name, shape) for name, shape in SHAPES.items()]
    rule = LayerWise(compression) if scope == "layer" else NetworkWise(compression)
    masks = random_masks(weights, rule, seed=0)
    if not dead:
        return masks.to_record()
    name = list(SHAPES)[-1]
    kept = {**masks.kept, name: torch.zeros_like(masks.kept[name])}
    return WeightMasks(kept, masks.choice, masks.asked, masks.too_small).to_record()


def sizes_record(plain: int, compression: float) -> Record:
    """What a network of ``plain`` bytes takes on disk at a compression."""
    return {
        "numbers": plain // 4,
        "zeros": int(plain / 4 * (1 - 1 / compression)),
        "dense_bytes": plain,
        "gzip_bytes": int(0.9 * plain / compression**0.85),
        "sparse_bytes": int(1.2 * plain / compression),
        "compressed_bytes": int(0.92 * plain / compression**0.95),
        "codes": {"all": 4, "mask": 0, "gaps": 4},
    }


def damaged(labels: np.ndarray, harm: float, *, seed: int) -> np.ndarray:
    """Labels of which a share is lost, a quarter as many merged, split and spurious each."""
    rng = np.random.default_rng(seed)
    found, names = labels.copy(), rng.permutation(np.unique(labels)[1:])
    few = max(1, round(harm * len(names) / 4))
    lost, split, merged = names[: 4 * few], names[4 * few : 5 * few], names[5 * few : 6 * few]
    found[np.isin(found, lost)] = 0
    for name in split:
        rows, columns = np.nonzero(found == name)
        half = columns > np.median(columns)
        found[rows[half], columns[half]] = found.max() + 1
    for name in merged:
        near = found[ndimage.binary_dilation(found == name, iterations=6) & (found > 0) & (found != name)]
        if near.size:
            found[found == name] = np.bincount(near).argmax()
    free = ndimage.binary_erosion(found == 0, iterations=6)
    for row, column in rng.permutation(np.argwhere(free))[:few]:
        found[row - 3 : row + 4, column - 3 : column + 4] = found.max() + 1
    return found


def _write_run(folder: Path, role: str, command: Sequence[str]) -> None:
    training = {"epochs": 60, "best_epoch": 51, "best_val_dice_and_correlation": 0.741, "seconds": 900.0}
    record = run_record(folder.name, role, command) | {"task": "nuclei", "input_size": 128, "training": training}
    write_record(folder / "run.json", record)
    stages = ("train",) if role == "dense" else ("recover-1",)
    lines = [
        {
            "stage": stage,
            "epoch": epoch,
            "epochs": 12,
            "train_loss": 2 / epoch + 0.3,
            "val_dice_and_correlation": 0.74 - 0.5 / epoch,
            "lr": 1e-3,
            "seconds": 9.0,
        }
        for stage in stages
        for epoch in range(1, 13)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_evaluation(folder: Path, cases, found, *, before, blur: float, images: bool) -> None:
    results, rng = [], np.random.default_rng(3)
    for number, ((name, image, truth), labels) in enumerate(zip(cases, found, strict=True)):
        target = distance_targets(truth)
        noise = rng.normal(0, blur, truth.shape).astype(np.float32)
        results.append(
            measure(
                CaseId(name),
                found=labels,
                mask=labels > 0,
                distance=target + noise,
                target=target,
                truth=truth,
                dense=None if before is None else before[number],
            )
        )
        if images:
            _write_pictures(folder / "predictions/test", name, image, truth, labels)
    head = {"task": "nuclei", "split": "test", "n_cases": len(cases), "synthetic": True, "input_size": 128}
    seconds = [Seconds(read=0.02, network=0.9, merge=0.2, metrics=0.1)] * len(cases)
    merge = {"threshold": 0.5, "largest_hole": 60, "smallest": 15, "smoothing": 0.05, "spacing": 0.15}
    write_record(folder / "evaluation.json", {**head, "merge": merge, **summary(results, seconds), "source": None})


def _write_pictures(folder: Path, name: str, image, truth, labels) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{name}_image.jpg", quality=90)
    Image.fromarray(truth.astype(np.uint16)).save(folder / f"{name}_truth.png")
    Image.fromarray(labels.astype(np.uint16)).save(folder / f"{name}.png")
