"""Weights that left stay zero whatever moves them: each threat is first shown to bring them back by itself."""

import copy
import statistics
import time

import accelerate
import pytest
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from secateur.errors import CheckError, InputError, PlanMismatchError
from secateur.prune.weights import LayerWise, NetworkWise, WeightMasks, magnitude_masks, prunable_weights

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9),
}


def network(seed=0, dims=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv, up, norm = (
            (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
            if dims == 2
            else (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d)
        )
        return nn.Sequential(conv(2, 6, 3, padding=1), norm(6), nn.ReLU(), up(6, 4, 2, stride=2), conv(4, 1, 1))


def data(step, dims=2):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 2, *[4] * dims, generator=generator), torch.randn(4, 1, *[8] * dims, generator=generator)


def backward(model, step, *, dims=2, clip=None, scaler=None, optimizer=None):
    images, target = data(step, dims)
    loss = F.mse_loss(model(images), target)
    (loss if scaler is None else scaler.scale(loss)).backward()
    if scaler is not None:
        scaler.unscale_(optimizer)
    return nn.utils.clip_grad_norm_(model.parameters(), clip) if clip else None


def train_step(model, optimizer, step, **options):
    optimizer.zero_grad()
    backward(model, step, **options)
    optimizer.step()


def trained(make, *, dims=2, steps=3):
    """A network and the optimizer that has moved all of its weights."""
    model = network(dims=dims)
    optimizer = make(model.parameters())
    for step in range(steps):
        train_step(model, optimizer, step, dims=dims)
    return model, optimizer


def chosen(model, compression=4.0):
    return magnitude_masks(model, prunable_weights(model, keep=["4"]), LayerWise(compression))


def assert_same(model, reference):
    for (name, one), other in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_revives_a_weight(name, dims):
    model, optimizer = trained(OPTIMIZERS[name], dims=dims)
    masks = chosen(model)
    unguarded = copy.deepcopy((model, optimizer))
    masks.apply_(unguarded[0])
    unguarded[1].zero_grad()  # no gradient is needed: momentum alone moves them
    for parameter in unguarded[0].parameters():
        parameter.grad = torch.zeros_like(parameter)
    unguarded[1].step()
    with pytest.raises(CheckError, match=r"of the (81|243) weights that left '0\.weight' are not zero"):
        masks.check(unguarded[0])

    reference = copy.deepcopy((model, optimizer))
    with masks.held(model, optimizer):
        masks.check(model)
        for step in range(5):
            train_step(model, optimizer, step, dims=dims, clip=0.5)
            masks.check(model)
    obvious_loop(*reference, masks, dims=dims)
    assert_same(model, reference[0])
    assert all(not (p == 0).all() for p in model.parameters())


def obvious_loop(model, optimizer, masks, *, dims):
    """Multiply by the mask wherever a weight could come back."""

    def multiply(tensors):
        for name, mask in masks.kept.items():
            tensors[name].data *= mask

    multiply(dict(model.named_parameters()))
    for step in range(5):
        optimizer.zero_grad()
        backward(model, step, dims=dims)
        multiply({name: parameter.grad for name, parameter in model.named_parameters()})
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        multiply(dict(model.named_parameters()))


def test_gradients_of_what_left_do_not_count_when_clipping():
    model, optimizer = trained(OPTIMIZERS["sgd"])
    masks = chosen(model, 50)
    free = copy.deepcopy(model)
    masks.apply_(free)
    free.zero_grad()
    backward(free, 7)
    left = [p.grad[masks.kept[name]] if name in masks.kept else p.grad for name, p in free.named_parameters()]
    expected = torch.stack([g.norm() for g in left]).norm()
    with masks.held(model, optimizer):
        optimizer.zero_grad()
        norm = backward(model, 7, clip=0.1)
    torch.testing.assert_close(norm, expected)
    whole = torch.stack([p.grad.norm() for p in free.parameters()]).norm()
    assert whole > 1.1 * expected


def test_a_gradient_that_was_there_before_is_masked_too():
    model, optimizer = trained(OPTIMIZERS["sgd"])
    masks = chosen(model)
    optimizer.zero_grad()
    backward(model, 1)
    with masks.held(model, optimizer):
        for name, mask in masks.kept.items():
            assert not model.get_parameter(name).grad[~mask].any()
            assert model.get_parameter(name).grad[mask].any()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_gradient_scaling_revives_nothing(name):
    model, optimizer = trained(OPTIMIZERS[name])
    masks = chosen(model)
    reference = copy.deepcopy((model, optimizer))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with masks.held(model, optimizer):
        for step in range(5):
            optimizer.zero_grad()
            backward(model, step, clip=0.5, scaler=scaler, optimizer=optimizer)
            scaler.step(optimizer)
            scaler.update()
            masks.check(model)
    obvious_loop(*reference, masks, dims=2)
    for one, other in zip(model.parameters(), reference[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "ema"])
def test_no_average_revives_a_weight(kind):
    model, optimizer = trained(OPTIMIZERS["sgd"])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9) if kind == "ema" else None)
    for step in range(3):
        train_step(model, optimizer, step)
        average.update_parameters(model)
    masks = chosen(model)
    unguarded = copy.deepcopy(average)
    with masks.held(model, optimizer):
        unguarded.update_parameters(model)
    with pytest.raises(CheckError, match="81 of the 81"):
        masks.check(unguarded)
    dense = copy.deepcopy(average.state_dict())
    with masks.held(model, optimizer, ema=average):
        for step in range(6):
            if step == 3:
                average.load_state_dict(dense)  # from a checkpoint of before
            train_step(model, optimizer, step)
            average.update_parameters(model)
            masks.check(average)
            masks.check(model)
    assert average.module[0].weight.any()


