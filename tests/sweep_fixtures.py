"""A sweep record with plausible numbers, for the tests of its page."""

from collections.abc import Sequence

import numpy as np

from secateur.metrics.aggregate import summarize
from secateur.records import SCHEMA, Record

DENSE_MACS, DENSE_PARAMS = 1_700_000_000, 6_500_000
CRITERIA = ("taylor", "l2", "l1", "random", "uniform", "taylor-absolute", "taylor-signed")
BUDGETS = (0.5, 0.25, 0.1, 0.05)
ONE_SHOT = (0.9, 0.75)
SAMPLES = (1, 4, 16, 64)
SETS = {"test": ("polyp_kvasir", 40), "polyp_polypgen-test": ("polyp_polypgen", 30)}
_HARM = {"taylor": 0.10, "l2": 0.16, "l1": 0.17, "random": 0.2, "uniform": 0.11}


def sweep_record(
    *,
    criteria: Sequence[str] = CRITERIA,
    budgets: Sequence[float] = BUDGETS,
    one_shot: Sequence[float] = ONE_SHOT,
    seeds: Sequence[int] = (0, 1, 2),
    extras: bool = True,
) -> Record:
    """A finished sweep; seeds after the first have the 10 % budget only. ``extras``: variants, bench and frames."""
    sets = {
        label: {"source": source, "split": "test", "ids": [f"{source}-{number}" for number in range(count)]}
        for label, (source, count) in SETS.items()
    }
    cells = []
    for seed in seeds:
        cells.append(done_cell("dense", seed=seed, kind="dense", harm=0.0))
        for criterion in criteria:
            for ratio in budgets if seed == seeds[0] else [ratio for ratio in budgets if ratio == 0.1]:
                cells.append(pruned_cell(criterion, ratio, seed=seed))
        cells += [pruned_cell(c, ratio, seed=seed, recovered=False) for c in criteria for ratio in one_shot if not seed]
        if extras:
            cells += _variants(criteria[0], seed=seed)
    timed = [cell for cell in cells if cell["seed"] == seeds[0] and cell["recovered"] and cell["variant"] is None]
    return {
        "schema": SCHEMA,
        "name": "kvasir",
        "command": ["secateur", "sweep", "--out", "runs/a sweep"],
        "created": "2026-01-02T10:00:00",
        "versions": {"python": "3.12.3", "torch": "2.13.0"},
        "git_revision": None,
        "machine": {"cpu": "An x86 processor", "cores": 2, "accelerator": None},
        "synthetic": False,
        "recipe": _recipe(criteria, budgets, seeds),
        "sets": sets,
        "cells": cells,
        "bench": _bench(timed) if extras else None,
        "frames": _frames(timed[:3]) if extras else None,
    }


def done_cell(name: str, *, seed: int, kind: str, harm: float, **changes) -> Record:
    """One cell that is done; ``harm`` is how much Dice it loses on average."""
    cell = {
        "name": f"seed-{seed}/{name}",
        "seed": seed,
        "kind": kind,
        "criterion": None,
        "keep_ratio": None,
        "variant": None,
        "recovered": True,
        "status": "done",
        "error": None,
        "seconds": 600.0 * (1 + harm),
        "macs": DENSE_MACS,
        "params": DENSE_PARAMS,
        "epochs": 60,
        "best_val_dice": 0.82 - harm,
        "val_dice_before": None,
        "evaluations": _evaluations(seed, harm, name, against_dense=kind != "dense"),
        "before_recovery": None,
    }
    return cell | changes


def pruned_cell(criterion: str, keep_ratio: float, *, seed: int, recovered: bool = True, **changes) -> Record:
    """One pruned cell that is done."""
    harm = _HARM.get(criterion, 0.13)
    name = f"{criterion}-{100 * keep_ratio:g}"
    before = _evaluations(seed, min(0.75, 0.05 + 3 * harm * (1 - keep_ratio)), name + "before", against_dense=True)
    cell = done_cell(
        name,
        seed=seed,
        kind="pruned",
        harm=harm * (1 - keep_ratio) ** 4,
        criterion=criterion,
        keep_ratio=keep_ratio,
        recovered=recovered,
        macs=int(0.99 * keep_ratio * DENSE_MACS),
        params=int(0.3 * keep_ratio * DENSE_PARAMS),
        epochs=20 if recovered else 0,
        val_dice_before=0.4,
        before_recovery=before,
    )
    return cell | ({} if recovered else {"evaluations": before}) | changes


def unfinished_cell(cell: Record, *, error: str | None = None) -> Record:
    """The same cell before it is done, or failed with ``error``."""
    keys = ("name", "seed", "kind", "criterion", "keep_ratio", "variant", "recovered")
    state = {"status": "failed" if error else "waiting", "error": error, "seconds": 3.0 if error else None}
    return {key: cell[key] for key in keys} | state


def replace_cell(record: Record, cell: Record) -> None:
    """Put ``cell`` in the place of the one with its name."""
    record["cells"] = [cell if each["name"] == cell["name"] else each for each in record["cells"]]


