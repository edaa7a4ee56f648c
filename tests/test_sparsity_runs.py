"""Single weights from the command line to the run folder: what leaves, what stays gone, what is stored and refused."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from secateur import pipeline
from secateur.cost.macs import count_params
from secateur.data.nuclei_synthetic import SyntheticTile
from secateur.errors import InputError, ProofError, RecipeError
from secateur.nets.nuclei import two_networks
from secateur.nets.reference import monai_unet
from secateur.nets.spec import ModelSpec
from secateur.nets.thinner import thinner
from secateur.recipes import RECIPES
from secateur.recipes.ratios import RatioSweepRecipe
from secateur.recipes.recipe import parse_settings
from secateur.records import read_record, write_record
from secateur.session import Session
from secateur.store.networks import load
from secateur.store.runs import RunFolder
from secateur.sweeps.plan import plan_sweep
from secateur.sweeps.ratios import plan_ratio_cells
from secateur.sweeps.run import sweep
from test_cli import run

_TINY = [
    "network.kwargs.widths=[4, 8, 12]", "data.size=32", "data.train=3", "data.val=2", "data.test=2",
    "training.epochs=2", "training.keep_epoch=1", "sparsity.recovery.epochs=1", "bench.seconds=0",
]  # fmt: skip
_NO_BASELINES = [
    f"ratios.{key}=[]" for key in ("random_compressions", "small_compressions", "branch_compressions", "branches")
]
_SET = [part for setting in _TINY for part in ("--set", setting)]


def recipe(*settings):
    return RECIPES["nuclei-demo"]().with_settings(parse_settings([*_TINY, *settings]))


def kernels(model):
    return {name: weight for name, weight in model.named_parameters() if weight.ndim == 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dense run, not to be changed."""
    folder = tmp_path_factory.mktemp("sparsity")
    pipeline.train(recipe(), folder / "dense", Session(["train"]))
    return folder


def sparse(folder, out, *settings, resume=False):
    dense = RunFolder(folder / "dense")
    pipeline.sparsify(dense, recipe(*settings), out, Session(["prune"], resume=resume))
    return read_record(out / "prune.json")


def test_layers_lose_the_same_share_and_outputs_none(folder, tmp_path):
    record = sparse(folder, tmp_path / "layer", "sparsity.compression=5")
    masked = kernels(load(tmp_path / "layer" / "checkpoints" / "masked"))
    for layer in record["masks"]["layers"]:
        assert layer["kept"] == -(-layer["weights"] // 5)
        assert int(torch.count_nonzero(masked[layer["name"]])) <= layer["kept"]
    untouched = set(masked) - {layer["name"] for layer in record["masks"]["layers"]}
    assert untouched == {"semantic.decoder.output.conv.weight", "distance.decoder.output.conv.weight"}
    assert record["sizes"]["compressed_bytes"] < record["sizes"]["dense_bytes"] / 2
    dense_file = (folder / "dense" / "model.safetensors").stat().st_size
    assert record["dense_sizes"]["dense_bytes"] == pytest.approx(dense_file, abs=200)
    assert (tmp_path / "layer" / "model.sparse.safetensors").is_file()
    assert not (tmp_path / "layer" / "model.safetensors").exists()


def test_dead_filters_leave_and_nothing_changes(folder, tmp_path):
    record = sparse(folder, tmp_path / "few", "sparsity.scope=network", "sparsity.compression=60")
    assert record["compaction"]["left"] > 0
    assert record["reached"]["macs"] < record["dense"]["macs"]
    small, masked = load(tmp_path / "few"), load(tmp_path / "few" / "checkpoints" / "masked")
    assert count_params(small) < count_params(masked)
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small.double()(image), masked.double()(image), rtol=1e-6, atol=1e-6)


def test_a_branch_alone_loses_weights(folder, tmp_path):
    sparse(folder, tmp_path / "one", "sparsity.branches=[semantic]", "sparsity.compression=10")
    left = {name: float(weight.ne(0).float().mean()) for name, weight in
            kernels(load(tmp_path / "one" / "checkpoints" / "masked")).items()}  # fmt: skip
    assert all(share == 1 for name, share in left.items() if name.startswith("distance."))
    assert all(share < 0.2 for name, share in left.items() if name.startswith("semantic.") and "output" not in name)


