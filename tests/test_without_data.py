"""Networks that come without data: cut, kept, given back and exported; whole or absent, whatever happens."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import secateur as sc
from secateur import without_data
from secateur.errors import BudgetError, CheckError, EvidenceError, GraphError, InputError, ParityError, RecipeError
from secateur.graph.group_norm import GroupNormMode
from secateur.inspection import inspect
from secateur.opening import OpenedModel, open_model
from secateur.prune.criteria import CRITERIA
from secateur.records import read_record
from secateur.store.networks import read_architecture, read_input_shape
from test_nets_sources import PLAIN, UNET, network, unet, write_bundle, write_nnunet

FLOORS = {"pruning.round_to": 1, "pruning.min_channels": 1}
BUILDER = f"{__name__}:Net"
_CALLS = count()


class Net(nn.Module):
    """Two widths, tied by a residual sum, with a norm that holds running statistics."""

    def __init__(self, width=12, classes=2):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm, self.third = nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, width, 1)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x + self.third(torch.relu(self.norm(self.second(x)))))


class Unlike(Net):
    """Another network every time it is built."""

    def __init__(self):
        super().__init__()
        self.factor = float(next(_CALLS))

    def forward(self, x):
        return super().forward(x) * self.factor


class Twins(Net):
    """Returns two tensors."""

    def forward(self, x):
        return super().forward(x), x


class Grouped(nn.Sequential):
    """A GroupNorm of four norm groups of four channels."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 2, 1))


class Activated(nn.Sequential):
    """Takes a class, which no JSON holds."""

    def __init__(self, act):
        super().__init__(nn.Conv2d(3, 8, 1), act(), nn.Conv2d(8, 2, 1))


class Fickle(Unlike):
    """Runs only as it was built first."""

    def forward(self, x):
        if self.factor:
            raise KeyError("nothing is as it was")
        return Net.forward(self, x)


def trained(seed=1, **arguments):
    """Weights and running statistics as training leaves them: no two alike."""
    torch.manual_seed(seed)
    model = Net(**arguments)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return model.eval()


def nnunet_folder(folder):
    return str(write_nnunet(folder / "nnunet", {"3d_fullres": PLAIN}, network())), {}


def bundle_folder(folder):
    return str(write_bundle(folder / "bundle", UNET, unet().state_dict(), classes=2)), {}


def builder_with(suffix):
    def write(folder):
        file = folder / f"weights{suffix}"
        state = trained().state_dict()
        save_file(state, file) if suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, file)
        return BUILDER, {"input_shape": "1,3,16,16", "weights": file}

    return write


def saved_folder(folder):
    sc.save(trained(), folder / "saved", spec=sc.ModelSpec(BUILDER), input_shape=(1, 3, 16, 16))
    return str(folder / "saved"), {}


SOURCES = {
    "nnU-Net": nnunet_folder,
    "MONAI bundle": bundle_folder,
    "builder and .pt": builder_with(".pt"),
    "builder and .safetensors": builder_with(".safetensors"),
    "saved folder": saved_folder,
}


def cut(opened, out, *, keep_ratio=0.5, settings=FLOORS, **arguments):
    recipe = without_data.cut_recipe({"pruning.keep_ratio": keep_ratio, **settings})
    return without_data.prune(opened, recipe, out, command=["secateur", "prune"], **arguments)