def evaluation(dices: Sequence[float | None], *, lost: int | None = 1) -> Record:
    """What a cell reached on one set with these values per case."""
    values = np.array(dices, dtype=np.float64)
    return {
        "dice": list(dices),
        "metrics": {"dice": summarize(values).record()},
        "polyps": {"total": len(dices), "seen_by_dense": None if lost is None else len(dices) - 1, "lost": lost},
        "false_polyp_frames": {"count": 3, "of": len(dices)},
    }


def _evaluations(seed: int, harm: float, name: str, *, against_dense: bool) -> Record:
    found = {}
    for place, (label, (_, count)) in enumerate(SETS.items()):
        common = np.random.default_rng((place, 5)).normal(0.85 - 0.08 * place, 0.12, count)
        own = np.random.default_rng((place, seed, *name.encode())).normal(0, 0.03, count) + 0.01 * (seed - 1)
        dices = np.clip(common - harm + own, 0, 1).tolist()
        found[label] = evaluation(dices, lost=int(20 * harm) if against_dense else None)
    return found


def _variants(criterion: str, *, seed: int) -> list[Record]:
    cells = [
        pruned_cell(
            criterion,
            0.1,
            seed=seed,
            recovered=False,
            name=f"seed-{seed}/{criterion}-10-samples-{count}",
            variant={"kind": "samples", "samples": count},
            before_recovery=_evaluations(seed, 0.3 + 0.3 / count, f"samples-{count}", against_dense=True),
        )
        for count in SAMPLES
    ]
    distilled = {"name": f"seed-{seed}/{criterion}-10-distilled", "variant": {"kind": "distilled"}}
    cells.append(pruned_cell(criterion, 0.1, seed=seed, **distilled))
    for matched, epochs in (("epochs", 80), ("macs", 300)):
        name = f"{criterion}-10-scratch-{matched}"
        variant = {"kind": "scratch", "epochs": epochs, "matched": matched}
        place = {"criterion": criterion, "keep_ratio": 0.1, "variant": variant, "epochs": epochs}
        size = {"macs": int(0.099 * DENSE_MACS), "params": 200_000}
        cells.append(done_cell(name, seed=seed, kind="scratch", harm=0.09, **place, **size))
    return cells


def _recipe(criteria: Sequence[str], budgets: Sequence[float], seeds: Sequence[int]) -> Record:
    recovery = {"epochs": 20, "learning_rate": 5e-4}
    pruning = {"budget": "macs", "round_to": 8, "min_channels": 8, "min_keep_ratio": 0.1, "scoring_samples": None}
    return {
        "data": {"source": "polyp_kvasir", "size": 192},
        "training": {"epochs": 60},
        "pruning": {**pruning, "recovery": recovery},
        "sweep": {
            "criteria": list(criteria),
            "keep_ratios": list(budgets),
            "seeds": list(seeds),
            "elsewhere": ["polyp_polypgen"],
        },
    }


def _bench(cells: Sequence[Record]) -> Record:
    benches = []
    for place, (runtime, precision) in enumerate(
        (("torch", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))
    ):
        slow = {name: 1 + 0.2 * number for number, name in enumerate(CRITERIA)}
        times = {
            cell["name"]: 50 * (cell["macs"] / DENSE_MACS * slow.get(cell["criterion"], 1) + 0.05 + 0.03 * place)
            for cell in cells
        }
        dense = cells[0]
        benches.append(
            {
                "runtime": runtime,
                "precision": precision,
                "threads": 2,
                "input_shape": [1, 3, 352, 352],
                "iterations": 60,
                "versions": {runtime: "1.0"},
                "models": [
                    {
                        "name": cell["name"],
                        "params": cell["params"],
                        "macs": 3 * cell["macs"],
                        "size_bytes": 4 * cell["params"],
                        "latency_ms": {"p50": times[cell["name"]], "p95": 60.0, "p99": 70.0},
                    }
                    for cell in cells
                ],
                "pairs": [
                    {
                        "dense": dense["name"],
                        "pruned": cell["name"],
                        "speedup": times[dense["name"]] / times[cell["name"]],
                        "macs_compression": dense["macs"] / cell["macs"],
                    }
                    for cell in cells[1:]
                ],
            }
        )
    return {"created": "2026-01-02T12:00:00", "benches": benches}


def _frames(cells: Sequence[Record]) -> Record:
    rows = [
        {
            "name": cell["name"],
            "runtime": "openvino",
            "precision": "float32",
            "fps": 1000 / (20 + 30 * cell["macs"] / DENSE_MACS),
            "ms": {
                "prepare": 4.2,
                "network": 30 * cell["macs"] / DENSE_MACS,
                "overlay": 15.0,
                "total": 20 + 30 * cell["macs"] / DENSE_MACS,
            },
        }
        for cell in cells
    ]
    shape = {"frame_shape": [1080, 1350], "network_side": 352}
    return {"created": "2026-01-02T12:30:00", **shape, "frames": 200, "threads": 2, "rows": rows}