def test_rounds_stop_and_go_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    rounds = ("sparsity.rounds=2", "sparsity.round_epochs=1", "sparsity.compression=8")
    record = sparse(folder, tmp_path / "whole", *rounds)
    assert [entry["kept"] for entry in record["rounds"]] == sorted((e["kept"] for e in record["rounds"]), reverse=True)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("secateur.sparsify.compact", stop)
        with pytest.raises(KeyboardInterrupt):
            sparse(folder, tmp_path / "again", *rounds)
    checkpoints = tmp_path / "again" / "checkpoints"
    (checkpoints / "recover-2.pt").unlink()  # as if it had been stopped in the second recovery
    shutil.rmtree(checkpoints / "masked")
    sparse(folder, tmp_path / "again", *rounds, resume=True)
    name = "model.sparse.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(InputError, match="begun with another recipe"):
        sparse(folder, tmp_path / "again", *rounds, "sparsity.scope=network", resume=True)


def test_rewinding_starts_from_the_early_weights(folder, tmp_path):
    record = sparse(folder, tmp_path / "back", "sparsity.rewind_epoch=1", "sparsity.compression=2")
    early = torch.load(folder / "dense" / "checkpoints" / "train-epoch-1.pt", weights_only=True)["model"]
    for name, weight in kernels(load(tmp_path / "back" / "checkpoints" / "cut-1")).items():
        kept = weight != 0
        assert torch.equal(weight[kept], early[name][kept])
    assert RunFolder(tmp_path / "back").run["training"]["epochs"] == 1
    assert record["rewind_epoch"] == 1
    with pytest.raises(InputError, match="nothing is left to repeat"):
        sparse(folder, tmp_path / "no", "sparsity.rewind_epoch=2")
    assert not (tmp_path / "no").exists()


