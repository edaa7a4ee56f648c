"""Heads, their weights and distillation against closed forms."""

import math

import numpy as np
import pytest
import torch

from secateur.errors import InputError
from secateur.train.objective import distillation_loss, heads, task_loss
from train_toys import bce


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_heads_of_every_form(rng):
    target = torch.zeros(2, 1, 5, 4)
    stacked = torch.randn(2, 3, 1, 5, 4, generator=rng)
    listed = [stacked[:, k] for k in range(3)]
    for output in (stacked, listed, tuple(listed)):
        found = heads(output, target)
        assert len(found) == 3
        assert all(torch.equal(head, expected) for head, expected in zip(found, listed, strict=True))
    assert torch.equal(heads(listed[0], target)[0], listed[0])
    assert heads(listed[0].bfloat16(), target)[0].dtype == torch.float32


@pytest.mark.parametrize("output", [{"out": torch.zeros(1)}, [], [torch.zeros(2, 1, 5, 4), None]], ids=str)
def test_outputs_that_are_no_heads(output):
    with pytest.raises(InputError, match=f"returns a {type(output).__name__}; training needs a tensor"):
        heads(output, torch.zeros(2, 1, 5, 4))


@pytest.mark.parametrize("shape", [(2, 1, 5, 3), (3, 1, 5, 4), (2, 5, 4)], ids=str)
def test_heads_of_another_shape(shape):
    with pytest.raises(InputError, match=r"shape \(.*\), the mask \(2, 1, 5, 4\)"):
        heads([torch.zeros(shape)], torch.zeros(2, 1, 5, 4))


def test_weights_of_heads():
    target = torch.zeros(2, 1, 1, 1)
    logits = [torch.full_like(target, value) for value in (1.0, 10.0, 100.0)]
    total = task_loss(logits, target, loss=lambda head, _: head.flatten(1).sum(1))
    assert total.tolist() == pytest.approx([(1 + 10 / 2 + 100 / 4) / (1 + 1 / 2 + 1 / 4)] * 2)
    single = task_loss(logits[:1], target, loss=lambda head, _: head.flatten(1).sum(1))
    assert single.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(), (1,), (2, 1)], ids=str)
def test_losses_that_are_not_per_sample(shape):
    target = torch.zeros(2, 1, 4, 4)
    with pytest.raises(InputError, match=r"for 2 samples; it must return one value per sample, \(2,\)"):
        task_loss([target], target, loss=lambda *_: torch.zeros(shape))


def test_binary_distillation_is_cross_entropy_less_the_teachers_entropy(rng):
    student, teacher = torch.randn(2, 3, 1, 4, 5, generator=rng).mul(3)
    temperature = 1.7
    p = 1 / (1 + np.exp(-teacher.double().numpy() / temperature))
    q = 1 / (1 + np.exp(-student.double().numpy() / temperature))
    cross = -(p * np.log(q) + (1 - p) * np.log(1 - q))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    expected = (cross - entropy).mean(axis=(1, 2, 3)) * temperature**2
    np.testing.assert_allclose(distillation_loss(student, teacher, temperature=temperature), expected, rtol=1e-4)


def test_binary_distillation_has_the_gradient_of_soft_cross_entropy(rng):
    student, teacher = torch.randn(2, 1, 1, 4, 5, generator=rng, dtype=torch.float64)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(distillation_loss(student, teacher, temperature=2.0).sum(), student)
    soft = torch.nn.functional.binary_cross_entropy_with_logits(student / 2, (teacher / 2).sigmoid()) * 4
    (expected,) = torch.autograd.grad(soft, student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_class_distillation_is_the_divergence_of_softmaxes(rng):
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=rng)
    p = np.exp(teacher.double().numpy() / 3)
    q = np.exp(student.double().numpy() / 3)
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    expected = (p * np.log(p / q)).sum(1).mean((1, 2)) * 9
    np.testing.assert_allclose(distillation_loss(student, teacher, temperature=3.0), expected, rtol=1e-4)


def test_distillation_at_its_ends(rng):
    logits = torch.randn(2, 1, 4, 5, generator=rng)
    assert distillation_loss(logits, logits, temperature=2.0).abs().max() < 1e-6
    # 60 against -60: the divergence is the distance of the logits over T, times T squared, without overflow.
    far = distillation_loss(torch.full((1, 1, 2, 2), -60.0), torch.full((1, 1, 2, 2), 60.0), temperature=2.0)
    assert far.item() == pytest.approx(60 * 2, rel=1e-5)
    assert math.isfinite(bce(torch.full((1, 1, 2, 2), -60.0), torch.ones(1, 1, 2, 2)).item())


def test_no_gradient_reaches_the_teacher(rng):
    student, teacher = (torch.randn(1, 1, 2, 2, generator=rng, requires_grad=True) for _ in range(2))
    distillation_loss(student, teacher, temperature=2.0).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_distillation_between_different_shapes():
    with pytest.raises(InputError, match=r"shape \(1, 2, 4, 4\), the teacher \(1, 1, 4, 4\)"):
        distillation_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4), temperature=1.0)
