"""A small network and data set that show every way in which a resumed training could differ."""

import math
import os
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from secateur.train import TrainRecipe, fit

RECIPE = TrainRecipe(epochs=4, batch_size=4, learning_rate=0.01)
STEPS = 3  # in one epoch: 10 samples, the last batch smaller


class ToySet(Dataset):
    """Discs to be found in noise that is another in every epoch."""

    def __init__(self, samples=10, side=8):
        self.samples, self.side, self.epoch = samples, side, 0

    def __len__(self):
        return self.samples

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        noise = torch.randn(3, self.side, self.side, generator=torch.Generator().manual_seed(index))
        shift = torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(1000 * self.epoch + index))
        y, x = torch.meshgrid(torch.arange(self.side), torch.arange(self.side), indexing="ij")
        mask = ((y - index % self.side) ** 2 + (x - 4) ** 2 <= 6).float()[None]
        return noise + 2 * mask + 0.1 * shift, mask


def toy_net(seed=0):
    """Batch statistics, drop-out, a vector-valued slope and kernels: all that a checkpoint must carry."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.PReLU(4),
            nn.Dropout2d(0.3),
            nn.Conv2d(4, 1, 1),
        )


@contextmanager
def one_cpu_thread():
    """Networks this small lose time to threads, and a GPU does not promise bits."""
    threads, device = torch.get_num_threads(), os.environ.get("ACCELERATE_USE_CPU")
    torch.set_num_threads(1)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    yield
    torch.set_num_threads(threads)
    del os.environ["ACCELERATE_USE_CPU"]
    if device is not None:
        os.environ["ACCELERATE_USE_CPU"] = device


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)


def score(model):
    """Zero at best; epoch 0 of the data is shown in no training epoch."""
    images, masks = zip(*(ToySet()[i] for i in range(10)), strict=True)
    torch.rand(3)  # validation may draw; training must not notice
    return -bce(model(torch.stack(images)), torch.stack(masks)).mean().item()


def train(folder: Path, *, model=None, loss=bce, validate=score, recipe=RECIPE, train_set=None, **options):
    model = toy_net() if model is None else model
    train_set = ToySet() if train_set is None else train_set
    return fit(model, loss=loss, train_set=train_set, validate=validate, recipe=recipe, folder=folder, **options)


def differences(a, b, path=""):
    """Names of all leaves of two nested states that are not bitwise equal."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) and a.dtype == b.dtype else [path]
    if isinstance(a, dict):
        names = list(a) if list(a) == list(b) else [None]
        return [path] if names == [None] else [d for n in names for d in differences(a[n], b[n], f"{path}/{n}")]
    if isinstance(a, list | tuple):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}/{i}")]
    return [] if a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)) else [path]


def lasting(checkpoint_file: Path):
    """A checkpoint without the seconds, which differ between equal runs."""
    state = torch.load(checkpoint_file, weights_only=True)
    state["history"] = [{k: v for k, v in line.items() if k != "seconds"} for line in state["history"]]
    return state