@pytest.fixture
def opened():
    return OpenedModel(BUILDER, trained(), (1, 3, 16, 16), sc.ModelSpec(BUILDER))


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_model_is_cut_and_given_back_without_its_source(tmp_path, source):
    (tmp_path / "source").mkdir()
    name, arguments = SOURCES[source](tmp_path / "source")
    opened = open_model(name, **arguments)
    before = {key: tensor.clone() for key, tensor in opened.model.state_dict().items()}
    record = cut(opened, tmp_path / "out")
    shutil.rmtree(tmp_path / "source")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]

    graph = sc.trace(opened.model, torch.zeros(opened.input_shape))  # the same in six lines of Python
    plan = sc.allocate(graph, sc.L2Norm().score(opened.model, graph), sc.MacsBudget(0.5))
    small = sc.remove(opened.model, graph, plan)
    image = torch.randn(opened.input_shape)
    assert torch.equal(sc.load(tmp_path / "out")(image), small(image))
    assert read_architecture(tmp_path / "out")[1].kept == plan.kept
    assert all(torch.equal(before[key], tensor) for key, tensor in opened.model.state_dict().items())

    assert {key: value for key, value in read_record(tmp_path / "out" / "prune.json").items() if key != "schema"} == (
        json.loads(json.dumps(record))
    )
    assert record["proof"]["passed"]
    assert record["reached"]["macs_keep_ratio"] <= 0.5
    assert record["reached"]["params"] == sum(parameter.numel() for parameter in small.parameters())
    assert {row["id"]: row["kept"] for row in record["groups"]} == {
        group.id: len(plan.kept.get(group.id, range(group.width))) for group in graph.groups
    }
    run = read_record(tmp_path / "out" / "run.json")
    assert (run["name"], run["role"], run["model"], run["weights"]) == ("out", "pruned", name, record["weights"])
    assert run["versions"]["torch"]


def test_the_result_is_a_model_too(tmp_path, opened):
    record = cut(opened, tmp_path / "out")
    again = open_model(str(tmp_path / "out"))
    assert again.input_shape == read_input_shape(tmp_path / "out") == (1, 3, 16, 16)
    found = inspect(again)
    assert (found["macs"], found["params"]) == (record["reached"]["macs"], record["reached"]["params"])
    assert open_model(str(tmp_path / "out"), input_shape="1,3,8,8").input_shape == (1, 3, 8, 8)


def test_a_second_cut_composes_with_the_first(tmp_path, opened):
    cut(opened, tmp_path / "first", keep_ratio=0.6)
    second = cut(open_model(str(tmp_path / "first")), tmp_path / "second", keep_ratio=0.6)
    assert second["dense"]["macs"] == read_record(tmp_path / "first" / "prune.json")["reached"]["macs"]
    graph = sc.trace(opened.model, torch.zeros(opened.input_shape))
    at_once = sc.remove(opened.model, graph, read_architecture(tmp_path / "second")[1])
    image = torch.randn(opened.input_shape)
    torch.testing.assert_close(sc.load(tmp_path / "second")(image), at_once(image))
    assert sum(p.numel() for p in at_once.parameters()) == second["reached"]["params"]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_without_data_are_those_that_score_without_evidence(opened, criterion):
    graph = sc.trace(opened.model, torch.zeros(opened.input_shape))
    if criterion in without_data.WITHOUT_DATA:
        assert set(CRITERIA[criterion](0).score(opened.model, graph)) == {group.id for group in graph.groups}
        return
    with pytest.raises(EvidenceError):
        CRITERIA[criterion](0).score(opened.model, graph)
    with pytest.raises(RecipeError, match=rf"needs data.*l2, l1, random, uniform.*given: '{criterion}'"):
        without_data.cut_recipe({"pruning.criterion": criterion, "pruning.keep_ratio": 0.5})


@pytest.mark.parametrize("criterion", without_data.WITHOUT_DATA)
@pytest.mark.parametrize("budget", ["macs", "params"])
def test_a_dry_run_tells_what_the_cut_will_do(tmp_path, opened, criterion, budget):
    settings = {"pruning.criterion": criterion, "pruning.budget": budget, "pruning.round_to": 2, "pruning.seed": 3}
    settings |= {"pruning.min_channels": 3, "pruning.keep_ratio": 0.5}
    dry = inspect(opened, dry_run=without_data.cut_recipe(settings))["dry_run"]
    record = cut(opened, tmp_path / "out", settings=settings)
    assert dry["kept"] == {row["id"]: row["kept"] for row in record["groups"]}
    assert dry["at_floor"] == record["at_floor"]
    assert (dry["macs"], dry["params"]) == (record["reached"]["macs"], record["reached"]["params"])
    assert record["reached"][f"{budget}_keep_ratio"] <= 0.5
    floor = 4  # three channels, rounded up to a multiple of two
    assert record["at_floor"] == [row["id"] for row in record["groups"] if row["kept"] == floor < row["width"]]


