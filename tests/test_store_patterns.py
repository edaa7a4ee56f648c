"""Every graph pattern comes back from disk as it was cut: tensors, and what modules count besides."""

import inspect
import json

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import secateur as sc
from secateur.errors import RecordError
from secateur.records import read_record
from toys import TOYS as CONVOLUTIONAL
from toys import Network
from transformer_toys import TRANSFORMERS

_BY_CLASS = {name: toy for name, toy in {**CONVOLUTIONAL, **TRANSFORMERS}.items() if inspect.isclass(toy.build)}


class Blurred(nn.Sequential):
    """A fixed kernel per channel, which is not among the saved weights."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1))
        self.register_buffer("kernel", torch.rand(8, 1, 3, 3), persistent=False)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = self[0](x)
        return self[1](nn.functional.conv2d(x, self.kernel, padding=1, groups=x.shape[1]))


class NormedGroups(nn.Sequential):
    """A GroupNorm, and an instance norm without a scale."""

    def __init__(self, groups=4):
        super().__init__(
            nn.Conv2d(3, 16, 1), nn.GroupNorm(groups, 16), nn.ReLU(), nn.InstanceNorm2d(16), nn.Conv2d(16, 1, 1)
        )


def cut(network):
    """The pruned network with weights that are all different, its plan and how to build the dense one."""
    torch.manual_seed(1)
    model = network.build().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) / 2)
    graph = sc.trace(model, network.inputs())
    kept = {g.id: tuple(u for u in range(g.width) if u % 2 or u > g.width / 2) or (0,) for g in graph.groups}
    plan = sc.PruningPlan(kept, {g.id: g.width for g in graph.groups})
    spec = sc.ModelSpec(f"{network.build.__module__}:{network.build.__name__}")
    return sc.remove(model, graph, plan), plan, spec


@pytest.mark.parametrize("name", [*_BY_CLASS, "blurred", "normed_groups"])
def test_a_cut_network_comes_back_from_disk(tmp_path, name):
    own = {"blurred": Network(Blurred, ((3, 8, 8),)), "normed_groups": Network(NormedGroups, ((3, 8, 8),))}
    network = {**_BY_CLASS, **own}[name]
    small, plan, spec = cut(network)
    sc.save(small, tmp_path, spec=spec, plan=plan)
    again = sc.load(tmp_path)
    inputs = network.inputs(batch=2, seed=3)
    with torch.no_grad():
        before, after = (tree_leaves(model.eval()(*inputs)) for model in (small, again))
    assert len(before) == len(after) > 0
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(before, after, strict=True))
    assert repr(again) == repr(small)


def test_what_no_tensor_tells_is_in_the_record(tmp_path):
    small, plan, spec = cut(Network(NormedGroups, ((3, 8, 8),)))
    sc.save(small, tmp_path, spec=spec, plan=plan)
    record = read_record(tmp_path / "architecture.json")
    assert record["counts"] == {"1.num_groups": 2}
    assert record["norm_widths"] == {"3": 8}
    (tmp_path / "architecture.json").write_text(json.dumps({**record, "counts": {"1.groups": 2}}))
    with pytest.raises(RecordError, match=r"makes nothing that counts 1\.groups"):
        sc.load(tmp_path)


def test_saving_and_loading_leave_the_random_state_alone(tmp_path):
    small, plan, spec = cut(Network(NormedGroups, ((3, 8, 8),)))
    state = torch.random.get_rng_state()
    sc.save(small, tmp_path, spec=spec, plan=plan)
    sc.load(tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