def test_a_compaction_without_proof_keeps_what_was_trained(folder, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise ProofError("planted.")

    with monkeypatch.context() as patch:
        patch.setattr("secateur.sparsify.compact", fails)
        with pytest.raises(ProofError, match=r"planted\. .*masked is the network .*--resume"):
            sparse(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "model.sparse.safetensors").exists()
    assert kernels(load(tmp_path / "out" / "checkpoints" / "masked"))
    for out, resume in (("out", True), ("straight", False)):
        assert sparse(folder, tmp_path / out, resume=resume)["proof"]["passed"]
    again, straight = ((tmp_path / out / "model.sparse.safetensors").read_bytes() for out in ("out", "straight"))
    assert again == straight


def test_the_watershed_of_the_dense_network_serves_its_cuts(folder, tmp_path, monkeypatch, capsys):
    dense = folder / "dense"
    constants = RunFolder(dense).run["constants"]
    sparse(folder, tmp_path / "cut", "sparsity.compression=2", "sparsity.recovery=null")
    code, out, _ = run(monkeypatch, capsys, "evaluate", tmp_path / "cut")
    assert code == 0
    assert "nuclei:" in out
    record = read_record(tmp_path / "cut" / "evaluation.json")
    assert record["merge"] == constants
    assert record["nuclei"]["kept_by_dense"] == read_record(dense / "evaluation.json")["nuclei"]["kept"]
    assert RunFolder(tmp_path / "cut").run["training"]["epochs"] == 0


def test_the_command_line_from_training_to_export(tmp_path, monkeypatch, capsys):
    dense, cut = tmp_path / "dense", tmp_path / "cut"
    assert (
        run(monkeypatch, capsys, "train", "--task", "nuclei", "--recipe", "nuclei-demo", *_SET, "--out", dense)[0] == 0
    )
    weight = ("--granularity", "weight", "--scope", "network", "--compression", 16, "--out", cut)
    code, out, _ = run(monkeypatch, capsys, "prune", dense, *weight)
    assert code == 0
    assert "compression 16" in out
    assert "dead filters taken out" in out
    for command in ("export", "bench"):
        assert run(monkeypatch, capsys, command, cut)[0] == 0
    assert read_record(cut / "export" / "parity.json")["passed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--compression", 4), "--granularity weight"),
        (("--granularity", "weight", "--macs-keep", 0.5), "by --scope, --compression, --branch, --rounds"),
        (("--granularity", "weight", "--kwargs", '{"nonsense": 1}'), "--kwargs is for whole filters of a network"),
        (("--granularity", "weight", "--group-norm", "even"), "--group-norm is for whole filters of a network"),
        (("--granularity", "weight", "--set", "pruning.keep_ratio=0.5"), "reads only sparsity;"),
        (("--granularity", "weight", "--set", "training.epochs=5"), "reads only sparsity;"),
        (("--granularity", "weight", "--compression", 0.5), "greater than or equal to 1"),
        (("--granularity", "weight", "--compression", 1e9), "leaves nothing of"),
        (("--granularity", "weight", "--scope", "2:4", "--compression", 8), "has the compression 2, not 8"),
        (("--granularity", "weight", "--scope", "2:4", "--compression", 8), "not 8.\n"),  # and not the whole recipe
        (("--granularity", "weight", "--scope", "2:4", "--rounds", 2), "2:4 is whole at once"),
        (("--granularity", "weight", "--set", "sparsity.scope=2:4"), "has the compression 2, not 5.\n"),
        (("--granularity", "weight", "--branch", "semantc"), "the nearest are semantic"),
        (("--granularity", "weight", "--set", "task=polyp"), "reads only sparsity;"),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_line(folder, tmp_path, monkeypatch, capsys, arguments, words):
    code, _, err = run(monkeypatch, capsys, "prune", folder / "dense", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_cut_has_the_training_of_its_dense_network(folder, tmp_path):
    for cut in (pipeline.prune, pipeline.sparsify):
        with pytest.raises(InputError, match=r"another training.*leave training as"):
            cut(RunFolder(folder / "dense"), recipe("training.epochs=5"), tmp_path / "out", Session(["prune"]))
    assert not (tmp_path / "out").exists()


def test_the_demo_goes_from_tissue_to_page(tmp_path, monkeypatch, capsys):
    small = ("pruning.recovery.epochs=1", "pruning.round_to=1", "pruning.min_channels=1", "pruning.keep_ratio=0.5")
    settings = [part for setting in small for part in ("--set", setting)]
    out = tmp_path / "demo"
    code, shown, err = run(monkeypatch, capsys, "demo", "--task", "nuclei", *_SET, *settings, "--out", out)
    assert code == 0, err
    assert re.search(r"AJI on test \d\.\d{4} dense, \d\.\d{4} sparse, \d\.\d{4} pruned", shown)
    assert "Synthetic data" in (out / "report.html").read_text(encoding="utf-8")
    sparse, pruned = (read_record(out / name / "prune.json") for name in ("sparse", "pruned"))
    assert sparse["masks"]["compression"] == pytest.approx(5, rel=0.05)
    assert pruned["reached"]["macs_keep_ratio"] <= 0.5


def test_the_demo_is_of_a_known_task(tmp_path, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "demo", "--task", "nucle", "--out", tmp_path / "demo")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "nuclei-demo" in err


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_for_another_task_is_refused_before_training(tmp_path, monkeypatch, capsys, channels):
    kwargs = f"{{spatial_dims: 2, in_channels: 3, out_channels: {channels}, channels: [4, 8], strides: [2]}}"
    network = ("--set", "network.builder=monai.networks.nets:UNet", "--set", f"network.kwargs={kwargs}")
    small = ("--set", "data.size=32", "--set", "data.train=3", "--set", "data.val=2", "--set", "data.test=2")
    train = ("train", "--task", "nuclei", "--recipe", "nuclei-demo", *small, *network)
    code, _, err = run(monkeypatch, capsys, *train, "--out", tmp_path / "out")
    assert code == 2
    assert f"maps (1, 3, 32, 32) to (1, {channels}, 32, 32); the nuclei task needs" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_binary_masks_are_taken_by_request(tmp_path, monkeypatch, capsys):
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(4):
        image, labels = SyntheticTile(f"t{number}", (0, 0, number), 64).read()
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"t{number}.png")
        Image.fromarray((labels > 0).astype(np.uint8) * 255).save(tmp_path / "data" / "masks" / f"t{number}.png")
    train = ("train", "--task", "nuclei", "--recipe", "nuclei-demo", *_SET, "--data", tmp_path / "data")
    code, _, err = run(monkeypatch, capsys, *train, "--out", tmp_path / "refused")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "data.marking=binary" in err
    assert not (tmp_path / "refused").exists()
    code, _, _ = run(monkeypatch, capsys, *train, "--set", "data.marking=binary", "--out", tmp_path / "dense")
    assert code == 0
    code, _, err = run(
        monkeypatch, capsys, "evaluate", tmp_path / "dense", "--data", tmp_path / "data", "--marking", "labels"
    )
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--marking binary" in err
    code, _, _ = run(
        monkeypatch, capsys, "evaluate", tmp_path / "dense", "--data", tmp_path / "data", "--marking", "binary"
    )
    assert code == 0


