"""Removal in the middle of training: what stays trains on as if the rest were gated; failures change nothing."""

import copy
import random
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils import _pytree as pytree

import secateur
from masking import assert_same_outputs, halving, plan_of, random_plan, scramble_, silenced
from networks import ZOO, build, traced
from secateur.errors import EvidenceError, InputError, PlanMismatchError, ProofError
from secateur.prune import in_place, statistics
from secateur.prune.criteria import CRITERIA
from secateur.prune.evidence import Evidence
from secateur.prune.in_place import remove_
from secateur.prune.plan import PruningPlan
from secateur.prune.reads import gated, masks
from secateur.prune.statistics import KeptStatistics
from secateur.prune.surgery import remove

EVEN = secateur.GroupNormMode.EVEN
NAMED = {
    "sgd": lambda groups: optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: optim.Adam(groups, lr=0.01),
    "adamw_amsgrad": lambda groups: optim.AdamW(groups, lr=0.01, amsgrad=True),
}
OTHERS = {
    "sgd_without_momentum": lambda groups: optim.SGD(groups, lr=0.05),
    "rmsprop": lambda groups: optim.RMSprop(groups, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda groups: optim.Adagrad(groups, lr=0.01),
    "adadelta": lambda groups: optim.Adadelta(groups, lr=0.5),
    "adamax": lambda groups: optim.Adamax(groups, lr=0.01),
    "nadam": lambda groups: optim.NAdam(groups, lr=0.01),
    "radam": lambda groups: optim.RAdam(groups, lr=0.01),
    "asgd": lambda groups: optim.ASGD(groups, lr=0.01, t0=2),
    "rprop": lambda groups: optim.Rprop([{"params": group["params"]} for group in groups], lr=0.01),
    "one_at_a_time": lambda groups: optim.AdamW(groups, lr=0.01, foreach=False),
    "fused": lambda groups: optim.AdamW(groups, lr=0.01, fused=True),
}


class Training:
    """A float64 network with its optimizer, schedule, clipped gradients and average."""

    def __init__(self, name, make, *, seed=0):
        self.name, self.network, self.steps = name, build(name, seed=seed).double(), 0
        kernels = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": 1e-2}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = make(groups)
        self.schedule = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=12)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=True)

    def step(self, gates=None):
        """One step on inputs of its own; ``gates`` is a context in which the network reads through gates."""
        inputs = ZOO[self.name].inputs(batch=2, seed=self.steps, dtype=torch.float64)
        self.optimizer.zero_grad()
        with gates or nullcontext():
            leaves = pytree.tree_leaves(self.network(*inputs))
        self.loss = sum((leaf - leaf.detach().mean() - 0.3).square().mean() for leaf in leaves)  # kept alive on purpose
        self.loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.network)
        self.steps += 1

    def remove_(self, graph, plan):
        return remove_(self.network, graph, plan, optimizer=self.optimizer, ema=self.average)

    def tensors(self):
        """Everything that is cut, as (what it is, the name of the network's tensor that it belongs to, tensor)."""
        for kind, network in (("network", self.network), ("average", self.average.module)):
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                yield kind, name, tensor
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None:
                yield "gradient", name, parameter.grad
            for key, value in self.optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    yield key, name, value

    def everything(self):
        """A copy of all that a failure must leave alone, and the descriptions of the networks."""
        state = {
            "tensors": {f"{kind} of {name}": tensor for kind, name, tensor in self.tensors()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict(),
            "modes": {name: module.training for name, module in self.network.named_modules()},
        }
        return copy.deepcopy(state), repr(self.network) + repr(self.average)

    def assert_unchanged(self, before):
        state, description = self.everything()
        assert description == before[1]
        torch.testing.assert_close(state, before[0], rtol=0, atol=0)


def survivors(tensor, name, graph, plan):
    """The entries of a tensor shaped like ``name`` that belong to no removed unit."""
    for dim in range(tensor.ndim):
        gone = {
            position
            for group, kept in plan.kept.items()
            for piece in graph.group(group).slices
            if (piece.tensor, piece.dim) == (name, dim)
            for position, unit in zip(piece.positions, piece.units, strict=True)
            if unit not in kept
        }
        tensor = tensor.index_select(dim, torch.tensor([i for i in range(tensor.shape[dim]) if i not in gone]))
    return tensor


def assert_survivors(small, dense, graph, plan, **tolerance):
    """``small`` holds what ``dense`` holds for the units that ``plan`` keeps."""
    found, wanted = list(small.tensors()), list(dense.tensors())
    assert [entry[:2] for entry in found] == [entry[:2] for entry in wanted]
    for (kind, name, after), (_, _, before) in zip(found, wanted, strict=True):
        expected = survivors(before, name, graph, plan)
        where = f"{kind} of {name}: "
        torch.testing.assert_close(after, expected, **tolerance, msg=where.__add__)


def shaving(graph, seed):
    """Removes one or two units of most groups."""
    chance = random.Random(seed)
    kept = {}
    for group in graph.groups:
        if group.width > 2 and chance.random() < 0.7:
            kept[group.id] = tuple(sorted(chance.sample(range(group.width), group.width - chance.randint(1, 2))))
    return plan_of(graph, kept)


@contextmanager
def masked(network, graph, kept):
    """Gates on what is read and, where the graph is approximate, statistics of what stays."""
    with gated(network, graph, masks(graph, kept)), KeptStatistics(network, graph, kept):
        yield


def check_trajectory(name, make, *, epochs=4, graph=None):
    """Removal after every epoch against a network that keeps its channels and gates what reads them."""
    dense, small, original = Training(name, make), Training(name, make), graph or traced(name)[1]
    graph, removed = original, PruningPlan({}, {})
    for epoch in range(epochs):
        for _ in range(2):
            dense.step(masked(dense.network, original, removed.kept))
            small.step()
        # sums over other numbers of channels round in another order: about 1e-16 a step, a little more through Adam
        assert_survivors(small, dense, original, removed, rtol=1e-9, atol=1e-11)
        plan = shaving(graph, seed=epoch)
        graph, removed = small.remove_(graph, plan), removed.then(plan)
    assert sum(group.width for group in graph.groups) < 0.7 * sum(group.width for group in original.groups)
    assert graph == original.keep(removed.kept)
    assert dense.schedule.get_last_lr() == small.schedule.get_last_lr()
    assert int(small.average.n_averaged) == 2 * epochs


NETWORKS = ["residual", "concat_skip", "depthwise_multiplier", "attention", "unet_batch_norm", "dyn_unet_deep"]


@pytest.mark.parametrize("optimizer", NAMED)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_on_as_if_what_is_removed_were_gated(name, optimizer):
    check_trajectory(name, NAMED[optimizer])


@pytest.mark.parametrize("optimizer", NAMED)
def test_an_approximate_removal_trains_on_as_if_statistics_were_of_what_stays(optimizer, monkeypatch):
    graph = secateur.trace(build("group_norm_blocks"), ZOO["group_norm_blocks"].inputs(), group_norm=EVEN)
    check_trajectory("group_norm_blocks", NAMED[optimizer], epochs=5, graph=graph)
    monkeypatch.setattr(statistics, "_staying", lambda graph, kept, norm: torch.ones(graph.shapes[norm]))
    monkeypatch.setattr(in_place, "prove", lambda *args: SimpleNamespace(require=lambda: None))
    with pytest.raises(AssertionError, match=r"of .*: Tensor-likes are not close"):
        check_trajectory("group_norm_blocks", NAMED[optimizer], epochs=5, graph=graph)


@pytest.mark.parametrize("optimizer", OTHERS)
def test_every_optimizer_that_treats_elements_alone_goes_on(optimizer):
    check_trajectory("transposed", OTHERS[optimizer])


def forgotten_state(monkeypatch):
    monkeypatch.setattr(in_place, "_states", lambda optimizers, network: [])


def fresh_state(monkeypatch):
    monkeypatch.setattr(in_place, "_select", lambda value, name, removed, like: torch.zeros_like(like))


def state_of_other_channels(monkeypatch):
    right = in_place._select
    monkeypatch.setattr(
        in_place, "_select", lambda value, *args, like: right(value.flip(tuple(range(value.ndim))), *args, like=like)
    )


def shapes_that_autograd_remembers(monkeypatch):
    def wrong(parameter, values, gradient):
        parameter.grad = None
        parameter.data = values
        parameter.grad = gradient

    monkeypatch.setattr(in_place, "_put_", wrong)


def forgotten_average(monkeypatch):
    right = in_place._networks
    monkeypatch.setattr(in_place, "_networks", lambda *args: right(*args)[:1])


def average_with_buffers_of_other_channels(monkeypatch):
    right, networks = in_place._cut_in_place_, []

    def wrong(network, graph, kept):
        before = network.norm.running_mean
        right(network, graph, kept)
        networks.append(network)
        if network is not networks[0]:
            network.norm.running_mean = before[: len(network.norm.running_mean)].clone()

    monkeypatch.setattr(in_place, "_cut_in_place_", wrong)


@pytest.mark.parametrize(
    "mutant",
    [
        forgotten_state, fresh_state, state_of_other_channels, shapes_that_autograd_remembers,
        forgotten_average, average_with_buffers_of_other_channels,
    ],
)  # fmt: skip
@pytest.mark.parametrize("optimizer", NAMED)
def test_a_wrong_removal_leaves_the_trajectory(mutant, optimizer, monkeypatch):
    mutant(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError)):
        check_trajectory("residual", NAMED[optimizer])


