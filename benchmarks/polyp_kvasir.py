"""The main job on real frames: dense, Taylor and random at 25 % and 10 % of the MACs, one seed.

A fifth row keeps at least a tenth of every group (``taylor-10-floor``), for what a floor is worth at 10 %.

    SECATEUR_DATA=... python benchmarks/polyp_kvasir.py runs/kvasir benchmarks/records/polyp_kvasir

Runs every command that has not run yet, in the order of the page, and copies the records (no images, no weights).
"""

import argparse
import shutil
import subprocess
from pathlib import Path

_CUTS = [("taylor", 25, 0), ("random", 25, 0), ("taylor", 10, 0), ("random", 10, 0), ("taylor", 10, 0.1)]
_RECORDS = (
    "run.json",
    "recipe.yaml",
    "metrics.jsonl",
    "prune.json",
    "evaluation.json",
    "bench.json",
    "export/parity.json",
)


def secateur(*arguments: object) -> None:
    command = ["secateur", *map(str, arguments)]
    print("$", *command, flush=True)
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the run folders")
    parser.add_argument("records", type=Path, help="folder of the copied records")
    given = parser.parse_args()
    runs, records = given.runs, given.records
    dense = runs / "dense"
    if not (dense / "model.safetensors").exists():
        secateur("train", "--recipe", "polyp", "--data", "polyp_kvasir", "--out", dense, "--resume")
    cuts = []
    for criterion, share, floor in _CUTS:
        cut = runs / f"{criterion}-{share}{'-floor' if floor else ''}"
        cuts.append(cut)
        if not (cut / "model.safetensors").exists():
            settings = ("--set", f"pruning.min_keep_ratio={floor}")
            secateur(
                "prune",
                dense,
                "--criterion",
                criterion,
                "--macs-keep",
                share / 100,
                *settings,
                "--out",
                cut,
                "--resume",
            )
    for run in (dense, *cuts):
        secateur("evaluate", run)
        secateur("export", run)
    secateur("bench", dense, *cuts)
    table = records.with_suffix(".md")
    secateur("report", dense, *cuts, "--out", runs / "report.html", "--markdown", table)
    for run in (dense, *cuts):
        for name in _RECORDS:
            if (run / name).exists():
                target = records / run.name / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run / name, target)


if __name__ == "__main__":
    main()
