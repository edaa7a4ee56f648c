"""L1, L2 and uniform width against NumPy."""

import numpy as np
import pytest
import torch

from networks import build, traced
from secateur.prune.criteria.norms import L1Norm, L2Norm
from secateur.prune.criteria.uniform_width import UniformWidth

NORMS = {L1Norm: lambda filters: np.abs(filters).sum(1), L2Norm: lambda filters: np.sqrt((filters**2).sum(1))}


def relative(values):
    return values / values.mean()


@pytest.mark.parametrize("criterion", NORMS)
def test_filters_of_all_writers_count(criterion):
    model, graph = traced("residual")  # the residual sum has two writers
    first, conv = (getattr(model, name).weight.detach().double().numpy().reshape(6, -1) for name in ("first", "conv"))
    wanted = relative(NORMS[criterion](np.concatenate([first, conv], axis=1)))
    np.testing.assert_allclose(criterion().score(model, graph)["first"].numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("criterion", NORMS)
def test_units_of_several_filters(criterion):
    model, graph = traced("grouped")
    weight = model.grouped.weight.detach().double().numpy().reshape(2, 4, -1)  # unit k: filters k and 4 + k
    wanted = relative(NORMS[criterion](weight.transpose(1, 0, 2).reshape(4, -1)))
    np.testing.assert_allclose(criterion().score(model, graph)["grouped"].numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("criterion", NORMS)
def test_transposed_filters(criterion):
    model, graph = traced("transposed")
    weight = model.up.weight.detach().double().numpy().transpose(1, 0, 2, 3).reshape(4, -1)
    wanted = relative(NORMS[criterion](weight))
    np.testing.assert_allclose(criterion().score(model, graph)["up"].numpy(), wanted, rtol=1e-12)


def test_a_group_of_zero_filters_scores_zero():
    model, graph = build("concat_skip"), traced("concat_skip")[1]
    torch.nn.init.zeros_(model.conv.weight)
    assert L2Norm().score(model, graph)["conv"].tolist() == [0.0] * 4


def test_uniform_width_ranks_within_the_group():
    model, graph = build("concat_skip"), traced("concat_skip")[1]
    with torch.no_grad():
        for unit, size in enumerate([3.0, 1.0, 2.0, 2.0]):
            model.conv.weight[unit] = size
    assert UniformWidth().score(model, graph)["conv"].tolist() == [1.0, 0.25, 0.75, 0.5]
    ranks = UniformWidth(L1Norm()).score(model, graph)["first"]
    inner = L1Norm().score(model, graph)["first"].numpy()
    np.testing.assert_allclose(ranks.numpy(), (inner.argsort().argsort() + 1) / 6)