@settings(max_examples=4, derandomize=True)
@given(seed=st.integers(1, 2**32 - 1))
@pytest.mark.parametrize("name", ["residual", "grouped", "aliased", "shared_norm", "unet_residual"])
def test_it_leaves_what_remove_makes(name, seed):
    """Weights, buffers, gradients, widths and outputs are those of `remove`; averages and states the kept slices."""
    training, before, graph = Training(name, NAMED["adam"]), Training(name, NAMED["adam"]), traced(name)[1]
    for each in (training, before):
        scramble_(each.network, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # drop-out
            each.step()
    plan = random_plan(graph, seed=seed)
    smaller = training.remove_(graph, plan)
    wanted = remove(before.network, graph, plan)
    assert smaller == graph.keep(plan.kept)
    assert repr(training.network) == repr(wanted) == repr(training.average.module)
    torch.testing.assert_close(training.network.state_dict(), wanted.state_dict(), rtol=0, atol=0)
    assert_survivors(training, before, graph, plan, rtol=0, atol=0)
    masked = silenced(before.average.module, graph, plan)
    assert_same_outputs(masked, training.average.module, ZOO[name].inputs(batch=2))
    training.step()


def test_an_empty_plan_changes_nothing():
    training, graph = Training("residual", NAMED["adam"]), traced("residual")[1]
    training.step()
    before, held = training.everything(), list(training.network.parameters())
    whole = plan_of(graph, {group.id: tuple(range(group.width)) for group in graph.groups})
    for plan in (PruningPlan({}, {}), whole):
        assert training.remove_(graph, plan) == graph
    training.assert_unchanged(before)
    assert all(a is b for a, b in zip(held, training.network.parameters(), strict=True))


def test_objects_hooks_flags_and_modes_stay():
    training, graph = Training("residual", NAMED["sgd"]), traced("residual")[1]
    network, parameters, calls = training.network, list(training.network.parameters()), []
    network.first.bias.requires_grad_(False)
    network.norm.eval()
    network.conv.register_forward_hook(lambda *_: calls.append("forward"))
    network.conv.register_full_backward_hook(lambda *_: calls.append("backward"))
    network.conv.weight.register_hook(lambda gradient: calls.append(tuple(gradient.shape)))
    network.conv.weight.register_post_accumulate_grad_hook(lambda p: calls.append(p is network.conv.weight))
    training.step()
    held = [list(group["params"]) for group in training.optimizer.param_groups]
    options = [{k: v for k, v in group.items() if k != "params"} for group in training.optimizer.param_groups]
    training.remove_(graph, halving(graph))
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in parameters)
    assert training.schedule.optimizer is training.optimizer
    for group, params, kept in zip(training.optimizer.param_groups, held, options, strict=True):
        assert all(a is b for a, b in zip(group["params"], params, strict=True))
        assert {k: v for k, v in group.items() if k != "params"} == kept
    assert not network.first.bias.requires_grad
    assert all(p.requires_grad for p in parameters if p is not network.first.bias)
    assert network.training
    assert not network.norm.training
    calls.clear()
    training.step()
    assert sorted(map(str, calls)) == ["(3, 3, 3, 3)", "True", "backward", "forward"]


