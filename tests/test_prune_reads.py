"""Gates on what consumers read: one per sample, also where a sample is cut into windows or read as a sequence."""

import pytest
import torch

from masking import scramble_
from networks import ZOO, build, traced
from secateur.prune.reads import contributions, gated, unit_terms

NAMES = ["window_attention", "perceptron", "attention", "grouped", "flattened", "residual"]


def gate_gradients(model, graph, inputs, *, rows):
    """The gradient of a scalar at gates of shape ``(rows, C_g)``."""
    gates = {g.id: torch.ones(rows, g.width, dtype=torch.float64, requires_grad=True) for g in graph.groups}
    with gated(model, graph, gates):
        output = model(*inputs)
    found = torch.autograd.grad(output.square().sum(), list(gates.values()))
    return dict(zip(gates, found, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_its_own_terms(name):
    model, graph = build(name).double().eval(), traced(name)[1]
    scramble_(model, seed=1)
    inputs = ZOO[name].inputs(batch=3, dtype=torch.float64)
    alone = [gate_gradients(model, graph, [x[i : i + 1] for x in inputs], rows=1) for i in range(3)]
    terms = {group.id: torch.zeros(3, group.width, dtype=torch.float64) for group in graph.groups}

    def report(site, found):
        assert len(found) == 3
        for group in {piece[0] for piece in site.pieces}:
            terms[group] += unit_terms(site, found, group, graph.group(group).width)

    with contributions(model, graph, report):
        output = model(*inputs)
    output.square().sum().backward()
    together = gate_gradients(model, graph, inputs, rows=3)
    for group in terms:
        wanted = torch.cat([each[group] for each in alone])
        assert wanted.abs().max() > 1e-6
        torch.testing.assert_close(terms[group], wanted)
        torch.testing.assert_close(together[group], wanted)