def test_the_seed_draws_the_channels(tmp_path, opened):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        cut(opened, tmp_path / name, settings={**FLOORS, "pruning.criterion": "random", "pruning.seed": seed})
    plans = [read_architecture(tmp_path / name)[1].kept for name in ("one", "two", "three")]
    assert plans[0] == plans[1] != plans[2]


def test_a_norm_group_may_lose_some_of_its_channels_by_request(tmp_path):
    opened = OpenedModel("grouped", Grouped().eval(), (1, 3, 8, 8), sc.ModelSpec(f"{__name__}:Grouped"))
    record = cut(opened, tmp_path / "even", group_norm=GroupNormMode.EVEN)
    assert (record["group_norm"], [row["exact"] for row in record["groups"]]) == ("even", [False])
    assert record["proof"]["approximate"] == ("1.weight",)
    assert sc.load(tmp_path / "even")[1].num_groups == 4
    exact = cut(opened, tmp_path / "whole")
    assert exact["proof"]["approximate"] == ()
    assert sc.load(tmp_path / "whole")[1].num_groups == 2


def test_a_builder_makes_the_same_weights_every_time():
    first = open_model(BUILDER, input_shape="1,3,8,8").model
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    second = open_model(BUILDER, input_shape="1,3,8,8").model
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training


