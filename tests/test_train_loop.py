"""The loop against a slow obvious one, and what it promises about the network, the files and bad numbers."""

import io
import json
import math

import accelerate
import pytest
import torch
from rich.console import Console
from torch import nn

from secateur.errors import DataError, InputError, RecipeError, TrainingError
from secateur.train import DistillationRecipe, TrainRecipe, fit
from secateur.train.checkpoint import load_checkpoint
from secateur.train.order import EpochOrder, epoch_seed
from secateur.train.recipe import learning_rate_at
from train_toys import RECIPE, STEPS, ToySet, bce, differences, one_cpu_thread, score, toy_net, train


@pytest.fixture(autouse=True, scope="module")
def _on_cpu():
    with one_cpu_thread():
        yield


def updated(**changes):
    return TrainRecipe(**{**RECIPE.model_dump(), **changes})


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_same_bits_as_the_obvious_loop(tmp_path):
    train(tmp_path)
    model, data = toy_net(), ToySet()
    kernels = [model[0].weight, model[4].weight]
    rest = [p for p in model.parameters() if all(p is not kernel for kernel in kernels)]
    optimizer = torch.optim.AdamW([{"params": kernels}, {"params": rest, "weight_decay": 0}], weight_decay=1e-2)
    for epoch in (1, 2, 3, 4):
        data.set_epoch(epoch)
        seed = epoch_seed(RECIPE.seed, epoch)
        order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
        torch.manual_seed(seed)
        torch.empty((), dtype=torch.int64).random_()  # torch's loader draws a seed for its workers
        model.train()
        for step, batch in enumerate((order[:4], order[4:8], order[8:])):
            images, masks = map(torch.stack, zip(*(data[i] for i in batch), strict=True))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(RECIPE, ((epoch - 1) * 3 + step) / 12)
            optimizer.zero_grad()
            bce(model(images), masks).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    last = load_checkpoint(tmp_path / "checkpoints/train.pt")
    assert last.epoch == 4
    assert not differences(dict(model.state_dict()), dict(last.model))


def test_overfits_the_data(tmp_path):
    recipe = updated(epochs=60, learning_rate=0.05)
    start = score(toy_net().eval())
    result = train(tmp_path, recipe=recipe)
    assert start < -0.5
    assert result.best_score > -0.06
    assert score(result.model.eval()) == pytest.approx(result.best_score, abs=1e-6)


def test_keeps_the_earliest_best_epoch(tmp_path):
    seen = []

    def validate(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return [0.2, 0.7, 0.1, 0.7][len(seen) - 1]

    result = train(tmp_path, validate=validate)
    assert (result.best_epoch, result.best_score) == (2, 0.7)
    assert not differences(dict(seen[1]), dict(result.model.state_dict()))
    assert differences(dict(seen[1]), dict(seen[3]))


def test_metrics_lines(tmp_path):
    result = train(tmp_path, stage="recover-1")
    lines = lines_of(tmp_path)
    keys = ["stage", "epoch", "epochs", "train_loss", "val_dice", "lr", "seconds"]
    assert [list(line) for line in lines] == [keys] * 4
    assert [(line["stage"], line["epoch"], line["epochs"]) for line in lines] == [
        ("recover-1", epoch, 4) for epoch in (1, 2, 3, 4)
    ]
    assert lines[1]["lr"] == learning_rate_at(RECIPE, 5 / 12)  # of the last step of epoch 2
    assert max(line["val_dice"] for line in lines) == result.best_score
    assert result.seconds == pytest.approx(sum(line["seconds"] for line in lines))


def test_train_loss_counts_every_sample_once(tmp_path):
    # The losses of the samples are 0, 1, ..., 9 whatever the batches are, the last of which is smaller.
    def numbered(logits, target):
        return target[:, 0, 0, 0] + 0 * logits.flatten(1).sum(1)

    class Numbered(ToySet):
        def __getitem__(self, index):
            image, mask = super().__getitem__(index)
            return image, torch.full_like(mask, index)

    train(tmp_path, train_set=Numbered(), loss=numbered)
    assert [line["train_loss"] for line in lines_of(tmp_path)] == [4.5] * 4


def test_every_epoch_has_its_own_order_and_drop_out(tmp_path):
    order = EpochOrder(50, seed=3)
    shown = []
    for epoch in (1, 2, 1):
        order.set_epoch(epoch)
        shown.append(list(order))
    assert sorted(shown[0]) == list(range(50))
    assert shown[0] == shown[2] != shown[1]
    assert len({epoch_seed(seed, epoch) for seed in range(30) for epoch in range(30)}) == 900

    masks = []
    model = nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(3, 1, 1))
    model[0].register_forward_hook(lambda _, args, out: masks.append(out.flatten(2).abs().sum(2) > 0))
    train(tmp_path, model=model, validate=lambda _: 0.0)
    firsts = masks[::STEPS]
    assert any(not torch.equal(firsts[0], other) for other in firsts[1:])


