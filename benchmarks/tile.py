"""Where the time of a nuclei tile goes: reading, network, watershed and metrics, network beside network.

SECATEUR_DATA=... python benchmarks/tile.py OUT.json RUN [RUN ...]    # run folders; nothing else may be running

One process, all networks in turns on each of the first test tiles, after one that does not count. Shares are of the
sum of the steps; what is written to disk is not counted.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch

from secateur.records import Record, write_record
from secateur.session import read_run_recipe, task_of, tuned_task
from secateur.store.networks import load
from secateur.store.runs import RunFolder, surroundings

TILES = 5
STEPS = ("read", "network", "merge", "metrics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    runs = {path.name: RunFolder(path) for path in given.runs}
    recipes = {name: read_run_recipe(run) for name, run in runs.items()}
    tasks = {name: tuned_task(run, recipes[name]) for name, run in runs.items()}
    models = {name: load(run.path) for name, run in runs.items()}
    data = next(iter(recipes.values())).data
    cases = task_of(next(iter(recipes.values()))).load_cases(data)["test"][: TILES + 1]
    seconds: dict[str, list[Record]] = {name: [] for name in runs}
    for case in cases:
        for name, model in models.items():
            seconds[name].append(tasks[name].evaluate(model, [case], split="test")["seconds"])
    write_record(
        given.out,
        {
            **surroundings(),
            "source": Path(data.source).name,
            "tiles": TILES,
            "threads": torch.get_num_threads(),
            "networks": {name: _shares(each[1:]) for name, each in seconds.items()},
        },
    )


def _shares(tiles: list[Record]) -> Record:
    steps = {step: mean(tile[step] for tile in tiles) for step in STEPS}
    whole = sum(steps.values())
    return {"seconds": {**steps, "whole": whole}, "merge_and_metrics": (steps["merge"] + steps["metrics"]) / whole}


if __name__ == "__main__":
    main()