def test_tuples_of_a_bundle_are_kept_as_lists(tmp_path):
    root = write_bundle(tmp_path / "bundle", {**UNET, "strides": "$(2,)"}, unet().state_dict(), classes=2)
    opened = open_model(str(root))
    assert opened.spec.kwargs["strides"] == [2]
    cut(opened, tmp_path / "out", keep_ratio=0.7)
    assert sc.load(tmp_path / "out")(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_a_network_that_nothing_could_rebuild_is_refused(tmp_path):
    definition = {"_target_": f"{__name__}.Activated", "act": "$__import__('torch').nn.ReLU"}
    root = write_bundle(tmp_path / "bundle", definition, Activated(nn.ReLU).state_dict())
    opened = open_model(str(root))
    assert inspect(opened)["groups"] == 1
    with pytest.raises(InputError, match="from objects that no JSON holds"):
        cut(opened, tmp_path / "out")
    opened = OpenedModel("unlike", Unlike().eval(), (1, 3, 16, 16), sc.ModelSpec(f"{__name__}:Unlike"))
    with pytest.raises(CheckError, match=r"would not give the proved network back \(an output differs by"):
        cut(opened, tmp_path / "out")
    fickle = Fickle()
    fickle.factor = 0.0
    opened = OpenedModel("fickle", fickle.eval(), (1, 3, 16, 16), sc.ModelSpec(f"{__name__}:Fickle"))
    with pytest.raises(CheckError, match=r"would not give the proved network back \('nothing is as it was'"):
        cut(opened, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", ["trace", "remove_with_proof", "save", "load", "write_record"])
def test_a_cut_that_is_stopped_changes_nothing(tmp_path, opened, monkeypatch, step, overwrite):
    if overwrite:
        cut(opened, tmp_path / "out", keep_ratio=0.8)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert len(before) == (4 if overwrite else 0)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(without_data, step, stop)
    with pytest.raises(KeyboardInterrupt):
        cut(opened, tmp_path / "out", overwrite=overwrite)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert (tmp_path / "out").exists() == overwrite


_KILLED_EVERYWHERE = """
import os, sys
from pathlib import Path
from secateur import without_data
from secateur.store import folders
import test_without_data as tests

opened = tests.OpenedModel("net", tests.trained(), (1, 3, 16, 16), tests.sc.ModelSpec(tests.BUILDER))
homes = {"save": without_data, "write_record": without_data, "rename": folders.Path}
for overwrite in (False, True):
    if overwrite:
        tests.cut(opened, Path("out"), keep_ratio=0.8)
        before = Path("out/prune.json").read_bytes()
    for step, home in homes.items():
        child = os.fork()
        if child == 0:
            setattr(home, step, lambda *_, **__: os._exit(9))
            tests.cut(opened, Path("out"), overwrite=overwrite)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, step
        assert Path("out").exists() == overwrite, step
        assert not overwrite or Path("out/prune.json").read_bytes() == before, step
        assert len(os.listdir()) == 1 + overwrite, step  # what the child left is nobody's MODEL
tests.cut(opened, Path("out"), overwrite=True)
"""


def test_a_killed_cut_leaves_nothing_that_looks_whole(tmp_path):
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}  # a pool of threads survives no fork
    subprocess.run([sys.executable, "-c", _KILLED_EVERYWHERE], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]  # nor does the next cut find it in its way
    assert read_record(tmp_path / "out" / "prune.json")["budget"]["keep_ratio"] == 0.5
    assert sc.load(tmp_path / "out")(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_neither_the_network_itself_nor_a_folder_of_the_users_is_overwritten(tmp_path, opened):
    sc.save(opened.model, tmp_path / "own", spec=opened.spec, input_shape=opened.input_shape)
    cut(opened, tmp_path / "out")
    with pytest.raises(InputError, match=r"out exists; give another --out, or --overwrite"):
        cut(opened, tmp_path / "out")
    with pytest.raises(InputError, match="is not a run folder"):
        cut(opened, tmp_path / "own", overwrite=True)
    with pytest.raises(InputError, match="holds the network that is to be pruned"):
        cut(open_model(str(tmp_path / "out")), tmp_path / "out", overwrite=True, keep_ratio=0.9)
    assert cut(opened, tmp_path / "out", keep_ratio=0.7, overwrite=True)["budget"]["keep_ratio"] == 0.7
    assert read_record(tmp_path / "out" / "prune.json")["budget"]["keep_ratio"] == 0.7


def test_settings_that_need_data_are_refused_by_name():
    for key in ("pruning.rounds", "pruning.recovery.epochs", "pruning.scoring_samples", "data.size"):
        with pytest.raises(RecipeError, match=rf"^{key} cannot be set.*min_keep_ratio, seed"):
            without_data.cut_recipe({"pruning.keep_ratio": 0.5, key: 2})
    with pytest.raises(BudgetError, match=r"--macs-keep 0\.25"):
        without_data.cut_recipe({})
    with pytest.raises(RecipeError, match=r"pruning\.round_to: .*greater than or equal to 1 .given: 0"):
        without_data.cut_recipe({"pruning.keep_ratio": 0.5, "pruning.round_to": 0})


def test_an_export_needs_no_secateur_and_says_what_the_network_says(tmp_path, opened):
    cut(opened, tmp_path / "out")
    record = without_data.export(tmp_path / "out", formats=["onnx", "pt2"], command=["secateur", "export"], cases=2)
    assert record["passed"]
    assert (record["cases"], record["inputs"], record["input_shape"]) == (2, "random inputs", [1, 3, 16, 16])
    export = tmp_path / "out" / "export"
    assert sorted(path.name for path in export.iterdir()) == [
        "model.onnx", "model.pt2", "model_dynamic.onnx", "parity.json",
    ]  # fmt: skip
    image = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        expected = sc.load(tmp_path / "out")(image)
    probe = (
        "import sys, numpy, onnxruntime, torch; image = numpy.load('image.npy');"
        "session = onnxruntime.InferenceSession('model_dynamic.onnx');"
        "numpy.save('onnx.npy', session.run(None, {'image': image})[0]);"
        "program = torch.export.load('model.pt2').module();"
        "numpy.save('pt2.npy', program(torch.from_numpy(image)).detach().numpy());"
        "assert 'secateur' not in sys.modules"
    )
    np.save(export / "image.npy", image.numpy())
    subprocess.run([sys.executable, "-c", probe], cwd=export, check=True)
    for name in ("onnx", "pt2"):
        torch.testing.assert_close(torch.from_numpy(np.load(export / f"{name}.npy")), expected, rtol=1e-4, atol=1e-5)
    assert read_record(tmp_path / "out" / "run.json")["commands"][-1] == ["secateur", "export"]


def test_a_folder_saved_in_python_is_exported_at_the_shape_asked_for(tmp_path, opened):
    sc.save(opened.model, tmp_path / "own", spec=opened.spec)
    with pytest.raises(InputError, match="does not say what it takes; give --input-shape"):
        without_data.export(tmp_path / "own", formats=["pt2"], command=[])
    record = without_data.export(tmp_path / "own", formats=["pt2"], command=[], input_shape="1,3,8,12")
    assert record["input_shape"] == [1, 3, 8, 12]
    program = torch.export.load(tmp_path / "own" / "export" / "model.pt2").module()
    assert program(torch.zeros(2, 3, 8, 12)).shape == (2, 2, 8, 12)


def test_an_export_that_differs_or_fails(tmp_path, opened, monkeypatch):
    sc.save(opened.model, tmp_path / "own", spec=opened.spec, input_shape=opened.input_shape)
    arguments = {"formats": ["pt2"], "command": []}
    without_data.export(tmp_path / "own", **arguments)
    export = tmp_path / "own" / "export"
    before = {path.name: path.read_bytes() for path in export.iterdir()}

    def fail(*_: object) -> None:
        raise GraphError("planted")

    with monkeypatch.context() as patch:
        patch.setitem(without_data.export_checked.__globals__["FORMATS"], "pt2", fail)
        with pytest.raises(GraphError, match="planted"):
            without_data.export(tmp_path / "own", **arguments)
    assert {path.name: path.read_bytes() for path in export.iterdir()} == before
    monkeypatch.setattr("secateur.deploy.parity.RELATIVE_TOLERANCE", -1.0)
    with pytest.raises(ParityError, match="checks of exported networks failed"):
        without_data.export(tmp_path / "own", **arguments)
    assert [path.name for path in export.iterdir()] == ["parity.json"]
    assert not read_record(export / "parity.json")["passed"]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == [
        "architecture.json", "export", "model.safetensors",
    ]  # fmt: skip


def test_a_network_of_several_outputs_is_not_exported(tmp_path):
    sc.save(Twins().eval(), tmp_path / "own", spec=sc.ModelSpec(f"{__name__}:Twins"), input_shape=(1, 3, 8, 8))
    with pytest.raises(InputError, match="returns a tuple in eval mode"):
        without_data.export(tmp_path / "own", formats=["onnx"], command=[])
    with pytest.raises(InputError, match="no export format 'tflite'; give one of onnx, pt2"):
        without_data.export(tmp_path / "own", formats=["tflite"], command=[])


def test_weights_that_do_not_fit_the_builder_are_refused(tmp_path):
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    torch.save({"a": trained().state_dict(), "b": trained().state_dict()}, tmp_path / "two.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    wrong = {
        "other.safetensors": "are not those of the Net that they are for",
        "two.pt": "holds 2 sets of weights",
        "broken.safetensors": "is not a readable safetensors file",
        "absent.safetensors": "is not a readable safetensors file",
    }
    for name, message in wrong.items():
        with pytest.raises(InputError, match=message):
            open_model(BUILDER, input_shape="1,3,8,8", weights=tmp_path / name)
    cut(OpenedModel(BUILDER, trained(), (1, 3, 16, 16), sc.ModelSpec(BUILDER)), tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "model.safetensors")) >= {"first.weight", "norm.running_mean"}
    with pytest.raises(InputError, match="brings its own network"):
        open_model(str(tmp_path / "out"), weights=tmp_path / "two.pt")
    with pytest.raises(InputError, match="brings its own network"):
        open_model(str(tmp_path / "out"), kwargs='{"width": 3}')
