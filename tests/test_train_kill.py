"""Real SIGKILLs: the process is gone without a word, at any moment, and resuming gives the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from train_toys import RECIPE, differences, lasting, train


def finish(folder: Path) -> None:
    """One process of training; run by this file as a script."""
    train(folder, recipe=RECIPE.model_copy(update={"epochs": 12}), resume=True)


def forked(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        finish(folder)
        os._exit(0)
    return child


def run(root: Path, kills: int) -> None:
    """Train once undisturbed, then once for each kill: start, kill after a random time, resume."""
    torch.set_num_threads(1)  # forks would inherit threads that do not run
    from accelerate import Accelerator

    Accelerator(cpu=True)  # once, before the forks
    started = time.perf_counter()
    assert os.waitpid(forked(root / "reference"), 0)[1] == 0
    seconds = time.perf_counter() - started
    draw, interrupted = random.Random(1), 0
    for k in range(kills):
        folder = root / f"killed-{k}"
        child = forked(folder)
        time.sleep(draw.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        interrupted += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert os.waitpid(forked(folder), 0)[1] == 0
    assert interrupted, "every process had finished before it was killed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_times(tmp_path, kills):
    subprocess.run([sys.executable, __file__, str(tmp_path), str(kills)], check=True, timeout=300)
    expected = lasting(tmp_path / "reference/checkpoints/train.pt")
    assert expected["epoch"] == 12
    lines = (tmp_path / "reference/metrics.jsonl").read_text().splitlines()
    for k in range(kills):
        folder = tmp_path / f"killed-{k}"
        assert not differences(expected, lasting(folder / "checkpoints/train.pt"))
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == len(lines) == 12


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
