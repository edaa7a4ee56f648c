"""A record of a sweep over compression ratios with plausible numbers, for the tests of its page."""

from collections.abc import Callable, Mapping, Sequence
from unittest.mock import patch

import numpy as np

from nuclei_report_fixtures import masks_record, sizes_record
from secateur.metrics.aggregate import summarize
from secateur.recipes.nuclei import nuclei_study
from secateur.recipes.ratios import RatioSweepRecipe
from secateur.records import SCHEMA, Record
from secateur.sweeps.ratios import plan_ratio_cells

DENSE_MACS, DENSE_PARAMS = 3_100_000_000, 3_880_000
KEYS = ("aji", "pq", "instance_dice", "semantic_dice", "distance_mse", "distance_correlation")
LEVELS = {
    "aji": 0.58,
    "pq": 0.52,
    "instance_dice": 0.78,
    "semantic_dice": 0.80,
    "distance_mse": 0.031,
    "distance_correlation": 0.72,
}
TOLERANCES = {
    "aji": 8,
    "pq": 8,
    "instance_dice": 25,
    "semantic_dice": 30,
    "distance_mse": 30,
    "distance_correlation": 30,
}
RATIOS = RatioSweepRecipe(
    compressions=(1, 2, 5, 16, 20, 64, 100),
    seeds=(0, 1, 2),
    repeated_compressions=(1, 5, 16, 20, 64),
    random_compressions=(2, 5, 16, 64),
    small_compressions=(5, 16, 64),
    branches=("semantic", "distance"),
    branch_compressions=(16,),
    structured_keep_ratios=(0.5, 0.1),
)

Curve = Callable[[Record, str], float]  # of a cell and a metric's key: the mean of its cases


def ratio_record(*, ratios: RatioSweepRecipe = RATIOS, cases: int = 14, curve: Curve | None = None) -> Record:
    """A finished sweep with the cells that the recipe plans; ``curve`` gives what each reaches, without noise."""
    recipe = nuclei_study().model_copy(update={"ratios": ratios})
    with patch("secateur.sweeps.ratios.thinner", lambda network, _: network):  # it builds networks, of no use here
        planned = plan_ratio_cells(recipe, ratios)
    cells = [_done(cell.record(), cases, curve) for cell in planned]
    return {
        "schema": SCHEMA,
        "name": "nuclei",
        "command": ["secateur", "sweep", "nuclei-study", "--out", "runs/a sweep"],
        "created": "2026-01-02T10:00:00",
        "versions": {"python": "3.12.3", "torch": "2.13.0"},
        "git_revision": None,
        "machine": {"cpu": "An x86 processor", "cores": 2, "accelerator": None},
        "synthetic": False,
        "recipe": recipe.model_dump(mode="json"),
        "sets": {"test": {"source": "nuclei_kumar", "split": "test", "ids": [f"tile-{n}" for n in range(cases)]}},
        "cells": cells,
        "bench": None,
        "frames": None,
    }


def unfinished_cell(cell: Record, *, error: str | None = None) -> Record:
    """The same cell before it is done, or failed with ``error``."""
    keys = ("name", "seed", "kind", "criterion", "keep_ratio", "variant", "recovered")
    state = {"status": "failed" if error else "waiting", "error": error, "seconds": 3.0 if error else None}
    return {key: cell[key] for key in keys} | state


def cell_named(record: Record, name: str) -> Record:
    """One cell of a record."""
    return next(cell for cell in record["cells"] if cell["name"] == name)


def replace_cell(record: Record, cell: Record) -> None:
    """Put ``cell`` in the place of the one with its name."""
    record["cells"] = [cell if each["name"] == cell["name"] else each for each in record["cells"]]


def set_values(record: Record, name: str, key: str, values: Sequence[float | None]) -> None:
    """Give a cell these values per case of one metric, after recovery."""
    cell_named(record, name)["evaluations"]["test"][key] = list(values)


def bench_record(cells: Sequence[Record]) -> Record:
    """Latency of ``cells``, dense first, on one runtime: zeros change nothing."""
    models = [
        {
            "name": cell["name"],
            "params": cell["params"],
            "macs": cell["macs"],
            "size_bytes": 4 * cell["params"],
            "latency_ms": {"p50": 40 * cell["macs"] / DENSE_MACS, "p95": 60.0, "p99": 70.0},
        }
        for cell in cells
    ]
    pairs = [
        {"dense": cells[0]["name"], "pruned": cell["name"], "speedup": 1.0, "macs_compression": 1.0}
        for cell in cells[1:]
    ]
    setup = {"runtime": "openvino", "precision": "float32", "threads": 2, "input_shape": [1, 3, 256, 256]}
    return {"created": "2026-01-02T12:00:00", "benches": [{**setup, "models": models, "pairs": pairs}]}


