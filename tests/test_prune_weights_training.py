"""Sparse training from end to end: the loop holds the masks, a resume goes on bit for bit, rounds and rewinding."""

import json
from dataclasses import fields

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from secateur.errors import RecordError, TrainingError
from secateur.prune.schedule import polynomial
from secateur.prune.weights import (
    LayerWise,
    NetworkWise,
    WeightMasks,
    magnitude_masks,
    output_weights,
    prunable_weights,
    rewind_,
)
from secateur.train import TrainRecipe
from secateur.train.checkpoint import Checkpoint, checkpoint_path, load_checkpoint
from secateur.train.order import epoch_seed
from secateur.train.recipe import learning_rate_at
from train_toys import RECIPE, STEPS, ToySet, bce, differences, lasting, one_cpu_thread, score, toy_net, train

EPOCHS = RECIPE.epochs


@pytest.fixture(autouse=True, scope="module")
def _on_cpu():
    with one_cpu_thread():
        yield


class Killed(BaseException):
    pass


def updated(**changes):
    return TrainRecipe(**{**RECIPE.model_dump(), **changes})


def masks_of(model, compression=4.0):
    kept = output_weights(model, torch.zeros(2, 3, 8, 8))
    return magnitude_masks(model, prunable_weights(model, keep=kept), LayerWise(compression))


def killed_at(call):
    calls = 0

    def loss(logits, target):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return bce(logits, target)

    return loss


def test_the_loop_holds_the_masks_as_the_obvious_loop_does(tmp_path):
    model, masks = toy_net(), masks_of(toy_net())
    seen = []

    def validate(network):
        masks.check(network)
        seen.append(network[0].weight.clone())
        return score(network)

    result = train(tmp_path, model=model, constraint=masks, validate=validate)
    masks.check(result.model)
    assert len(seen) == EPOCHS

    model, data, mask = toy_net(), ToySet(), masks.kept["0.weight"]
    kernels = [model[0].weight, model[4].weight]
    rest = [p for p in model.parameters() if all(p is not kernel for kernel in kernels)]
    optimizer = torch.optim.AdamW([{"params": kernels}, {"params": rest, "weight_decay": 0}], weight_decay=1e-2)
    model[0].weight.data *= mask
    for epoch in range(1, EPOCHS + 1):
        data.set_epoch(epoch)
        seed = epoch_seed(RECIPE.seed, epoch)
        order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
        torch.manual_seed(seed)
        torch.empty((), dtype=torch.int64).random_()  # torch's loader draws a seed for its workers
        model.train()
        for step, batch in enumerate((order[:4], order[4:8], order[8:])):
            images, targets = map(torch.stack, zip(*(data[i] for i in batch), strict=True))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(RECIPE, ((epoch - 1) * STEPS + step) / (EPOCHS * STEPS))
            optimizer.zero_grad()
            bce(model(images), targets).mean().backward()
            model[0].weight.grad *= mask
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            model[0].weight.data *= mask
    last = load_checkpoint(checkpoint_path(tmp_path, "train"))
    assert not differences(dict(model.state_dict()), dict(last.model))
    assert not differences(dict(masks.state_dict()), last.constraint)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    result = train(folder, constraint=masks_of(toy_net()))
    return folder, result


@pytest.mark.parametrize("call", range(1, EPOCHS * STEPS + 1))
def test_a_resume_goes_on_under_the_same_masks(reference, tmp_path, call):
    masks = masks_of(toy_net())
    with pytest.raises(Killed):
        train(tmp_path, constraint=masks, loss=killed_at(call))
    torch.manual_seed(12345)
    result = train(tmp_path, constraint=masks, resume=True)
    files = [checkpoint_path(folder, "train") for folder in (reference[0], tmp_path)]
    assert not differences(*map(lasting, files))
    assert not differences(dict(reference[1].model.state_dict()), dict(result.model.state_dict()))


def test_other_masks_cannot_resume(tmp_path):
    masks = masks_of(toy_net())
    with pytest.raises(Killed):
        train(tmp_path, constraint=masks, loss=killed_at(STEPS + 1))
    other = WeightMasks({name: mask.flip(0) for name, mask in masks.kept.items()})
    assert other.layers == masks.layers
    for constraint in (other, None):
        with pytest.raises(RecordError, match=r"under another constraint, which differs for '0\.weight'"):
            train(tmp_path, constraint=constraint, resume=True)
    with pytest.raises(Killed):
        train(tmp_path / "dense", loss=killed_at(STEPS + 1))
    with pytest.raises(RecordError, match="under another constraint"):
        train(tmp_path / "dense", constraint=masks, resume=True)


