"""Training and pruning killed at random points, again and again, end with bitwise the uninterrupted weights."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from test_cli import TINY

_KILLS = 20
_DRIVER = "import secateur.pipeline; print('ready', flush=True); from secateur.cli import main; main()"
_LONGER = ["--set", "training.epochs=12", "--set", "pruning.recovery.epochs=8", "--set", "pruning.round_epochs=4"]
_TRAIN = ["train", *TINY, *_LONGER]
_PRUNE = ["prune", "dense", "--macs-keep", "0.3", "--rounds", "2"]


def start(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """A process that has imported everything and is about to run the command."""
    process = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(folder: Path, arguments: list[str]) -> float:
    """Run the command to its end; the seconds that it took."""
    process = start(folder, arguments)
    began = time.monotonic()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "prune"])
def test_a_run_killed_at_random_points_ends_with_the_same_weights(tmp_path, stage):
    arguments = _TRAIN if stage == "train" else _PRUNE
    if stage == "prune":
        finish(tmp_path, [*_TRAIN, "--out", "dense"])
    seconds = finish(tmp_path, [*arguments, "--out", "whole"])
    weights = (tmp_path / "whole" / "model.safetensors").read_bytes()
    killed = tmp_path / "killed"
    draw = random.Random(0)
    kills = 0
    while kills < _KILLS:
        process = start(tmp_path, [*arguments, "--out", "killed", "--resume"])
        try:
            _, err = process.communicate(timeout=draw.uniform(0, seconds / 2))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:  # it came through; begin again for the kills that are still to come
            assert process.returncode == 0, err
            assert (killed / "model.safetensors").read_bytes() == weights
            shutil.rmtree(killed)
    finish(tmp_path, [*arguments, "--out", "killed", "--resume"])
    assert (killed / "model.safetensors").read_bytes() == weights
    assert not list(tmp_path.rglob("*.part"))