def test_memory_format_of_weights_and_states_is_kept():
    model, graph = build("dyn_unet").to(memory_format=torch.channels_last), traced("dyn_unet")[1]
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(*ZOO["dyn_unet"].inputs()).sum().backward()
    optimizer.step()
    remove_(model, graph, halving(graph), optimizer=optimizer)
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    for kernel in kernels:
        for tensor in (kernel, kernel.grad, optimizer.state[kernel]["momentum_buffer"]):
            assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert any(not kernel.is_contiguous() for kernel in kernels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_are_kept(dtype):
    model, graph = build("residual").to(dtype), traced("residual")[1]
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(2):
        optimizer.zero_grad()
        model(*ZOO["residual"].inputs(batch=2, dtype=dtype)).float().sum().backward()
        optimizer.step()
        if step == 0:
            remove_(model, graph, halving(graph), optimizer=optimizer)
    states = [optimizer.state[parameter]["momentum_buffer"] for parameter in model.parameters()]
    assert {tensor.dtype for tensor in [*model.parameters(), *states]} == {dtype}


def test_a_gradient_scaler_goes_on():
    model, graph = build("residual"), traced("residual")[1]
    optimizer, scaler = optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(*ZOO["residual"].inputs(batch=2, seed=step)).float().square().mean()
        before = model.last.weight.detach().clone()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert not torch.equal(model.last.weight, before)
        if step == 1:
            assert scaler.get_scale() == 128.0
            graph = remove_(model, graph, halving(graph), optimizer=optimizer)
    assert scaler.get_scale() == 256.0


def test_several_optimizers_and_averages():
    model, graph = build("residual"), traced("residual")[1]
    averages = [copy.deepcopy(model), AveragedModel(model), AveragedModel(AveragedModel(model))]
    kernels = [model.first.weight, model.conv.weight]
    optimizers = [
        optim.Adam(kernels),
        optim.SGD([p for p in model.parameters() if p.ndim < 2], lr=0.1, momentum=0.9),
    ]
    model(*ZOO["residual"].inputs(batch=2)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    remove_(model, graph, halving(graph), optimizer=optimizers, ema=averages)
    assert optimizers[0].state[kernels[1]]["exp_avg"].shape == model.conv.weight.shape == (3, 3, 3, 3)
    assert optimizers[1].state[model.conv.bias]["momentum_buffer"].shape == (3,)
    inner = [averages[0], averages[1].module, averages[2].module.module]
    assert [repr(average) for average in inner] == [repr(model)] * 3
    averages[1].update_parameters(model)
    torch.testing.assert_close(averages[1].module.state_dict(), model.state_dict())


def test_what_accelerate_prepared():
    from accelerate import Accelerator

    accelerator, plain, graph = Accelerator(cpu=True), Training("residual", NAMED["adam"]), traced("residual")[1]
    prepared = Training("residual", NAMED["adam"])
    prepared.network = accelerator.prepare_model(prepared.network)
    prepared.optimizer = accelerator.prepare_optimizer(prepared.optimizer)
    for training in (plain, prepared):
        training.step()
        training.remove_(graph, halving(graph))
        training.step()
    assert_survivors(prepared, plain, graph, PruningPlan({}, {}), rtol=0, atol=0)


def test_a_wrapped_network_is_found():
    model, graph = build("residual"), traced("residual")[1]
    wrapper = nn.Sequential(model)  # holds the same parameters under other names, as torch.compile's wrapper does
    optimizer = optim.SGD(wrapper.parameters(), lr=0.1)
    remove_(wrapper, graph, halving(graph), optimizer=optimizer)
    assert model.conv.weight.shape == (3, 3, 3, 3)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_random_numbers_and_surroundings_do_not_matter(context):
    training, graph = Training("unet_residual", NAMED["adam"]), traced("unet_residual")[1]
    training.step()
    state = torch.get_rng_state()
    with context():
        training.remove_(graph, halving(graph))
    assert torch.equal(torch.get_rng_state(), state)
    training.step()


class Interrupted(BaseException):
    """Like an interrupt from the keyboard, which is no `Exception`."""


def failing(monkeypatch, function, call, *, after=True):
    """Let the ``call``-th call of a function of `in_place` fail once, after its work or before it."""
    right, calls = getattr(in_place, function), []

    def wrong(*args, **kwargs):
        calls.append(1)
        if len(calls) == call and not after:
            raise Interrupted
        result = right(*args, **kwargs)
        if len(calls) == call:
            raise Interrupted
        return result

    monkeypatch.setattr(in_place, function, wrong)


FAILURES = [
    ("prove", 1), ("cut_", 1), ("cut_", 3), ("cut_", 4), ("_cut_in_place_", 1), ("_cut_in_place_", 2), ("_put_", 1),
    ("_put_", 3), ("_put_", 9), ("_select", 1), ("_select", 5),
]  # fmt: skip


@pytest.mark.parametrize(("function", "call"), FAILURES)
@pytest.mark.parametrize("after", [True, False])
def test_all_or_nothing(function, call, after, monkeypatch):
    """Wherever it fails, nothing has changed, training goes on as if nothing had been, and a second try succeeds."""
    graph = traced("residual")[1]
    training, untouched = Training("residual", NAMED["adamw_amsgrad"]), Training("residual", NAMED["adamw_amsgrad"])
    for each in (training, untouched):
        each.step()
    before, held = training.everything(), list(training.network.parameters())
    with monkeypatch.context() as patch:
        failing(patch, function, call, after=after)
        with pytest.raises(Interrupted):
            training.remove_(graph, halving(graph))
    training.assert_unchanged(before)
    assert all(a is b for a, b in zip(held, training.network.parameters(), strict=True))
    for each in (training, untouched):
        each.step()
    assert_survivors(training, untouched, graph, PruningPlan({}, {}), rtol=0, atol=0)
    training.remove_(graph, halving(graph))
    assert_survivors(training, untouched, graph, halving(graph), rtol=0, atol=0)


def test_a_removal_that_is_not_exact_changes_nothing(monkeypatch):
    training, graph = Training("residual", NAMED["adam"]), traced("residual")[1]
    training.step()
    before, right = training.everything(), in_place.cut_

    def wrong(network, graph, kept):
        right(network, graph, kept)
        with torch.no_grad():
            network.conv.weight[0] += 1e-6

    monkeypatch.setattr(in_place, "cut_", wrong)
    with pytest.raises(ProofError, match="differ"):
        training.remove_(graph, halving(graph))
    training.assert_unchanged(before)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def stepped(make):
    model = build("residual")
    optimizer = make(model)
    model(*ZOO["residual"].inputs(batch=2)).square().mean().backward()
    optimizer.step(*([lambda: model(*ZOO["residual"].inputs(batch=2)).mean()] if "LBFGS" in repr(optimizer) else []))
    return model, optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: optim.Adafactor(m.parameters()), r"Adafactor keeps 'row_var' of shape \(6, 3, 3, 1\)"),
        (lambda m: optim.LBFGS(m.parameters()), r"LBFGS keeps 'd' of shape \(\d+,\)"),
    ],
)
def test_state_that_cannot_be_cut_is_refused(make, message):
    model, optimizer = stepped(make)
    before = copy.deepcopy(model.state_dict())
    graph = traced("residual")[1]
    with pytest.raises(InputError, match=message + r" for a parameter of shape \(6, 3, 3, 3\)") as error:
        remove_(model, graph, halving(graph), optimizer=optimizer)
    assert "make a new one after `remove`" in one_line(error)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_an_optimizer_of_another_network_is_refused():
    model, graph = build("residual"), traced("residual")[1]
    stranger = optim.Adam(build("residual").parameters())
    with pytest.raises(InputError, match="Adam holds 8 parameters, none of them of this network, which has 8") as error:
        remove_(model, graph, halving(graph), optimizer=stranger)
    one_line(error)