def test_the_network_comes_back_as_it_was_given(tmp_path):
    model = toy_net()
    model.train()
    model[1].eval()  # a mode of its own
    names, modes = set(vars(model)), [module.training for module in model.modules()]
    identities = [id(p) for p in model.parameters()]
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    result = train(tmp_path, model=model, validate=lambda _: 0.0)
    assert result.model is model
    assert [module.training for module in model.modules()] == modes
    assert set(vars(model)) == names
    assert "forward" not in vars(model)
    assert [id(p) for p in model.parameters()] == identities
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.rand(2), expected)  # the caller's random state


def test_modes_are_restored_after_a_failure_too(tmp_path):
    model = toy_net().eval()
    with pytest.raises(TrainingError):
        train(tmp_path, model=model, validate=lambda _: math.nan)
    assert not any(module.training for module in model.modules())
    assert "_is_accelerate_prepared" not in vars(model)


def test_frozen_parameters_stay(tmp_path):
    model = toy_net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(tmp_path, model=model)
    assert torch.equal(model[0].weight, before)


def test_precisions_in_one_process(tmp_path):
    dtypes = set()

    def note(*seen):
        dtypes.add(seen)

    def run(precision):
        model = toy_net()
        model[0].register_forward_hook(lambda module, _, out: note(module.training, precision, out.dtype))

        def loss(logits, target):
            assert logits.dtype == torch.float32
            return bce(logits, target)

        recipe = updated(precision=precision, epochs=1)
        return train(tmp_path / precision, model=model, loss=loss, recipe=recipe).model

    half, full, auto = run("bfloat16"), run("float32"), run("auto")
    assert {(precision, dtype) for training, precision, dtype in dtypes if training} == {
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
        ("auto", torch.float32),
    }
    assert {dtype for training, _, dtype in dtypes if not training} == {torch.float32}
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert differences(dict(half.state_dict()), dict(full.state_dict()))
    assert not differences(dict(auto.state_dict()), dict(full.state_dict()))


@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_trains_channels_last_and_gives_the_format_back(tmp_path, given):
    seen = set()
    for precision in ("bfloat16", "float32"):
        model = toy_net().to(memory_format=given)
        model[0].register_forward_pre_hook(
            lambda module, _, precision=precision: seen.add(
                (precision, module.training and module.weight.is_contiguous(memory_format=torch.channels_last))
            )
        )
        train(tmp_path / precision, model=model, recipe=updated(precision=precision, epochs=1))
        assert model[0].weight.is_contiguous(memory_format=given)
        assert model[0].weight.is_contiguous() == (given == torch.contiguous_format)
    assert ("bfloat16", True) in seen
    assert (("float32", True) in seen) == (given == torch.channels_last)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path, bad):
    calls = 0

    def loss(logits, target):
        nonlocal calls
        calls += 1
        return bce(logits, target) + (bad if calls == 2 * STEPS + 2 else 0)  # its gradient is finite

    rate = learning_rate_at(RECIPE, 7 / 12)
    with pytest.raises(TrainingError, match=rf"epoch 3, step 2 of 3, the loss is {bad}.*rate {rate:.3g};") as caught:
        train(tmp_path, loss=loss)
    path = tmp_path / "checkpoints/train.pt"
    assert f"{path} keeps epoch 2" in str(caught.value)
    assert load_checkpoint(path).epoch == 2
    assert all(value.isfinite().all() for value in load_checkpoint(path).model.values())
    assert [line["epoch"] for line in lines_of(tmp_path)] == [1, 2]


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path):
    def loss(logits, target):
        return (logits * 0).flatten(1).sum(1).sqrt()  # 0, with an infinite slope

    model = toy_net()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(TrainingError, match=r"epoch 1, step 1 of 3, the loss is 0.*nan.*nothing is kept"):
        train(tmp_path, model=model, loss=loss)
    assert not differences(before, dict(model.named_parameters()))
    assert not (tmp_path / "checkpoints").exists()


def test_a_score_that_is_not_finite_stops(tmp_path):
    scores = iter([0.5, math.nan])
    with pytest.raises(TrainingError, match=r"score of epoch 2 is nan; .*train\.pt keeps epoch 1"):
        train(tmp_path, validate=lambda _: next(scores))
    assert load_checkpoint(tmp_path / "checkpoints/train.pt").epoch == 1


