"""Captures: a recorded run finds what `torch.export` finds, and goes on where that gives up."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as module_hooks

import secateur as sc
from networks import ZOO, build
from secateur.errors import GraphError
from secateur.graph import capture as capturing
from secateur.graph.trace import trace_channels

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """``first`` to six channels, ``left`` or ``right`` in the middle, ``last`` to one."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.left, self.right, self.last = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 1, 1)

    def stem(self, x):
        return F.relu(self.norm(self.first(x)), inplace=True)


class Branches(Net):
    def forward(self, x):
        return self.last(self.left(self.stem(x)) if x.mean() > 0 else self.right(self.stem(x)))


class Items(Net):
    def forward(self, x):
        return self.last(self.left(self.stem(x)) if x.mean().item() > 0.3 else self.right(self.stem(x)))


class Logbook:
    def __init__(self):
        self.means = []

    def note(self, x):
        self.means.append(float(x.detach().numpy().mean()))


class Wrapped(nn.Module):
    """State in Python, any arguments, a dictionary that also counts."""

    def __init__(self):
        super().__init__()
        self.net, self.log = Net(), Logbook()

    def forward(self, *images, scale=2.0, **options):
        self.log.note(images[0])
        net = self.net
        return {"logits": net.last(net.left(net.stem(images[0] * scale))), "seen": len(self.log.means)}


class Broken(Net):
    def forward(self, x):
        raise KeyError("scanner")


def without_export(monkeypatch):
    def refuse(*_):
        raise RuntimeError("not today")

    monkeypatch.setattr(capturing, "_export", refuse)


@pytest.mark.parametrize(
    "name",
    ["unet_residual", "basic_unet_resize", "dyn_unet_deep", "attention_unet", "squeeze_excite", "depthwise",
     "shared_norm", "aliased", "two_inputs", "several_outputs", "dead_branch", "weight_norm"],
)  # fmt: skip
def test_a_recorded_run_finds_what_an_export_finds(name, monkeypatch):
    model, example = build(name), ZOO[name].inputs()
    exported = trace_channels(model, example)
    without_export(monkeypatch)
    recorded = trace_channels(model, example)
    assert exported.groups or name == "weight_norm"
    assert recorded.groups == exported.groups
    assert recorded.pinned == exported.pinned
    assert recorded.layers == exported.layers


@pytest.mark.parametrize("network", [Branches, Items])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_branches_are_seen_and_both_are_cut(network, sign):
    torch.manual_seed(0)
    model = network().eval()
    with pytest.raises(Exception, match=r"."):
        capturing._export(network(), [IMAGE])
    graph = sc.trace(model, sign * (IMAGE + 1))
    assert {(group.id, group.width) for group in graph.groups} == {("first", 6), ("left" if sign > 0 else "right", 4)}
    middle = next(group for group in graph.groups if group.width == 4)
    assert {"left.weight", "right.weight", "last.weight"} <= {piece.tensor for piece in middle.slices}
    small = sc.remove(model, graph, sc.PruningPlan({"first": (0, 2), middle.id: (1, 2)}, {"first": 6, middle.id: 4}))
    with torch.no_grad():
        for conv in (model.left, model.right):
            conv.weight[:, [1, 3, 4, 5]] = 0
        model.last.weight[:, [0, 3]] = 0
        for image in (IMAGE + 1, IMAGE - 1):
            torch.testing.assert_close(small(image), model(image))


def test_wrappers_state_and_odd_signatures(capfd):
    model = Wrapped()
    with pytest.raises(Exception, match=r"."):
        capturing._export(Wrapped(), [IMAGE])
    before = capfd.readouterr()
    graph = sc.trace(model, IMAGE)
    assert [(group.id, group.width) for group in graph.groups] == [("net.first", 6), ("net.left", 4)]
    assert ("net.last", "network output (seen in net.last)") in {(pin.module, pin.reason) for pin in graph.pinned}
    assert model.log.means == []  # copies ran, not the user's own
    assert before == capfd.readouterr() == ("", "")


def test_hooks_are_gone_afterwards():
    sc.trace(Branches(), IMAGE)
    with pytest.raises(GraphError):
        sc.trace(Broken(), IMAGE)
    assert not module_hooks._global_forward_hooks
    assert not module_hooks._global_forward_pre_hooks


def test_a_changed_answer_is_given_once_and_bounded():
    class Often(Net):
        def forward(self, x):
            x = self.stem(x)
            for _ in range(20):
                x = x if x.sum() > 0 else x * 2
            return self.last(self.left(x))

    paths = capturing.capture(Often(), [IMAGE], training=False)
    assert len(paths) == 1 + capturing._PATHS
    doublings = [sum(str(node.target) == "aten.mul.Tensor" for node in path.graph.nodes) for path in paths]
    assert doublings == [0] + [1] * capturing._PATHS


def test_both_reasons_are_named():
    message = r"Broken cannot be traced .* \(1, 3, 8, 8\): running it fails \('scanner'\).* torch.export \(.*scanner"
    with pytest.raises(GraphError, match=message):
        sc.trace(Broken(), IMAGE)
    with pytest.raises(GraphError, match=r"running it fails \(.*expected input\[1, 4, 8, 8\] to have 3 channels"):
        sc.trace(Branches(), torch.randn(1, 4, 8, 8))


class Pooled(Net):
    """One position of one sample has no variance: batch norms refuse it, though only in train mode."""

    def forward(self, x):
        return self.last(self.left(self.stem(x.mean((2, 3), keepdim=True))))


def test_a_single_sample_that_batch_norms_refuse_is_doubled():
    graph, of_two = (trace_channels(Pooled(), torch.cat([IMAGE] * batch)) for batch in (1, 2))
    assert graph.groups == of_two.groups
    assert graph.layers == of_two.layers


def test_what_doubling_does_not_cure_is_said():
    class Strict(Pooled):
        def forward(self, x):
            if len(x) > 1:
                raise ValueError("one scan at a time")
            return super().forward(x)

    with pytest.raises(GraphError, match="one scan at a time"):
        trace_channels(Strict(), IMAGE)


class Searched(Net):
    """An architecture of constant tensors decides what runs; ``step`` is one that the network itself changes."""

    def __init__(self, codes):
        super().__init__()
        self.codes, self.step = torch.tensor(codes), torch.tensor(0)

    def forward(self, x):
        x = self.stem(x)
        found = [path(x) for code, path in zip(self.codes, (self.left, self.right), strict=True) if code]
        return self.last(sum(found[1:], found[0]))


class Stepping(Searched):
    def forward(self, x):
        self.step += 1
        return self.last(self.left(self.stem(x)) if self.step > 1000 else self.right(self.stem(x)))


def test_answers_of_constants_are_settings(monkeypatch):
    without_export(monkeypatch)
    graph = trace_channels(Searched([1, 0]), IMAGE)
    assert {pin.module: pin.reason for pin in graph.pinned if not pin.reason.startswith("network output")} == {
        "right": "not reached by the forward pass in either mode"
    }
    assert {group.id: group.width for group in graph.groups} == {"first": 6, "left": 4}


def test_answers_that_change_while_running_are_not(monkeypatch):
    without_export(monkeypatch)
    reached = {piece.tensor for group in trace_channels(Stepping([1, 1]), IMAGE).groups for piece in group.slices}
    assert {"left.weight", "right.weight"} <= reached