def test_a_checkpoint_from_before_constraints_is_read(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, loss=killed_at(STEPS + 1))
    path = checkpoint_path(tmp_path, "train")
    values = torch.load(path, weights_only=True)
    assert values["schema"] == 2
    assert set(values) - {"schema"} == {field.name for field in fields(Checkpoint)}
    del values["constraint"], values["settings"]["keep_epoch"], values["settings"]["skip_epochs"]
    torch.save({**values, "schema": 1}, path)
    result = train(tmp_path, resume=True)
    train(tmp_path / "whole")
    assert not differences(lasting(checkpoint_path(tmp_path / "whole", "train"))["model"], lasting(path)["model"])
    assert result.best_epoch


def test_rounds_of_growing_compression_are_stages(tmp_path):
    # Iterative pruning: each round takes more out of what the one before left, and trains on.
    rounds, model, masks = 3, toy_net(), None
    weights = prunable_weights(model, keep=["4"])
    train(tmp_path, model=model)
    for number in range(1, rounds + 1):
        before = masks
        scope = NetworkWise(polynomial(number, rounds, 12))
        masks = magnitude_masks(model, weights, scope, within=before)
        train(tmp_path, model=model, constraint=masks, recipe=updated(epochs=2), stage=f"sparse-{number}")
        masks.check(model)
        assert before is None or not (masks.kept["0.weight"] & ~before.kept["0.weight"]).any()
    assert masks.remaining == 108 / 12
    again = train(tmp_path, model=toy_net(5), constraint=masks, recipe=updated(epochs=2), stage="sparse-3", resume=True)
    assert not differences(dict(model.state_dict()), dict(again.model.state_dict()))


def lines_of(folder, stage):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


def test_an_epoch_is_kept_to_rewind_to(tmp_path):
    states = []

    def validate(network):
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return score(network)

    train(tmp_path, recipe=updated(keep_epoch=2), validate=validate)
    early = load_checkpoint(checkpoint_path(tmp_path, "train", 2))
    assert early.epoch == 2
    assert not differences(dict(states[1]), dict(early.model))
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["train-epoch-2.pt", "train.pt"]
    with pytest.raises(Killed):
        train(tmp_path / "killed", recipe=updated(keep_epoch=2), loss=killed_at(2 * STEPS))
    train(tmp_path / "killed", recipe=updated(keep_epoch=2), resume=True)
    kept = [lasting(checkpoint_path(folder, "train", 2)) for folder in (tmp_path, tmp_path / "killed")]
    assert not differences(*kept)


def test_rewinding_repeats_the_rest_of_the_training(tmp_path):
    shown = []

    class Noting(ToySet):
        def __getitem__(self, index):
            shown.append((self.epoch, index))
            return super().__getitem__(index)

    model = toy_net()
    train(tmp_path, model=model, recipe=updated(keep_epoch=1), train_set=Noting())
    first, rates = list(shown), [line["lr"] for line in lines_of(tmp_path, "train")]
    shown.clear()
    masks = masks_of(model)
    early = load_checkpoint(checkpoint_path(tmp_path, "train", 1)).model
    rewind_(model, early, masks)
    masks.check(model)
    kept = masks.kept["0.weight"]
    assert torch.equal(model[0].weight[kept], early["0.weight"][kept])
    train(tmp_path, model=model, recipe=updated(skip_epochs=1), train_set=Noting(), constraint=masks, stage="rewound")
    assert shown == first[10:]
    lines = lines_of(tmp_path, "rewound")
    assert [line["lr"] for line in lines] == rates[1:]
    assert [(line["epoch"], line["epochs"]) for line in lines] == [(2, 4), (3, 4), (4, 4)]
    masks.check(model)


def test_a_rewound_stage_can_be_killed_too(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path / "killed", recipe=updated(skip_epochs=2), loss=killed_at(STEPS + 2))
    torch.manual_seed(7)
    resumed = train(tmp_path / "killed", recipe=updated(skip_epochs=2), resume=True)
    whole = train(tmp_path / "whole", recipe=updated(skip_epochs=2))
    assert not differences(dict(whole.model.state_dict()), dict(resumed.model.state_dict()))
    with pytest.raises(TrainingError, match=r"score of epoch 3 is nan; no epoch was finished, so nothing is kept"):
        train(tmp_path / "bad", recipe=updated(skip_epochs=2), validate=lambda _: float("nan"))


def test_epochs_that_are_not_trained_are_refused():
    for changes, message in (
        ({"skip_epochs": 4}, "skip_epochs 4 leaves none of 4 epochs"),
        ({"keep_epoch": 5}, "keep_epoch 5 is not trained; give one from 1 to 4"),
        ({"keep_epoch": 2, "skip_epochs": 2}, "give one from 3 to 4"),
    ):
        with pytest.raises(ValidationError, match=message):
            updated(**changes)