def _done(cell: Record, cases: int, curve: Curve | None) -> Record:
    ratio = _ratio(cell)
    cut = cell["kind"] in ("sparse", "pruned")
    done = {
        **cell,
        "status": "done",
        "error": None,
        "seconds": 500.0 + ratio,
        "macs": int(DENSE_MACS * (cell["keep_ratio"] or 1)),
        "params": DENSE_PARAMS if cell["kind"] in ("dense", "sparse") else int(DENSE_PARAMS / ratio),
        "epochs": 72 if cell["kind"] == "small" else 12 if cut else 60,
        "best_val_dice_and_correlation": 0.75,
        "evaluations": {"test": _evaluation(cell, cases, curve or _plausible)},
        "before_recovery": {"test": _evaluation(cell, cases, curve or _broken)} if cut else None,
    }
    if cut:
        done["val_dice_and_correlation_before"] = 0.4
    return done | (_sparsity(cell, ratio) if cell["kind"] == "sparse" else {})


def _sparsity(cell: Record, ratio: float) -> Record:
    variant, died = cell["variant"], cell["variant"]["scope"] == "network" and ratio >= 64
    masks = masks_record(variant["scope"], ratio, dead=died)
    share = 0.9 if died else 1.0
    reached = {"params": masks["kept"], "macs": int(DENSE_MACS * share), "params_keep_ratio": 1 / ratio}
    sizes = sizes_record(4 * DENSE_PARAMS, ratio)
    return {
        "sparsity": {"reached": reached | {"macs_keep_ratio": share}, "masks": masks, "sizes": sizes, "warnings": []}
    }


def _ratio(cell: Record) -> float:
    if cell["kind"] == "pruned":
        return 1 / cell["keep_ratio"] ** 1.2
    return float((cell["variant"] or {}).get("compression", 1))


def _plausible(cell: Record, key: str) -> float:
    """Layer-wise is better at small ratios, network-wide at large ones; random and small networks lose more."""
    variant, ratio = cell["variant"] or {}, _ratio(cell)
    harm = (ratio - 1) / TOLERANCES.get(key, 30) * 0.02
    if variant.get("scope") == "network":
        harm = 0.004 + 0.6 * harm if ratio > 1 else 0.0
    if variant.get("score") == "random" or cell["kind"] == "small":
        harm = 0.06 + 1.4 * harm
    harm = harm / (1 + harm)
    return LEVELS[key] * (1 + 3 * harm if key == "distance_mse" else 1 - harm)


def _broken(cell: Record, key: str) -> float:
    return LEVELS[key] * (4 if key == "distance_mse" else 0.3)


def _evaluation(cell: Record, cases: int, curve: Curve) -> Record:
    noise = 0.0 if curve not in (_plausible, _broken) else 1.0
    values = {key: _cases(cell, key, cases, curve(cell, key), noise) for key in KEYS}
    nuclei = {"total": 900, "kept": 700, "merged": 60, "split": 20, "lost": 120, "found": 850, "spurious": 60}
    return {
        **values,
        "metrics": {key: summarize(each).record() for key, each in values.items()},
        "nuclei": nuclei,
        "seconds": {"read": 0.1, "network": 4.0, "merge": 0.8, "metrics": 0.3},
        "merge": {"threshold": 0.5},
    }


def _cases(cell: Record, key: str, cases: int, mean: float, noise: float) -> list[float]:
    """Cases that differ as much from each other in every network, and a little from training to training."""
    scale = 0.1 * LEVELS[key] * noise
    common = np.random.default_rng(list(key.encode())).normal(0, scale, cases)
    own = np.random.default_rng([cell["seed"], *cell["name"].encode(), *key.encode()]).normal(0, 0.06 * scale, cases)
    return (mean + common + own).tolist()


Levels = Mapping[tuple[str, float], float]  # of a line's key and a ratio


def drawn_record(levels: Levels, *, key: str = "aji", seeds: Sequence[int] = (0,), cases: int = 4) -> Record:
    """A sweep of both scopes in which ``key`` has these means, the same in every case; all else is 0.5.

    A network of which nothing is removed is part of it where ``levels`` has ``("layer", 1)``.
    """
    ratios = sorted({ratio for line, ratio in levels if line != "dense"})

    def curve(cell: Record, each: str) -> float:
        variant = cell["variant"] or {}
        line = variant.get("scope", "dense") if variant.get("score") != "random" else "random"
        return levels.get((line, _ratio(cell)), 0.5) if each == key else 0.5

    recipe = RatioSweepRecipe(compressions=tuple(ratios), seeds=tuple(seeds))
    return ratio_record(ratios=recipe, cases=cases, curve=curve)