@pytest.mark.parametrize(
    ("split", "labels", "words"),
    [
        ("test", lambda labels: (labels > 0) * 255, "beside it numbers its nuclei"),
        ("train", np.zeros_like, "holds a nucleus"),
    ],
)
def test_masks_that_are_none_are_found_before_training(tmp_path, monkeypatch, capsys, split, labels, words):
    splits = {"train": ["t0", "t1"], "val": ["t2"], "test": ["t3"]}
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(4):
        image, truth = SyntheticTile(f"t{number}", (0, 0, number), 64).read()
        truth = labels(truth) if f"t{number}" in splits[split] else truth
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"t{number}.png")
        Image.fromarray(truth.astype(np.uint8)).save(tmp_path / "data" / "masks" / f"t{number}.png")
    (tmp_path / "data" / "splits.json").write_text(json.dumps(splits))
    train = ("train", "--task", "nuclei", "--recipe", "nuclei-demo", *_SET, "--data", tmp_path / "data")
    code, _, err = run(monkeypatch, capsys, *train, "--out", tmp_path / "out")
    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["prune", "evaluate"])
def test_a_dense_run_that_has_not_ended_is_refused(folder, tmp_path, monkeypatch, capsys, command):
    shutil.copytree(folder / "dense", tmp_path / "dense")
    record = read_record(tmp_path / "dense" / "run.json")
    unfinished = {key: value for key, value in record.items() if key not in ("training", "constants")}
    write_record(tmp_path / "dense" / "run.json", unfinished)
    out = ("--granularity", "weight", "--out", tmp_path / "out") if command == "prune" else ()
    code, _, err = run(monkeypatch, capsys, command, tmp_path / "dense", *out)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "has not ended; run its command again with --resume" in err