def test_distillation_teaches_and_leaves_the_teacher(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teacher = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.BatchNorm2d(1))
        student = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.BatchNorm2d(1))
    nn.init.normal_(teacher[1].running_mean)
    teacher.train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images = torch.stack([ToySet()[i][0] for i in range(10)])

    def agreement(model):
        with torch.no_grad():
            own = nn.functional.batch_norm(teacher[0](images), teacher[1].running_mean, teacher[1].running_var)
            return -(model(images).sigmoid() - own.sigmoid()).abs().mean().item()

    def no_truth(logits, target):
        return 0 * logits.flatten(1).sum(1)

    result = train(
        tmp_path,
        model=student,
        teacher=teacher,
        loss=no_truth,
        validate=agreement,
        recipe=updated(epochs=40, learning_rate=0.05),
        distillation=DistillationRecipe(weight=1.0),
    )
    assert lines_of(tmp_path)[0]["val_dice"] < -0.1
    assert result.best_score > -0.03
    assert teacher.training
    assert teacher[1].training
    assert not differences(before, dict(teacher.state_dict()))
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_weights_of_task_and_teacher_in_the_reported_loss(tmp_path):
    # With equal networks in eval mode the teacher adds nothing: a quarter of the task's loss remains.
    model = nn.Conv2d(3, 1, 1)
    teacher = nn.Conv2d(3, 1, 1)
    teacher.load_state_dict(model.state_dict())
    recipe = updated(epochs=1, batch_size=10)
    images, masks = map(torch.stack, zip(*(ToySet()[i] for i in range(10)), strict=True))

    class Still(ToySet):
        def set_epoch(self, epoch):
            pass

    expected = bce(model(images), masks).mean().item() / 4
    train(
        tmp_path,
        model=model,
        teacher=teacher,
        train_set=Still(),
        recipe=recipe,
        distillation=DistillationRecipe(weight=0.75),
    )
    assert lines_of(tmp_path)[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_what_agreement_means_is_the_tasks(tmp_path):
    model, teacher = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

    def half(student, teacher, *, temperature):
        assert student.shape == teacher.shape
        return 0 * student.flatten(1).sum(1) + 0.5 / temperature

    wanted = DistillationRecipe(weight=1.0, temperature=4.0)
    train(tmp_path, model=model, teacher=teacher, distillation=wanted, agreement=half)
    assert lines_of(tmp_path)[0]["train_loss"] == pytest.approx(0.125)


def test_deep_supervision_trains_every_head(tmp_path):
    class TwoHeads(nn.Module):
        def __init__(self, stacked):
            super().__init__()
            self.heads, self.stacked = nn.ModuleList([nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)]), stacked

        def forward(self, x):
            outputs = [head(x) for head in self.heads]
            if not self.training:
                return outputs[0]
            return torch.stack(outputs, 1) if self.stacked else outputs

    states = []
    for stacked in (True, False):
        torch.manual_seed(0)
        model = TwoHeads(stacked)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        states.append(dict(train(tmp_path / str(stacked), model=model).model.state_dict()))
        assert set(differences(before, states[-1])) == {f"/{name}" for name in before}
    assert not differences(*states)


def test_output_on_a_terminal_elsewhere_and_nowhere(tmp_path, capfd):
    plain, terminal = io.StringIO(), io.StringIO()
    train(tmp_path / "none")
    train(tmp_path / "plain", console=Console(file=plain))
    train(tmp_path / "terminal", console=Console(file=terminal, force_terminal=True, width=100))
    assert capfd.readouterr() == ("", "")
    assert len(plain.getvalue().splitlines()) == 4
    assert plain.getvalue().startswith("train  epoch 1/4  loss 0.")
    assert "epoch 4/4" in terminal.getvalue()
    assert " s\n" not in terminal.getvalue()  # where plain lines end
    assert "Dice -0." in terminal.getvalue()


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match="training set is empty"):
        train(tmp_path, train_set=ToySet(0))
    with pytest.raises(InputError, match="no parameter that requires a gradient"):
        train(tmp_path, model=toy_net().requires_grad_(False))
    with pytest.raises(RecipeError, match="distillation is given without a teacher"):
        train(tmp_path, distillation=DistillationRecipe())
    with pytest.raises(RecipeError, match="teacher is given without a distillation"):
        train(tmp_path, teacher=toy_net())
    model = toy_net()
    with pytest.raises(RecipeError, match="teacher is the network itself"):
        train(tmp_path, model=model, teacher=model, distillation=DistillationRecipe())
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerate.Accelerator, "num_processes", 2)
    with pytest.raises(RecipeError, match="in 2 processes and runs in one"):
        train(tmp_path)


def test_networks_as_shipped(tmp_path):
    # DynUNet stacks its heads in train mode and keeps them in a list outside; BasicUNet works in place.
    from monai.networks.nets import BasicUNet, DynUNet

    networks = [
        BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, features=(4, 4, 4, 4, 4, 4)),
        DynUNet(2, 3, 1, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[4] * 4, deep_supervision=True, deep_supr_num=2),
    ]
    for k, model in enumerate(networks):
        result = fit(
            model,
            loss=bce,
            train_set=ToySet(4, side=32),
            validate=lambda _: 0.0,
            recipe=updated(epochs=2),
            folder=tmp_path / str(k),
        )
        losses = [line["train_loss"] for line in lines_of(tmp_path / str(k))]
        assert losses[1] < losses[0]
        assert result.model is model
