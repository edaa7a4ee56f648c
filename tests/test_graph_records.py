"""Groups as plain data: nothing has two owners, and shrinking the graph is what tracing the smaller network finds."""

import dataclasses

import pytest
import torch

from masking import halving, random_plan
from networks import SLOW, ZOO, traced
from secateur.graph.records import Role
from secateur.prune.surgery import remove
from secateur.prune.trial import trace

NAMES = [name for name in ZOO if name not in SLOW]
every_network = pytest.mark.parametrize("name", NAMES)


@every_network
def test_every_index_has_at_most_one_owner(name):
    model, graph = traced(name)
    owners = [
        (piece.tensor, piece.dim, position)
        for group in graph.groups
        for piece in group.slices
        for position in piece.positions
    ]
    assert len(owners) == len(set(owners))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for group in graph.groups:
        for piece in group.slices:
            if piece.role is not Role.WIDTH:
                assert max(piece.positions) < tensors[piece.tensor].shape[piece.dim]
            assert set(piece.units) == set(range(group.width))
            assert len(piece.positions) % group.width == 0  # interchangeable units hold equally much


@pytest.mark.parametrize("name", ["unet_residual", "dyn_unet_deep", "concat_skip", "grouped", "squeeze_excite"])
def test_the_kept_graph_is_that_of_the_smaller_network(name):
    model, graph = traced(name)
    plan = random_plan(graph, seed=5)
    shrunk, fresh = graph.keep(plan.kept), trace(remove(model, graph, plan), ZOO[name].inputs())
    assert shrunk.shapes == fresh.shapes
    assert {places(group): group.width for group in shrunk.groups} == {
        places(group): group.width for group in fresh.groups
    }


def places(group):
    """What sits where, without the names of units, which both graphs number for themselves."""
    units = {}
    for piece in group.slices:
        for position, unit in zip(piece.positions, piece.units, strict=True):
            units.setdefault(unit, []).append((piece.tensor, piece.dim, piece.role, position))
    return frozenset(frozenset(unit) for unit in units.values())


def test_keeping_everything_keeps_the_graph():
    graph = traced("dyn_unet_deep")[1]
    assert graph.keep({}) == graph
    assert graph.keep({group.id: tuple(range(group.width)) for group in graph.groups}) == graph


def test_groups_are_found_by_name():
    graph = traced("concat_skip")[1]
    assert graph.group("conv").width == 4
    with pytest.raises(KeyError, match="nothing"):
        graph.group("nothing")


def test_graphs_are_frozen():
    graph = traced("residual")[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.groups = ()
    assert graph.inputs[0].dtype is torch.float32
    assert halving(graph).kept == {"first": (0, 2, 4)}