def test_states_loaded_from_before_revive_nothing():
    model, optimizer = trained(OPTIMIZERS["adam"])
    masks = chosen(model)
    dense, momentum = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    with masks.held(model, optimizer):
        train_step(model, optimizer, 0)
        optimizer.load_state_dict(momentum)
        train_step(model, optimizer, 1)
        masks.check(model)
        model.load_state_dict(dense)
        with pytest.raises(CheckError, match=r"train inside `with masks.held"):
            masks.check(model)
        train_step(model, optimizer, 2)
        masks.check(model)
        model.load_state_dict(dense)
    masks.check(model)  # also of what was loaded last


def test_an_optimizer_that_was_forgotten_is_asked_for():
    """Its momentum from before would bring back what has left, between the steps of the others."""
    model = network()
    masks = chosen(model)
    first, second = (OPTIMIZERS["sgd"](model[place].parameters()) for place in (0, 3))
    with pytest.raises(InputError, match=r"1 of the 2 masked .* no optimizer .*'3\.weight'"), masks.held(model, first):
        raise AssertionError
    with masks.held(model, [first, second]):
        pass
    model[3].requires_grad_(False)
    with masks.held(model, first):
        pass


def test_it_ends_with_the_block():
    model, optimizer = trained(OPTIMIZERS["sgd"])
    masks = chosen(model)
    with pytest.raises(ZeroDivisionError), masks.held(model, optimizer):
        raise ZeroDivisionError
    assert not optimizer._optimizer_step_post_hooks
    train_step(model, optimizer, 0)
    assert model[0].weight.all()


def test_nothing_is_left_of_bad_numbers_and_signs():
    model = network()
    masks = chosen(model)
    name, mask = next(iter(masks.kept.items()))
    model[0].weight.data[~mask] = torch.tensor([float("nan"), float("-inf"), -1.0] * 27)
    masks.apply_(model)
    gone = model.get_parameter(name).detach()[~mask]
    assert gone.view(torch.int32).eq(0).all()  # +0, bit for bit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_width_and_memory_format(dtype):
    model = network().to(dtype).to(memory_format=torch.channels_last)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    masks = chosen(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with masks.held(model, optimizer):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, expected[name] * masks.kept[name] if name in masks.kept else expected[name])
        model.double()  # in the middle of it
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, -1.0)
        optimizer.step()
        masks.check(model)


