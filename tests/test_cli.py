"""The command line, end to end: one tiny run from data to page, and every kind of wrong input."""

import inspect
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from secateur.cli import app, main
from secateur.cli.show import show_inspection
from secateur.measures import with_dense
from secateur.prune import surgery
from secateur.prune.surgery import cut_
from secateur.recipes import RECIPES
from secateur.recipes.recipe import parse_settings
from secateur.records import read_record, write_record
from secateur.store.networks import load
from secateur.store.runs import RunFolder

_SETTINGS = [
    "data.size=32", "data.train=6", "data.val=2", "data.test=3", "training.epochs=1", "training.batch_size=3",
    "network.kwargs.channels=[4, 8]", "network.kwargs.strides=[2]", "pruning.recovery.epochs=1",
    "pruning.round_epochs=1", "pruning.round_to=1", "pruning.min_channels=1", "pruning.keep_ratio=0.3",
    "bench_size=32", "bench.seconds=0", "bench.threads=1", "bench.frame_shape=[48, 64]",
]  # fmt: skip
SMALL = [part for setting in _SETTINGS for part in ("--set", setting)]
TINY = ["--recipe", "polyp-demo", *SMALL]


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of ``secateur ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["secateur", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a demo: a dense and a pruned run and their page, made once."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["secateur", "demo", *SMALL, "--out", ".", "--json", "demo.json"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    return folder


def test_the_demo_goes_from_data_to_page(runs):
    assert "Synthetic data" in (runs / "report.html").read_text(encoding="utf-8")
    summary = read_record(runs / "demo.json")
    assert (summary["page"], [row["name"] for row in summary["runs"]]) == ("report.html", ["dense", "pruned"])
    pruned = read_record(runs / "pruned" / "prune.json")
    assert pruned["reached"]["macs_keep_ratio"] <= 0.3
    assert pruned["proof"]["passed"]
    assert set(pruned) >= {"criterion", "budget", "reached", "groups", "proof", "rounds", "scoring", "pinned"}
    evaluation = read_record(runs / "pruned" / "evaluation.json")
    assert evaluation["n_cases"] == len(evaluation["cases"]) == 3
    assert evaluation["synthetic"]
    assert evaluation["polyps"]["lost"] is not None  # counted against the dense run, which was evaluated on the way
    bench = read_record(runs / "pruned" / "bench.json")["benches"]
    assert {entry["runtime"] for entry in bench} == {"torch", "onnxruntime", "openvino"}
    assert all([model["name"] for model in entry["models"]] == ["dense", "pruned"] for entry in bench)
    assert read_record(runs / "pruned" / "export" / "parity.json")["passed"]


@pytest.mark.parametrize("package", ["jinja2", "openvino", "onnxscript"])
def test_the_demo_misses_an_extra_before_it_trains(tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks a module as absent
    monkeypatch.setattr("secateur.pipeline.fit", lambda *_, **__: pytest.fail("it trains"))
    code, _, err = run(monkeypatch, capsys, "demo", *SMALL, "--out", tmp_path / "demo")
    assert code == 2, err
    assert re.search(rf"'?{package}'?, which is not installed.*pip install secateur\[", err)
    assert not (tmp_path / "demo").exists()


def test_every_stage_can_be_done_again_alone(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    for command in (["evaluate", "pruned", "--split", "val"], ["bench", "pruned", "--set", "bench.targets=[torch]"]):
        code, _, err = run(monkeypatch, capsys, *command, "--json", f"{command[0]}.json")
        assert code == 0, err
    assert read_record(runs / "evaluate.json")["n_cases"] == 2
    assert (runs / "pruned" / "evaluation.val.json").is_file()
    assert [entry["runtime"] for entry in read_record(runs / "bench.json")["benches"]] == ["torch"]
    code, out, err = run(monkeypatch, capsys, "bench", "pruned", "--frames", "--set", "bench.targets=[torch]")
    assert code == 0, err
    assert "frames of 64x48, network input 32x32" in out
    assert [row["name"] for row in read_record(runs / "pruned" / "frames.json")["rows"]] == ["dense", "pruned"]
    code, out, err = run(monkeypatch, capsys, "report", "pruned", "--markdown", "table.md", "--json", "report.json")
    assert code == 0, err
    record = read_record(runs / "report.json")
    assert record["page"] == "pruned/report.html"
    kept = [row["macs_keep_ratio"] for row in record["runs"]]
    assert kept == [1, read_record(runs / "pruned" / "prune.json")["reached"]["macs_keep_ratio"]]
    assert "report.html is ready to open" in out
    assert len((runs / "table.md").read_text().strip().splitlines()) >= 3


def test_both_kinds_of_file_are_written_and_checked(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    code, _, err = run(monkeypatch, capsys, "export", "pruned", "--format", "onnx,pt2", "--cases", 1)
    assert code == 0, err
    parity = read_record(runs / "pruned" / "export" / "parity.json")
    assert {(row["file"], row["runtime"]) for row in parity["runtimes"]} >= {
        ("model.pt2", "torch"),
        ("model.onnx", "openvino"),
    }
    assert parity["passed"]


def test_a_cut_is_measured_as_it_left_the_network(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    code, _, err = run(monkeypatch, capsys, "evaluate", "pruned", "--before-recovery")
    assert code == 0, err
    before = read_record(runs / "pruned" / "evaluation.before-recovery-test.json")
    after = read_record(runs / "pruned" / "evaluation.json")
    assert [case["dice"] for case in before["cases"]] != [case["dice"] for case in after["cases"]]
    code, _, err = run(
        monkeypatch, capsys, "prune", "dense", "--macs-keep", 0.3, "--set", "pruning.recovery=null", "--out", "cut"
    )
    assert code == 0, err
    assert run(monkeypatch, capsys, "evaluate", "cut")[0] == 0
    assert read_record(runs / "cut" / "evaluation.json")["cases"] == before["cases"]
    assert read_record(runs / "cut" / "run.json")["training"]["epochs"] == 0
    assert run(monkeypatch, capsys, "report", "cut")[0] == 0


def test_a_shape_is_trained_from_fresh_weights(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    code, _, err = run(monkeypatch, capsys, "train", *TINY, "--shape-of", "pruned", "--out", "scratch")
    assert code == 0, err
    scratch, pruned = (load(runs / name).state_dict() for name in ("scratch", "pruned"))
    assert {name: tensor.shape for name, tensor in scratch.items()} == {
        name: tensor.shape for name, tensor in pruned.items()
    }
    assert any(not torch.equal(scratch[name], pruned[name]) for name in scratch)
    assert read_record(runs / "scratch" / "run.json")["role"] == "scratch"
    assert run(monkeypatch, capsys, "evaluate", "scratch")[0] == 0
    assert read_record(runs / "scratch" / "evaluation.json")["polyps"]["lost"] is not None
    size, reached = read_record(runs / "scratch" / "run.json")["size"], read_record(runs / "pruned" / "prune.json")
    assert size == {
        "input_shape": reached["input_shape"],
        "macs": reached["reached"]["macs"],
        "params": reached["reached"]["params"],
    }


def test_a_renamed_run_goes_on(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert run(monkeypatch, capsys, "train", *TINY, "--out", "first")[0] == 0
    (runs / "first").rename(runs / "renamed")
    code, _, err = run(monkeypatch, capsys, "train", *TINY, "--set", "bench.seconds=1", "--out", "renamed", "--resume")
    assert code == 0, err
    assert read_record(runs / "renamed" / "run.json")["name"] == "renamed"


def test_two_rounds_reach_the_budget_of_the_dense_network(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    code, _, err = run(
        monkeypatch, capsys, "prune", "dense", "--macs-keep", 0.3, "--rounds", 2, "--criterion", "random",
        "--out", "two", "--set", "pruning.distillation={}",
    )  # fmt: skip
    assert code == 0, err
    record = read_record(runs / "two" / "prune.json")
    first, second = (entry["macs"] / record["dense"]["macs"] for entry in record["rounds"])
    assert 0.3 < first <= 0.3**0.5
    assert second == pytest.approx(record["reached"]["macs_keep_ratio"])
    assert second <= 0.3


def test_a_stopped_prune_resumes_to_the_same_weights(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    arguments = ["prune", "dense", "--macs-keep", 0.3, "--rounds", 2]
    assert run(monkeypatch, capsys, *arguments, "--out", "whole")[0] == 0

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.rounds.fit", stop)
        assert run(patch, capsys, *arguments, "--out", "broken")[0] == 130
    assert not (runs / "broken" / "model.safetensors").exists()
    scored = (runs / "broken" / "checkpoints" / "cut-1" / "cut.json").read_bytes()
    assert run(monkeypatch, capsys, *arguments, "--out", "broken", "--resume")[0] == 0
    assert (runs / "broken" / "checkpoints" / "cut-1" / "cut.json").read_bytes() == scored  # not scored again
    assert (runs / "whole" / "model.safetensors").read_bytes() == (runs / "broken" / "model.safetensors").read_bytes()


def test_a_failed_proof_leaves_nothing(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)

    def cut_the_wrong_one(model, graph, kept):
        cut_(model, graph, {group: (*units[:-1], units[-1] ^ 1) for group, units in kept.items() if len(units) == 1})

    monkeypatch.setattr(surgery, "cut_", cut_the_wrong_one)  # what `remove` uses; tracing has its own
    code, _, err = run(monkeypatch, capsys, "prune", "dense", "--macs-keep", 0.3, "--out", "unproved")
    assert code == 1, err
    assert "masked and removed network differ" in err
    assert not (runs / "unproved").exists()


def test_inspect_and_its_dry_run(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    kwargs = json.dumps({"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "features": [8] * 6})
    code, out, err = run(
        monkeypatch, capsys, "inspect", "monai.networks.nets:BasicUNet", "--kwargs", kwargs,
        "--input-shape", "1,3,64,64",
        "--macs-keep", 0.5, "--round-to", 4, "--min-channels", 4, "--json", "inspect.json",
    )  # fmt: skip
    assert code == 0, err
    record = read_record(runs / "inspect.json")
    assert set(record) >= {"params", "macs", "groups", "channels", "removable", "pinned", "seconds"}
    assert record["dry_run"]["macs_keep_ratio"] <= 0.5
    assert "network output" in out
    assert run(monkeypatch, capsys, "inspect", "dense")[0] == 0


def test_inspect_shows_all_of_a_long_name(capsys):
    group = {"id": "q" * 100, "width": 8, "macs_share": 0.5, "params_share": 0.5, "approximate": []}
    ties = {"written_by": ["w" * 100], "followed_by": []}
    totals = {"params": 1, "macs": 1, "groups": 1, "channels": 8, "removable": 7, "seconds": 0.0}
    show_inspection({"group_table": [group | ties], "pinned": [], "input_shape": [1, 3, 8, 8], **totals})
    out = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert (out.count("q"), out.count("w")) == (100, 100)


def test_doctor_finds_this_machine_well(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "doctor")
    assert code == 0, out + err
    assert "remove with proof" in out


def test_every_command_writes_its_record_where_it_is_asked_to():
    commands = {command.name: inspect.signature(command.callback).parameters for command in app.registered_commands}
    assert [name for name, parameters in commands.items() if "json" not in parameters] == []


@pytest.mark.parametrize(
    ("command", "section"),
    [("train", "training"), ("demo", "training"), ("prune", "pruning"), ("bench", "bench"), ("sweep", "sweep")],
)
def test_the_example_of_a_setting_is_one_that_the_command_reads(command, section):
    (callback,) = (entry.callback for entry in app.registered_commands if entry.name == command)
    (option,) = inspect.signature(callback).parameters["settings"].annotation.__metadata__
    (example,) = re.findall(r"e\.g\. (\S+)\.$", option.help)
    assert example.partition(".")[0] == section
    RECIPES["polyp"]().with_settings(parse_settings([example]))


def test_help_is_quick_to_import():
    probe = "import sys, secateur.cli; print(*sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


WRONG = {
    "unknown recipe": (["train", "--recipe", "polip", "--out", "new"], "did you mean 'polyp'"),
    "unknown setting": (["train", *TINY, "--set", "training.epoch=3", "--out", "new"], "training has no 'epoch'"),
    "a side that cannot be halved": (
        ["train", *TINY, "--set", "data.size=33", "--out", "new"],
        "multiple of 2, such as 32 or 34",
    ),
    "no such data": (["train", *TINY, "--data", "nowhere", "--out", "new"], "nowhere"),
    "out exists": (["train", *TINY, "--out", "dense"], "exists; give another --out, --resume"),
    "resume with another recipe": (
        ["train", *TINY, "--set", "training.epochs=2", "--out", "dense", "--resume"],
        "another recipe",
    ),
    "budget above one": (["prune", "dense", "--macs-keep", "1.5", "--out", "new"], "equal to 1 .given: 1.5"),
    "a cut of a dense network": (["evaluate", "dense", "--before-recovery"], "run folder of a pruned network"),
    "a shape of a dense network": (
        ["train", *TINY, "--shape-of", "dense", "--out", "new"],
        "no filters left the network",
    ),
    "rounds without recovery": (
        ["prune", "dense", "--rounds", "2", "--set", "pruning.recovery=null", "--out", "new"],
        "give a recovery",
    ),
    "an unknown export": (
        ["export", "dense", "--format", "onnx,tflite"],
        "no export format 'tflite'; give one of onnx, pt2",
    ),
    "budget of nothing": (["prune", "dense", "--macs-keep", "0", "--out", "new"], "greater than 0 .given: 0"),
    "budget out of reach": (["prune", "dense", "--macs-keep", "0.001", "--out", "new"], "cannot be reached.*keeps 0.0"),
    "two budgets": (["prune", "dense", "--macs-keep", "0.5", "--params-keep", "0.5", "--out", "new"], "not both"),
    "not a run folder": (["evaluate", "."], "is not a run folder"),
    "no folder": (["export", "absent"], "is not a run folder"),
    "unknown split": (["evaluate", "dense", "--split", "tets"], "no split 'tets'; give one of train, val, test"),
    "pruning a pruned network": (["prune", "pruned", "--out", "new"], "holds a pruned network"),
    "out holds the dense run": (["prune", "dense", "--out", ".", "--overwrite"], "holds the dense network"),
    "resume and overwrite": (["train", *TINY, "--out", "new", "--resume", "--overwrite"], "resume"),
    "pruning on other data": (["prune", "dense", "--set", "data.seed=1", "--out", "new"], "reads only pruning"),
    "pruning another training": (
        ["prune", "dense", "--set", "training.epochs=20", "--out", "new"],
        r"--set training\.epochs=20 would change nothing: .*reads only pruning;",
    ),
    "pruning another network": (
        ["prune", "dense", "--set", "network.kwargs.channels=[4, 4]", "--out", "new"],
        "reads only pruning;",
    ),
    "filters with settings of weights": (
        ["prune", "dense", "--set", "sparsity.compression=4", "--out", "new"],
        "reads only pruning;",
    ),
    "timing another training": (
        ["bench", "dense", "--set", "training.epochs=20"],
        r"--set training\.epochs=20 would change nothing: .*reads only bench, bench_size;",
    ),
    "timing networks on other data": (["bench", "dense", "--set", "data.source=synthetic"], "reads only bench"),
    "timing frames of another training": (
        ["bench", "dense", "--frames", "--set", "training.epochs=20"],
        "reads only bench, bench_size, data;",
    ),
    "an option of weights for filters": (
        ["prune", "dense", "--scope", "layer", "--out", "new"],
        "--scope is for single weights.*--granularity weight.*; this cuts whole filters of a run folder, dense, by --",
    ),
    "arguments of a builder for a run folder": (
        ["prune", "dense", "--kwargs", "{}", "--out", "new"],
        "--kwargs is for .*without data.*; leave it out",
    ),
    "a shape of another network": (
        ["train", "--recipe", "polyp", "--shape-of", "pruned", "--out", "new"],
        r"pruned was cut from another network.*--recipe pruned/recipe\.yaml",
    ),
    "unknown nested setting": (["train", *TINY, "--set", "network.kwargs.no.sub=3", "--out", "new"], "no"),
    "a command that is none": (["snip"], r"'snip'.*See `secateur --help`"),
    "no model": (["prune", "--out", "new"], r"'MODEL'.*See `secateur prune --help`"),
    "an option that is none": (["train", "--outt", "new"], "No such option.*--outt"),
    "words for a number": (["prune", "dense", "--macs-keep", "half", "--out", "new"], "'--macs-keep'.*valid number"),
    "a scope that is none": (
        ["prune", "dense", "--granularity", "weight", "--scope", "all", "--out", "new"],
        r"'--scope': 'all' is not one of 'layer', 'network', '2:4'\.",
    ),
    "no such nuclei": (["train", "--task", "nuclei", "--data", "nowhere", "--out", "new"], "nowhere.*SECATEUR_DATA"),
    "no input shape": (["inspect", "monai.networks.nets:UNet"], "needs --input-shape"),
    "odd input shape": (["inspect", "monai.networks.nets:UNet", "--input-shape", "1,x"], "is not a shape"),
    "dry run that needs data": (["inspect", "dense", "--macs-keep", "0.5", "--criterion", "taylor"], "needs data"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gets_one_line_and_exit_code_two(runs, monkeypatch, capsys, name):
    arguments, message = WRONG[name]
    monkeypatch.chdir(runs)
    before = (runs / "dense" / "model.safetensors").read_bytes()
    code, _, err = run(monkeypatch, capsys, *arguments)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith("secateur: ")
    assert re.search(message, lines[0]), lines[0]
    assert not (runs / "new").exists()
    assert (runs / "dense" / "model.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_schema_is_refused(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    shutil.copytree(runs / "dense", runs / "future")
    for file in ("run.json", "architecture.json"):
        path = runs / "future" / file
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    code, _, err = run(monkeypatch, capsys, "evaluate", "future")
    assert code == 2
    assert "has schema 2, this version of secateur reads 1" in err


def test_masks_that_are_not_binary_are_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for index in range(20):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shape = (40, 40, 3) if kind == "images" else (40, 40)
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / kind / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, "train", *TINY, "--data", tmp_path, "--out", "new")
    assert code == 2, err
    assert "Traceback" not in err


def test_an_export_that_differs_leaves_its_record_and_no_file(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    shutil.copytree(runs / "pruned", runs / "differing")
    monkeypatch.setattr("secateur.deploy.parity.RELATIVE_TOLERANCE", 0.0)
    code, _, err = run(monkeypatch, capsys, "export", "differing")
    assert code == 1
    assert "checks of exported networks failed" in err
    assert [path.name for path in (runs / "differing" / "export").iterdir()] == ["parity.json"]
    assert not read_record(runs / "differing" / "export" / "parity.json")["passed"]


def test_the_order_of_runs_does_not_matter(runs):
    dense, pruned = RunFolder(runs / "dense"), RunFolder(runs / "pruned")
    for given in ([pruned], [pruned, dense], [dense, pruned]):
        assert [found.path for found in with_dense(given)] == [dense.path, pruned.path]


@pytest.mark.parametrize("command", ["report", "bench"])
def test_what_does_not_compare_is_not_compared(runs, tmp_path, monkeypatch, capsys, command):
    for name in ("dense", "pruned"):
        shutil.copytree(runs / name, tmp_path / "elsewhere" / name)
    shutil.copytree(runs / "dense", tmp_path / "nuclei")
    record = read_record(tmp_path / "nuclei" / "run.json")
    write_record(tmp_path / "nuclei" / "run.json", {**record, "task": "nuclei"})
    monkeypatch.chdir(tmp_path)
    for others, words in (
        (["elsewhere/pruned"], "the runs come from several dense networks"),
        (["nuclei"], "the runs are of several tasks"),
    ):
        code, _, err = run(monkeypatch, capsys, command, runs / "pruned", *others)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err
        assert all(str(path) in err for path in (runs / "pruned", *others))


def test_a_builder_in_the_current_folder_is_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    code, out, err = run(monkeypatch, capsys, "inspect", "my_nets:Net", "--input-shape", "1,3,16,16")
    assert code == 0, err
    assert "7 of 9 channels removable in 1 groups" in out
    assert sys.path == before


@pytest.mark.parametrize(
    "arguments", [["sweep", "nowhere"], ["inspect", "statistics:NormalDist", "--input-shape", "1,3,16,16"]]
)
def test_a_file_in_the_current_folder_does_not_take_a_librarys_place(tmp_path, arguments):
    (tmp_path / "statistics.py").write_text("open('ran', 'w').close()\n")
    call = f"import sys; from secateur.cli import app, main; sys.argv[1:] = {arguments}; main()"
    answer = subprocess.run([sys.executable, "-P", "-c", call], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 2, answer.stderr
    assert not (tmp_path / "ran").exists()


def test_a_loss_that_is_not_finite_stops_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "secateur.tasks.polyp.PolypTask.loss", lambda *_: torch.full((3,), float("nan"), requires_grad=True)
    )
    code, _, err = run(monkeypatch, capsys, "train", *TINY, "--out", "nan")
    assert code == 1
    assert "epoch 1" in err
    assert not (tmp_path / "nan" / "model.safetensors").exists()