def test_the_watershed_is_chosen_on_validation_alone(tmp_path, monkeypatch):
    seen = []

    def tuned(task, dense, cases):
        seen.extend(case.id for case in cases)
        return task

    monkeypatch.setattr("secateur.tasks.nuclei.NucleiTask.tuned", tuned)
    pipeline.train(recipe("training.epochs=1"), tmp_path / "dense", Session(["train"]))
    assert seen == ["synthetic-val-0000", "synthetic-val-0001"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("ratios.compressions=[1, 1000000]", "ratios.repeated_compressions=null", *_NO_BASELINES),
            "leaves nothing of",
        ),
        (
            ("ratios.branches=[semantc]", "ratios.branch_compressions=[2]", "ratios.small_compressions=[]"),
            "the nearest are semantic",
        ),
        (("data.source=/nowhere", "ratios.small_compressions=[]"), "/nowhere"),
        (("sparsity.rewind_epoch=2", *_NO_BASELINES), "after epoch 2 of 2 nothing is left to repeat"),
        (
            ("sparsity.rewind_epoch=1", "training.keep_epoch=null", *_NO_BASELINES),
            r"keeps no checkpoint of epoch 1 .* --set training\.keep_epoch=1",
        ),
        (
            ("ratios.branches=[layer]", "ratios.branch_compressions=[16]", "ratios.small_compressions=[]"),
            "two networks of the sweep would be called seed-0/layer-x16",
        ),
        ((), "the thinnest .* at compression 64 would have"),
    ],
)
def test_an_impossible_sweep_is_refused_before_anything_is_made(tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        sweep(
            RECIPES["nuclei-study"]().with_settings(parse_settings([*_TINY, "data.source=synthetic", *settings])),
            tmp_path / "out",
            Session(["sweep"]),
        )
    assert not (tmp_path / "out").exists()


def test_a_recipe_for_another_task_is_refused(tmp_path, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "train", "--task", "nuclei", "--recipe", "polyp", "--out", tmp_path / "out")
    assert code == 2
    assert "is for the task polyp, not nuclei" in err


@pytest.mark.parametrize("compression", [1, 5, 16, 64])
@pytest.mark.parametrize("spec", [two_networks(), monai_unet(32)], ids=["nuclei", "unet"])
def test_a_thinner_network_has_about_as_many_parameters_as_are_left(spec, compression):
    before, after = (count_params(each.build()) for each in (spec, thinner(spec, compression)))
    assert after == pytest.approx(before / compression, rel=0.12)


def test_a_network_without_widths_cannot_be_thinned():
    with pytest.raises(RecipeError, match="has none of the arguments widths"):
        thinner(ModelSpec("torch.nn:Linear", {"in_features": 3, "out_features": 3}), 4)


def test_the_thinnest_network_there_is_does_not_pass_for_a_thinner_one():
    with pytest.raises(RecipeError, match=r"the thinnest .*TwoNetworks has .* parameters.* compression 1e\+06"):
        thinner(two_networks(), 1e6)


def test_no_ratio_of_several_trainings_is_none_and_not_all():
    ratios = RatioSweepRecipe(compressions=(1, 2), repeated_compressions=())
    plan = plan_sweep(recipe().model_copy(update={"ratios": ratios}))
    assert [cell.name for cell in plan.cells if plan.is_timed(cell)] == ["seed-0/dense"]


_RATIOS = RatioSweepRecipe(
    compressions=(1, 2, 8), seeds=(0, 1), repeated_compressions=(2,), random_compressions=(2,),
    small_compressions=(8,), structured_keep_ratios=(0.5,), branches=("semantic", "distance"), branch_compressions=(8,),
)  # fmt: skip


def test_every_row_asked_for_is_a_cell_of_its_own():
    cells = {cell.name: cell for cell in plan_ratio_cells(recipe(), _RATIOS)}
    assert set(cells) == {
        "seed-0/dense", "seed-1/dense", "seed-0/layer-x1", "seed-0/taylor-50", "seed-0/small-x8",
        "seed-0/layer-x2", "seed-0/network-x2", "seed-0/random-x2",
        "seed-1/layer-x2", "seed-1/network-x2",
        "seed-0/layer-x8", "seed-0/network-x8", "seed-0/semantic-x8", "seed-0/distance-x8",
    }  # fmt: skip
    assert cells["seed-0/semantic-x8"].recipe.sparsity.branches == ("semantic",)
    assert cells["seed-0/layer-x8"].recipe.sparsity.branches == ()
    small = cells["seed-0/small-x8"].recipe
    assert small.training.epochs == 3
    assert count_params(small.network.build()) < count_params(recipe().network.build()) / 6
    assert cells["seed-1/layer-x2"].recipe.sparsity.seed == 1


@pytest.mark.parametrize("measured_before", [True, False])
def test_a_sweep_over_ratios_runs_every_cell(tmp_path, measured_before, monkeypatch):
    ratios = RatioSweepRecipe(
        compressions=(1, 8), before_recovery=measured_before, small_compressions=(8,), structured_keep_ratios=(0.5,)
    )
    asked = recipe("pruning.round_to=1", "pruning.min_channels=1", "pruning.recovery.epochs=1")
    record = sweep(asked.model_copy(update={"ratios": ratios}), tmp_path / "sweep", Session(["sweep"]))
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert {cell["status"] for cell in cells.values()} == {"done"}
    assert cells["seed-0/layer-x8"]["sparsity"]["masks"]["compression"] == pytest.approx(8, rel=0.05)
    assert len(cells["seed-0/network-x8"]["evaluations"]["test"]["aji"]) == 2
    before = cells["seed-0/network-x8"]["before_recovery"]
    assert set(before) == ({"test"} if measured_before else set())
    assert before.get("test") != cells["seed-0/network-x8"]["evaluations"]["test"]
    assert {model["name"] for model in record["bench"]["benches"][0]["models"]} == {*cells} - {"seed-0/random-x8"}
    assert (tmp_path / "sweep" / "report.html").is_file()
    if measured_before:
        return
    for stage in ("train", "prune", "sparsify"):  # what is asked for later is measured without training again
        monkeypatch.setattr(pipeline, stage, None)
    ratios = ratios.model_copy(update={"before_recovery": True})
    more = sweep(asked.model_copy(update={"ratios": ratios}), tmp_path / "sweep", Session(["sweep"], resume=True))
    for cell in more["cells"]:
        assert set(cell["before_recovery"] or ()) == ({"test"} if cell["kind"] in ("sparse", "pruned") else set())


def test_the_small_network_trains_as_long_as_rounds_or_rewinding_do():
    asked = recipe("training.epochs=5", "sparsity.rounds=3", "sparsity.round_epochs=2", "sparsity.recovery.epochs=4")
    for settings, recovered in (((), 2 + 2 + 4), (("sparsity.rewind_epoch=1",), 3 * (5 - 1))):
        cells = {cell.name: cell for cell in plan_ratio_cells(asked.with_settings(parse_settings(settings)), _RATIOS)}
        assert cells["seed-0/layer-x8"].epochs == recovered
        assert cells["seed-0/small-x8"].epochs == 5 + recovered


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (recipe, "over budgets .* not of 'nuclei'; give the recipe ratios instead"),
        (
            lambda: RECIPES["polyp-demo"]().model_copy(update={"ratios": _RATIOS}),
            "over ratios .* not of 'polyp'",
        ),
    ],
)
def test_each_kind_of_sweep_is_for_its_task(tmp_path, asked, words):
    with pytest.raises(InputError, match=words):
        sweep(asked(), tmp_path / "sweep", Session(["sweep"]))
    assert not (tmp_path / "sweep").exists()
