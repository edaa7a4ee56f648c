"""Recipes refuse what makes no sense; the schedules are those of torch."""

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from secateur.train import DistillationRecipe, TrainRecipe
from secateur.train.recipe import learning_rate_at

STEPS = 2000


def by_torch(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(schedule):
    recipe = TrainRecipe(learning_rate=0.3, schedule=schedule)
    return [learning_rate_at(recipe, step / STEPS) for step in range(STEPS)]


def test_cosine_is_torchs():
    expected = by_torch(lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS))
    assert ours("cosine") == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_cycle_is_torchs():
    # torch's highest and lowest rates come one step earlier, and the lowest is 1e-4 / 25 of the highest.
    expected = by_torch(
        lambda optimizer: OneCycleLR(optimizer, max_lr=0.3, total_steps=STEPS + 1, cycle_momentum=False)
    )
    assert ours("one_cycle") == pytest.approx(expected, abs=0.3 * 4 / STEPS)


def test_landmarks():
    cycle, cosine = TrainRecipe(schedule="one_cycle"), TrainRecipe(schedule="cosine")
    assert learning_rate_at(cycle, 0) == pytest.approx(1e-3 / 25)
    assert learning_rate_at(cycle, 0.15) == pytest.approx(1e-3 * (1 + 1 / 25) / 2)
    assert learning_rate_at(cycle, 0.3) == learning_rate_at(cosine, 0) == 1e-3
    assert learning_rate_at(cycle, 0.65) == pytest.approx(5e-4)
    assert learning_rate_at(cycle, 1) == learning_rate_at(cosine, 1) == 0
    rates = ours("one_cycle")
    assert rates[:601] == sorted(set(rates[:601]))
    assert rates[600:] == sorted(set(rates[600:]), reverse=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("gradient_clip", float("inf")),
        ("weight_decay", -1e-3),
        ("schedule", "linear"),
        ("precision", "float16"),
        ("seed", -1),
        ("workers", -1),
        ("epoch", 3),
    ],
)
def test_train_recipe_refuses(field, value):
    with pytest.raises(ValidationError, match=field):
        TrainRecipe(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("weight", 0.0), ("weight", 1.1), ("temperature", 0.0), ("t", 1)])
def test_distillation_recipe_refuses(field, value):
    with pytest.raises(ValidationError, match=field):
        DistillationRecipe(**{field: value})


def test_recipes_are_frozen_and_go_through_json():
    recipe = TrainRecipe(epochs=3, schedule="cosine")
    assert TrainRecipe.model_validate_json(recipe.model_dump_json()) == recipe
    with pytest.raises(ValidationError, match="frozen"):
        recipe.epochs = 4