def test_averages_of_another_structure_are_refused():
    model, graph = build("residual"), traced("residual")[1]
    cases = [
        (build("channel_prelu"), r"'norm.weight' of shape \(6,\), its average ChannelPReLU has no such tensor"),
        (
            AveragedModel(remove(model, graph, halving(graph))),
            r"\(6, 3, 3, 3\), its average Residual has \(3, 3, 3, 3\)",
        ),
        (model, "Residual is given twice, or shares tensors"),
        ([average := copy.deepcopy(model), AveragedModel(build("residual")), average], "Residual is given twice"),
    ]
    for average, message in cases:
        with pytest.raises(InputError, match=message) as error:
            remove_(model, graph, halving(graph), ema=average)
        one_line(error)
    assert model.conv.weight.shape == (6, 6, 3, 3)


def test_plans_and_graphs_of_another_network_are_refused():
    model, graph = build("residual"), traced("residual")[1]
    with pytest.raises(PlanMismatchError, match="group 'elsewhere', which this network does not have"):
        remove_(model, graph, PruningPlan({"elsewhere": (0,)}, {"elsewhere": 2}))
    for other in (build("channel_prelu"), nn.Sequential(build("channel_prelu"))):
        with pytest.raises(PlanMismatchError, match=r"the graph has 'norm.weight' .* the network has no such tensor"):
            remove_(other, graph, halving(graph))
    both = nn.ModuleList([model, build("residual")])  # which of the two is meant?
    with pytest.raises(PlanMismatchError, match="no such tensor"):
        remove_(both, graph, halving(graph))
    remove_(model, graph, halving(graph))
    with pytest.raises(PlanMismatchError, match=r"\(6, 3, 3, 3\), the network has \(3, 3, 3, 3\)"):
        remove_(model, graph, halving(graph))


def test_weights_that_are_not_finite_are_refused():
    model, graph = build("residual"), traced("residual")[1]
    spoiled = copy.deepcopy(model)
    spoiled.norm.running_mean[1] = float("nan")
    with torch.no_grad():
        model.conv.weight[2, 1, 0, 0] = float("nan")
    for act in (remove, remove_):
        with pytest.raises(InputError, match=r"'conv\.weight' is not finite") as error:
            act(model, graph, halving(graph))
        one_line(error)
        with pytest.raises(InputError, match=r"'norm\.running_mean' is not finite"):
            act(spoiled, graph, halving(graph))
    given = Evidence([(ZOO["residual"].inputs(batch=2), torch.ones(2, 1, 8, 8))], lambda o, t: (o - t).square().mean())
    for name in CRITERIA:
        if name != "random":
            with pytest.raises(EvidenceError, match="not finite; check the weights"):
                CRITERIA[name](0).score(model, graph, given)


def test_it_is_a_public_name():
    assert secateur.remove_ is remove_
