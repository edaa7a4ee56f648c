"""Networks and run folders on disk."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import secateur as sc
from secateur.errors import InputError, RecipeError, RecordError
from secateur.nets.reference import monai_unet
from secateur.store.runs import RunFolder

SPEC = monai_unet(8, levels=3)
DEPTHWISE = sc.ModelSpec(
    "monai.networks.nets:FlexibleUNet",
    {"in_channels": 3, "out_channels": 1, "backbone": "efficientnet-b0", "pretrained": False,
     "decoder_channels": [32, 24, 16, 12, 8]},
)  # fmt: skip


def _pruned(spec: sc.ModelSpec, side: int):
    torch.manual_seed(0)
    model = spec.build().eval()
    graph = sc.trace(model, torch.zeros(1, 3, side, side))
    plan = sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(0.3))
    return sc.remove(model, graph, plan), plan


@pytest.mark.parametrize(("spec", "side"), [(SPEC, 32), pytest.param(DEPTHWISE, 64, marks=pytest.mark.slow)])
def test_a_pruned_network_comes_back_bitwise(tmp_path, spec, side):
    small, plan = _pruned(spec, side)
    sc.save(small, tmp_path, spec=spec, plan=plan)
    again = sc.load(tmp_path)
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(small.eval()(image), again(image))
    assert repr(again) == repr(small)  # modules remember their new widths
    assert sorted(p.name for p in tmp_path.iterdir()) == ["architecture.json", "model.safetensors"]


def test_weights_of_another_network_are_refused(tmp_path):
    small, plan = _pruned(SPEC, 32)
    sc.save(small, tmp_path, spec=SPEC, plan=plan)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: torch.zeros(400, 3, 3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(RecordError, match=r"has shape \(400, 3, 3, 3\), the builder makes"):
        sc.load(tmp_path)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RecordError, match="disagree on the tensors"):
        sc.load(tmp_path)


def test_narrower_weights_without_a_plan_are_refused(tmp_path):
    small, _ = _pruned(SPEC, 32)
    sc.save(small, tmp_path, spec=SPEC, plan=None)
    with pytest.raises(RecordError, match="the builder makes"):
        sc.load(tmp_path)


def test_another_schema_is_refused(tmp_path):
    small, plan = _pruned(SPEC, 32)
    sc.save(small, tmp_path, spec=SPEC, plan=plan)
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
    with pytest.raises(RecordError, match="has schema 99, this version of secateur reads 1"):
        sc.load(tmp_path)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("monai.networks.nets.UNet", "write package.module:name"),
        ("monai.networks.nets:UNett", "cannot be imported"),
        ("os:system", "neither a function nor a class of networks"),
        ("torch:Tensor", "neither a function nor a class of networks"),
        ("json:dumps", "cannot be called with|returns str"),
    ],
)
def test_builders_that_build_no_network_are_refused(builder, message):
    with pytest.raises(RecipeError, match=message):
        sc.ModelSpec(builder, {"obj": 1} if builder == "json:dumps" else {}).build()


def test_wrong_arguments_of_a_builder_are_named():
    with pytest.raises(RecipeError, match=r"cannot be called with.*spatial_dims"):
        sc.ModelSpec("monai.networks.nets:UNet", {"spatial_dims": 2}).build()


def test_a_run_folder_is_begun_once(tmp_path):
    run = RunFolder(tmp_path / "run")
    facts = {"name": "run", "role": "dense", "parent": None}
    run.begin(facts, ["secateur", "train"], resume=False, overwrite=False)
    with pytest.raises(InputError, match=r"exists; give another --out, --resume to go on, or --overwrite"):
        run.begin(facts, ["secateur", "train"], resume=False, overwrite=False)
    run.begin(facts, ["secateur", "train", "--resume"], resume=True, overwrite=False)
    assert run.run["commands"] == [["secateur", "train"], ["secateur", "train", "--resume"]]
    with pytest.raises(InputError, match="was begun with another role"):
        run.begin({**facts, "role": "pruned"}, ["secateur"], resume=True, overwrite=False)
    (run.path / "leftover").touch()
    run.begin(facts, ["secateur"], resume=False, overwrite=True)
    assert not (run.path / "leftover").exists()


def test_a_folder_of_the_users_is_never_emptied(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RecordError, match="is not a run folder"):
        RunFolder(tmp_path).begin({}, [], resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
