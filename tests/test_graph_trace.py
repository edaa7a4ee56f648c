"""Looking at a network never touches it, in whatever state it is found."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from masking import halving
from networks import ZOO, Residual, build, traced
from secateur.errors import GraphError
from secateur.graph.copying import safe_copy
from secateur.graph.patch import side_multiple
from secateur.graph.records import InputSpec
from secateur.prune.criteria.taylor import RandomGradient, TaylorFirstOrder
from secateur.prune.evidence import Evidence
from secateur.prune.surgery import remove
from secateur.prune.trial import trace


def train_once(model, name):
    """One training step, so that buffers have moved, gradients are there and non-leaf tensors are stored."""
    model.train()
    output = model(*ZOO[name].inputs(batch=2))
    leaves = torch.utils._pytree.tree_leaves(output)
    sum(leaf.square().mean() for leaf in leaves if isinstance(leaf, torch.Tensor)).backward()


def fingerprint(model):
    """Everything about a network that looking at it could change."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "objects": [id(tensor) for tensor in tensors.values()] + [id(module) for module in model.modules()],
        "versions": [tensor._version for tensor in tensors.values()],
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "gradients": {n: p.grad.clone() if p.grad is not None else None for n, p in model.named_parameters()},
        "gradient objects": [id(p.grad) for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [list(module._forward_hooks) + list(module._forward_pre_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "repr": repr(model),
        "random state": torch.get_rng_state(),
    }


def assert_unchanged(before, after):
    for key in ("values", "gradients", "random state"):
        torch.testing.assert_close(after.pop(key), before.pop(key), rtol=0, atol=0, equal_nan=True)
    assert after == before


@pytest.mark.parametrize("name", ["unet_residual", "dyn_unet_deep", "drop_out"])
@pytest.mark.parametrize("training", [True, False])
def test_trace_score_and_remove_change_nothing(name, training):
    model = build(name)
    train_once(model, name)
    model.train(training)
    next(model.parameters()).requires_grad_(False)
    next(model.children()).register_forward_hook(lambda *_: None)
    inputs = ZOO[name].inputs(batch=2)
    before = fingerprint(model)
    graph = trace(model, inputs)
    evidence = Evidence([(inputs, torch.zeros(()))], lambda output, _: output.square().flatten(1).mean(1))
    TaylorFirstOrder().score(model, graph, evidence)
    remove(model, graph, halving(graph))
    side_multiple(model, InputSpec(tuple(inputs[0].shape), torch.float32))
    assert_unchanged(before, fingerprint(model))


def test_the_fingerprint_sees_a_draw_and_a_buffer():
    model = build("residual")
    before = fingerprint(model)
    model.norm.num_batches_tracked.add_(1)
    with pytest.raises(AssertionError, match="not equal"):
        assert_unchanged(before, fingerprint(model))


@pytest.mark.parametrize("name", ["dyn_unet", "several_outputs"])
def test_the_graph_is_the_same_in_every_state(name):
    expected = traced(name)[1].groups
    model = build(name)
    assert trace(model.eval(), ZOO[name].inputs()).groups == expected
    train_once(model, name)
    with torch.no_grad():
        assert trace(model, ZOO[name].inputs(batch=2)).groups == expected
    with torch.inference_mode():
        inputs = ZOO[name].inputs(batch=2)
        graph = trace(model, inputs)
        assert graph.groups == expected
        scores = TaylorFirstOrder(gradient=RandomGradient()).score(model, graph, Evidence([(inputs, None)]))
        assert all(bool(values.any()) for values in scores.values())
        small = remove(model, graph, halving(graph))
    assert not any(parameter.is_inference() for parameter in small.parameters())


def test_deep_supervision_is_bitwise_that_of_an_untouched_twin():
    model, twin = build("dyn_unet_deep"), build("dyn_unet_deep")
    graph = trace(model, ZOO["dyn_unet_deep"].inputs())
    remove(model, graph, halving(graph))
    for seed in (1, 2):  # twice: stale heads would repeat the first answer
        x = ZOO["dyn_unet_deep"].inputs(batch=2, seed=seed)[0]
        seen, wanted = model.train()(x), twin.train()(x)
        assert seen.shape == (2, 3, 1, 32, 32)
        assert torch.equal(seen, wanted)
    assert not torch.equal(seen, model(ZOO["dyn_unet_deep"].inputs(batch=2, seed=1)[0]))


def test_deep_supervision_survives_in_the_smaller_network():
    """Its heads answer to their own input, not to the one seen while proving."""
    model, graph = traced("dyn_unet_deep")
    small = remove(model, graph, halving(graph)).train()
    first, second = (small(ZOO["dyn_unet_deep"].inputs(batch=2, seed=seed)[0]) for seed in (1, 2))
    for head in range(3):
        assert not torch.equal(first[:, head], second[:, head])
    first.sum().backward()


def test_a_copy_shares_nothing_and_keeps_gradients():
    model = build("residual")
    train_once(model, "residual")
    model.kept = model.first(ZOO["residual"].inputs()[0])  # a non-leaf tensor, which deepcopy refuses
    model.again = [model.kept]
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    twin = safe_copy(model)
    own = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers(), model.kept]}
    own |= {parameter.grad.data_ptr() for parameter in model.parameters()}
    copied = [*twin.parameters(), *twin.buffers(), twin.kept, *(parameter.grad for parameter in twin.parameters())]
    assert own.isdisjoint(tensor.data_ptr() for tensor in copied)
    assert twin.again[0] is twin.kept
    assert torch.equal(twin.kept, model.kept)
    for before, after in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(before.grad, after.grad)