def test_wrappers_shared_weights_and_frozen_layers():
    model = network()
    model.add_module("again", nn.Conv2d(2, 6, 3, padding=1))
    model.again.weight = model[0].weight
    model[3].requires_grad_(False)
    masks = chosen(model)
    assert list(masks.kept) == ["0.weight", "3.weight"]
    wrapper = nn.Sequential(nn.Sequential(model))
    optimizer = OPTIMIZERS["sgd"]([p for p in wrapper.parameters() if p.requires_grad])
    with masks.held(wrapper, optimizer):
        for step in range(2):
            optimizer.zero_grad()
            images, target = data(step)
            F.mse_loss(model[:5](images) + 0 * model.again(images).sum(), target).backward()
            optimizer.step()
            masks.check(wrapper)
            masks.check(model)
    assert model.again.weight is model[0].weight


def test_a_wrapper_for_several_processes_keeps_its_gradients_in_its_own_memory():
    model, optimizer = trained(OPTIMIZERS["sgd"])
    masks, reference = chosen(model), copy.deepcopy((model, optimizer))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapper = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        with masks.held(wrapper, optimizer):
            for step in range(5):
                train_step(wrapper, optimizer, step, clip=0.5)
                masks.check(wrapper)
    finally:
        dist.destroy_process_group()
    obvious_loop(*reference, masks, dims=2)
    assert_same(model, reference[0])


def test_accelerate_and_several_optimizers():
    model = network()
    masks = chosen(model)
    accelerator = accelerate.Accelerator(cpu=True)
    prepared = accelerator.prepare_model(model)
    optimizers = [OPTIMIZERS["sgd"](model[0].parameters()), OPTIMIZERS["adam"](model[3].parameters())]
    wrapped = [accelerator.prepare_optimizer(optimizer) for optimizer in optimizers]
    with masks.held(prepared, wrapped):
        for step in range(3):
            for optimizer in wrapped:
                optimizer.zero_grad()
            images, target = data(step)
            accelerator.backward(F.mse_loss(prepared(images), target))
            for optimizer in wrapped:
                optimizer.step()
            masks.check(model)
            assert all(parameter.grad is None or parameter.grad.any() for parameter in model.parameters())


def test_what_does_not_fit_is_refused():
    model, optimizer = trained(OPTIMIZERS["sgd"])
    masks = chosen(model)
    other = OPTIMIZERS["sgd"](network().parameters())
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match="SGD holds 8 parameters, none of the 2 masked ones"), masks.held(model, other):
        raise AssertionError
    with pytest.raises(PlanMismatchError, match="choose them anew"), masks.held(model, optimizer, ema=nn.Linear(1, 1)):
        raise AssertionError
    assert_same(model, before)
    assert not optimizer._optimizer_step_post_hooks
    with masks.held(model, optimizer):
        optimizer.zero_grad(set_to_none=True)
        whole = model[0].weight.data
        model[0].weight.data = whole[:3]  # as a removal of channels does
        optimizer.state.clear()
        with pytest.raises(PlanMismatchError, match=r"'0\.weight' has the shape \(3, 2, 3, 3\) by now"):
            optimizer.step()
        model[0].weight.data = whole


def test_masks_go_through_a_file(tmp_path):
    masks = chosen(network())
    torch.save(masks.state_dict(), tmp_path / "masks.pt")
    again = WeightMasks(torch.load(tmp_path / "masks.pt", weights_only=True))
    assert again.layers == masks.layers
    assert all(torch.equal(again.kept[name], mask) for name, mask in masks.kept.items())


@pytest.mark.slow
def test_holding_costs_less_than_three_percent_of_a_step():
    from monai.networks.nets import BasicUNet

    model = BasicUNet(spatial_dims=2, in_channels=3, out_channels=1)  # 2.0 M weights
    masks = magnitude_masks(model, prunable_weights(model, keep=["final_conv"]), NetworkWise(16))
    optimizer = torch.optim.AdamW(model.parameters())
    images, target = torch.randn(2, 3, 128, 128), torch.rand(2, 1, 128, 128)

    def timed_step(*, train):
        optimizer.zero_grad()
        started = time.process_time()
        if train:
            F.binary_cross_entropy_with_logits(model(images), target).backward()
        optimizer.step()  # without gradients it only sets weights to zero
        return time.process_time() - started

    with masks.held(model, optimizer):
        pairs = [(timed_step(train=True), timed_step(train=False)) for _ in range(10)][2:]
    step, weights_only = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    assert 2 * weights_only < 0.03 * step  # gradients cost as much as weights
