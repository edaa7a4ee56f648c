"""A stage that dies anywhere and is resumed ends with the very same bits."""

import json
from pathlib import Path

import accelerate
import pytest
import torch

from secateur.errors import RecordError
from secateur.train import DistillationRecipe, TrainRecipe
from secateur.train.checkpoint import write_metrics
from train_toys import RECIPE, STEPS, bce, differences, lasting, one_cpu_thread, score, toy_net, train

EPOCHS = RECIPE.epochs


class Killed(BaseException):
    """Not an Exception, so that nothing in between can swallow it."""


@pytest.fixture(autouse=True, scope="module")
def _on_cpu():
    with one_cpu_thread():
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    result = train(folder)
    return folder, result


def killing(function, *, at, before=True):
    """``function`` that dies at its call number ``at``, before or after its work."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at and before:
            raise Killed
        value = function(*args, **kwargs)
        if calls == at:
            raise Killed
        return value

    return wrapped


def assert_same_as(reference, folder, result):
    expected_folder, expected = reference
    assert not differences(lasting(expected_folder / "checkpoints/train.pt"), lasting(folder / "checkpoints/train.pt"))
    assert not differences(expected.model.state_dict(), result.model.state_dict())
    assert (result.best_epoch, result.best_score) == (expected.best_epoch, expected.best_score)
    assert epochs_in(folder) == list(range(1, EPOCHS + 1))


def epochs_in(folder, stage="train"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["epoch"] for line in lines if line["stage"] == stage]


def resume_after(folder, **killed):
    with pytest.raises(Killed):
        train(folder, **killed)
    torch.manual_seed(12345)  # another process has another random state
    return train(folder, resume=True)


@pytest.mark.parametrize("call", range(1, EPOCHS * STEPS + 1))
def test_killed_in_any_step(reference, tmp_path, call):
    result = resume_after(tmp_path, loss=killing(bce, at=call))
    assert_same_as(reference, tmp_path, result)


@pytest.mark.parametrize("call", range(1, EPOCHS + 1))
def test_killed_in_validation(reference, tmp_path, call):
    result = resume_after(tmp_path, validate=killing(score, at=call))
    assert_same_as(reference, tmp_path, result)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, 2 * EPOCHS + 1))
def test_killed_around_any_replacement_of_a_file(reference, tmp_path, monkeypatch, call, before):
    # Odd calls replace the checkpoint, even ones metrics.jsonl: "after" an odd one is between the two.
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killing(Path.replace, at=call, before=before))
        with pytest.raises(Killed):
            train(tmp_path)
    assert_same_as(reference, tmp_path, train(tmp_path, resume=True))


def test_killed_while_the_checkpoint_is_half_written(reference, tmp_path, monkeypatch):
    def half(state, path):
        path.write_bytes(b"half a checkpoint")
        raise Killed

    train_until(2, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(Killed):
            train(tmp_path, resume=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["train.pt"]
    assert_same_as(reference, tmp_path, train(tmp_path, resume=True))


def train_until(epoch, folder):
    with pytest.raises(Killed):
        train(folder, loss=killing(bce, at=epoch * STEPS + 1))


def test_killed_in_every_epoch_once(reference, tmp_path):
    train_until(1, tmp_path)
    for _ in range(EPOCHS - 2):
        with pytest.raises(Killed):
            train(tmp_path, loss=killing(bce, at=STEPS + 2), resume=True)
    assert_same_as(reference, tmp_path, train(tmp_path, resume=True))


def test_bfloat16_resumes_to_the_same_bits(tmp_path):
    """It trains in another memory format, in which a checkpoint is read again."""
    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    whole = train(tmp_path / "whole", recipe=recipe)
    with pytest.raises(Killed):
        train(tmp_path / "parts", recipe=recipe, loss=killing(bce, at=2 * STEPS + 2))
    parts = train(tmp_path / "parts", recipe=recipe, resume=True)
    assert_same_as((tmp_path / "whole", whole), tmp_path / "parts", parts)


def test_a_finished_stage_returns_at_once(reference, tmp_path, monkeypatch):
    first = train(tmp_path)
    monkeypatch.setattr(accelerate, "Accelerator", None)  # nothing is set up
    model = toy_net(seed=7)
    again = train(tmp_path, model=model, loss=None, validate=None, resume=True)
    assert again.model is model
    assert (again.best_epoch, again.seconds) == (first.best_epoch, first.seconds)
    assert_same_as(reference, tmp_path, again)


def test_workers_change_nothing_and_may_change_at_a_resume(reference, tmp_path):
    train_until(3, tmp_path)
    result = train(tmp_path, recipe=RECIPE.model_copy(update={"workers": 2}), resume=True)
    assert_same_as(reference, tmp_path, result)


def test_the_seed_decides(reference, tmp_path):
    result = train(tmp_path, recipe=RECIPE.model_copy(update={"seed": 1}))
    assert differences(reference[1].model.state_dict(), result.model.state_dict())


def test_an_existing_checkpoint_is_not_overwritten(tmp_path):
    train_until(1, tmp_path)
    before = (tmp_path / "checkpoints/train.pt").read_bytes()
    with pytest.raises(RecordError, match=r"train\.pt exists already; resume it, or delete it"):
        train(tmp_path)
    assert (tmp_path / "checkpoints/train.pt").read_bytes() == before


def test_another_recipe_is_refused(tmp_path):
    train_until(1, tmp_path)
    other = TrainRecipe(**{**RECIPE.model_dump(), "learning_rate": 0.5, "epochs": 9})
    with pytest.raises(RecordError, match=r"epochs was 4, now 9; learning_rate was 0\.01, now 0\.5"):
        train(tmp_path, recipe=other, resume=True)
    with pytest.raises(RecordError, match=r"distillation was None, now \{'weight': 0\.5"):
        train(tmp_path, teacher=toy_net(3), distillation=DistillationRecipe(), resume=True)


def test_another_network_is_refused_untouched(tmp_path):
    train_until(1, tmp_path)
    model = torch.nn.Conv2d(3, 1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RecordError, match=r"another network: '0\.weight' has the shape \(4, 3, 3, 3\) there and None"):
        train(tmp_path, model=model, resume=True)
    assert not differences(before, model.state_dict())


def test_another_schema_is_refused(tmp_path):
    train_until(1, tmp_path)
    path = tmp_path / "checkpoints/train.pt"
    torch.save({**torch.load(path, weights_only=True), "schema": 99}, path)
    with pytest.raises(RecordError, match="checkpoint schema 99, this version of secateur reads 1"):
        train(tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_checkpoint_is_refused(tmp_path, content):
    train_until(1, tmp_path)
    path = tmp_path / "checkpoints/train.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(RecordError, match=r"not a readable checkpoint .*delete it"):
        train(tmp_path, resume=True)


def test_stages_share_metrics_and_keep_their_places(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, [{"stage": "a", "epoch": 1}], stage="a")
    write_metrics(path, [{"stage": "b", "epoch": 1}], stage="b")
    write_metrics(path, [{"stage": "a", "epoch": 1}, {"stage": "a", "epoch": 2}], stage="a")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [("a", 1), ("a", 2), ("b", 1)]


def test_metrics_that_are_no_records_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("epoch 1\n")
    with pytest.raises(RecordError, match="no record of an epoch"):
        write_metrics(tmp_path / "metrics.jsonl", [], stage="train")
    assert (tmp_path / "metrics.jsonl").read_text() == "epoch 1\n"