@pytest.mark.parametrize("name", ["basic_unet", "unet_batch_norm", "dyn_unet_deep", "attention_unet"])
def test_allowed_sides(name):
    """All multiples of what is found run, and some multiple of its half does not."""
    model, spec = copy.deepcopy(traced(name)[0]).eval(), InputSpec((1, 3, 64, 64), torch.float32)
    multiple = side_multiple(model, spec)

    def runs(side):
        try:
            model(torch.randn(1, 3, side, side))
        except (RuntimeError, ValueError):
            return False
        return True

    assert all(runs(48 + multiple * times) for times in range(4))
    assert multiple == 1 or not all(runs(48 + multiple // 2 * times) for times in (1, 3))


def test_what_cannot_be_traced_is_said():
    with pytest.raises(
        GraphError, match=r"Residual cannot be traced with .* \(1, 4, 8, 8\): .* Check that model\(example\) runs"
    ):
        trace(Residual(), torch.ones(1, 4, 8, 8))
    with pytest.raises(GraphError, match="ReLU has no parameters"):
        trace(nn.ReLU(), torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.ones(1, 3, 8, 8, 8), r"shape \(1, 3, 8, 8, 8\): running it fails \(Expected 3D"),
        (torch.ones(3, 8, 8), r"shape \(3, 8, 8\): running it fails \(expected 4D input"),
        (torch.ones(1, 3, 8, 8, dtype=torch.double), r"running it fails \(Input type"),
        ([torch.ones(1, 3, 8, 8)] * 2, r"running it fails \(.*takes 2 positional arguments but 3 were given"),
        (torch.ones(0, 3, 8, 8), r"the example is Tensor of shape \(0, 3, 8, 8\); give a tensor \(N, C, \*space\)"),
        (torch.ones(1, 3, 8, 8).numpy(), r"the example is ndarray of shape \(1, 3, 8, 8\); give a tensor"),
        ("a string", "the example is str of shape"),
        ([], "the example is empty; give a tensor"),
    ],
)
def test_an_example_of_another_kind_is_refused(example, message):
    with pytest.raises(GraphError, match=message) as error:
        trace(Residual(), example)
    assert "\n" not in str(error.value)


class WidthFromStart(nn.Module):
    """Remembers at construction what only a forward pass could show."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 1)
        self.width = 8

    def forward(self, x):
        x = F.relu(self.first(x))
        if x.shape[1] != self.width:
            raise ValueError(f"{x.shape[1]} channels instead of {self.width}")
        return self.last(F.relu(self.second(x)))


def test_a_hidden_width_is_pinned_and_the_rest_still_prunes():
    model = WidthFromStart()
    graph = trace(model, torch.randn(1, 3, 8, 8))
    assert [(group.id, group.width) for group in graph.groups] == [("second", 8)]
    reason = "proof failed: the smaller network does not run (6 channels instead of 8)"
    assert ("first", reason, 8) in {(pin.module, pin.reason, pin.channels) for pin in graph.pinned}
    small = remove(model, graph, halving(graph))
    assert small.second.out_channels == small.last.in_channels == 4
