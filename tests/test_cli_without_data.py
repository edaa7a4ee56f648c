"""``secateur prune`` and ``export`` of a MODEL that comes without data, as they are typed."""

import re
import shutil
from pathlib import Path

import pytest
import torch

import secateur as sc
from secateur.prune import surgery
from secateur.prune.surgery import cut_
from secateur.records import read_record
from test_cli import run
from test_nets_sources import PLAIN, Runs, network, write_nnunet
from test_without_data import BUILDER, trained

_RUN = Path(__file__).parent / "fixtures" / "schema-1"
_SMALL = ["--round-to", "1", "--min-channels", "1"]
_BUILDER = [BUILDER, "--input-shape", "1,3,16,16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained nnU-Net, a run folder, a saved network, weights good and bad."""
    folder = tmp_path_factory.mktemp("models")
    write_nnunet(folder / "nnunet", {"3d_fullres": PLAIN}, network())
    strange = {**PLAIN["architecture"], "network_class_name": "no_such_package.unet.PlainConvUNet"}
    write_nnunet(folder / "strange", {"3d_fullres": {**PLAIN, "architecture": strange}}, network())
    shutil.copytree(_RUN, folder / "run")
    sc.save(trained(), folder / "saved", spec=sc.ModelSpec(BUILDER), input_shape=(1, 3, 16, 16))
    torch.save(trained().state_dict(), folder / "good.pt")
    torch.save(trained(width=5).state_dict(), folder / "narrow.pt")
    torch.save({"model": trained().state_dict(), "hook": Runs(f"touch {folder / 'ran'}")}, folder / "evil.pt")
    broken = trained().state_dict()
    broken["first.weight"][0] = float("nan")
    torch.save(broken, folder / "nan.pt")
    return folder


def test_an_nnunet_goes_from_its_folder_to_files_that_ship(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, out, err = run(
        monkeypatch, capsys, "prune", "nnunet", "--macs-keep", 0.5, *_SMALL, "--out", "small", "--json", "record.json"
    )
    assert code == 0, err
    record = read_record(folder / "record.json")
    assert record == read_record(folder / "small" / "prune.json")
    kept = record["groups"][0]["kept"]
    assert re.search(rf"first\s+6\s+{kept}", out)
    dense, reached = record["dense"], record["reached"]
    assert f"parameters {dense['params']:,} -> {reached['params']:,} ({reached['params_keep_ratio']:.1%})" in out
    assert "proof: masked equals removed in random/eval" in out
    weights = Path("nnunet") / "fold_0" / "checkpoint_final.pth"
    assert f"weights from {weights}; cut without data, so not recovered" in out
    assert read_record(folder / "small" / "run.json")["command"][:3] == ["secateur", "prune", "nnunet"]

    code, out, err = run(monkeypatch, capsys, "export", "small", "--format", "pt2", "--cases", 1)
    assert code == 0, err
    assert "compared with PyTorch on 1 random inputs" in out
    image = torch.randn(1, 1, 4, 6, 8)
    program = torch.export.load(folder / "small" / "export" / "model.pt2").module()
    torch.testing.assert_close(program(image), sc.load(folder / "small")(image))

    code, out, err = run(monkeypatch, capsys, "inspect", "small")
    assert code == 0, err
    assert f"{reached['params']:,} parameters" in out


def test_what_hits_its_floor_is_named(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    floors = ["--round-to", "2", "--min-channels", "5"]
    arguments = ["prune", *_BUILDER, "--weights", "good.pt", "--params-keep", "0.3", *floors, "--out", "floors"]
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert code == 0, err
    record = read_record(folder / "floors" / "prune.json")
    assert record["at_floor"] == [row["id"] for row in record["groups"] if row["kept"] == 6]
    assert record["at_floor"]
    assert f"at their floor: {', '.join(record['at_floor'])}\n" in out
    assert record["weights"] == "good.pt"


_SEG_RES_NET = [
    "monai.networks.nets:SegResNet", "--input-shape", "1,3,32,32", "--kwargs",
    '{"spatial_dims": 2, "in_channels": 3, "out_channels": 1, "init_filters": 16, "blocks_down": [1, 2], '
    '"blocks_up": [1]}',
]  # fmt: skip


def test_norm_groups_are_cut_as_the_defaults_say(tmp_path, monkeypatch, capsys):
    """Eight norm groups of two channels, or of four one level down; widths are multiples of eight channels."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(monkeypatch, capsys, "prune", *_SEG_RES_NET, "--macs-keep", 0.5, "--out", "small")
    assert code == 0, err
    record = read_record(tmp_path / "small" / "prune.json")
    assert (record["round_to"], record["min_channels"], record["proof"]["passed"]) == (8, 8, True)
    assert 0.3 < record["reached"]["macs_keep_ratio"] <= 0.5
    small, rows = sc.load("small"), {row["id"]: row for row in record["groups"]}
    assert all(small.get_submodule(name).out_channels == row["kept"] for name, row in rows.items())
    assert {row["width"] for row in rows.values()} == {16, 32}
    assert {row["units"] for row in rows.values()} == {8}
    assert all(row["kept"] % 8 == 0 for row in rows.values())
    stem = rows["convInit.conv"]
    assert re.search(rf"convInit.conv +16 \(8 units\) +{stem['kept']} \({stem['kept'] // 2} units\)", out)

    code, _, err = run(monkeypatch, capsys, "prune", *_SEG_RES_NET, "--macs-keep", 0.05, "--out", "tiny")
    assert code == 2
    assert re.search(
        r"at least 8 channels in every group that has more \(in units of up to 4\) the network keeps 0\.\d+ of its "
        r"macs; ask for at least that, or lower --min-channels 8 or --round-to 8\.",
        err,
    )


def test_norm_groups_may_be_thinned_as_the_defaults_say(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "inspect", *_SEG_RES_NET, "--group-norm", "even", "--macs-keep", 0.5)
    assert code == 0, err
    assert "at their floor: convInit.conv" in out
    assert re.search(r"16\s+\(2\s+units\)", out)
    assert "96 of 145 channels removable in 6 groups" in out


def test_weights_of_the_builders_own_are_said_to_be(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, out, err = run(monkeypatch, capsys, "prune", *_BUILDER, "--macs-keep", 0.5, *_SMALL, "--out", "fresh")
    assert code == 0, err
    assert "weights from the builder itself: give --weights for trained ones" in out
    assert read_record(folder / "fresh" / "prune.json")["weights"] is None


def test_a_failed_proof_leaves_nothing(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def cut_another_unit(model, graph, kept):
        """One that should stay leaves in the place of one that should leave."""
        others = {
            group: tuple(sorted({*units[:-1], min(set(range(units[-1] + 1)) - set(units), default=units[-1])}))
            for group, units in kept.items()
        }
        cut_(model, graph, others)

    monkeypatch.setattr(surgery, "cut_", cut_another_unit)  # what the proof uses; tracing has its own
    code, _, err = run(monkeypatch, capsys, "prune", *_BUILDER, "--macs-keep", 0.5, *_SMALL, "--out", "unproved")
    assert code == 1, err
    assert "masked and removed network differ" in err
    assert not (folder / "unproved").exists()


WRONG = {
    "nothing of the kind": (["prune", "nowhere", "--macs-keep", "0.5"], "is not a run folder, nor another MODEL"),
    "a criterion that needs data": (
        ["prune", "nnunet", "--macs-keep", "0.5", "--criterion", "taylor"],
        "needs data.*l2, l1, random, uniform",
    ),
    "an unknown criterion": (
        ["prune", "nnunet", "--macs-keep", "0.5", "--criterion", "l3"],
        "no criterion is called .l3.",
    ),
    "no budget": (["prune", "nnunet"], "give --macs-keep or --params-keep"),
    "two budgets": (["prune", "nnunet", "--macs-keep", "0.5", "--params-keep", "0.5"], "not both"),
    "a budget above one": (["prune", "nnunet", "--macs-keep", "2"], r"pruning\.keep_ratio: .*given: 2"),
    "a budget out of reach": (["prune", "nnunet", "--macs-keep", "0.01", *_SMALL], r"cannot be reached.*keeps 0\.\d+"),
    "rounds": (["prune", "nnunet", "--macs-keep", "0.5", "--rounds", "2"], "--rounds is for .*of a run folder"),
    "rounds by a setting": (
        ["prune", "nnunet", "--macs-keep", "0.5", "--set", "pruning.rounds=2"],
        r"pruning\.rounds cannot be set",
    ),
    "single weights": (
        ["prune", "nnunet", "--granularity", "weight", "--compression", "4"],
        "nnunet is none; train one first",
    ),
    "a setting of data": (["prune", "nnunet", "--macs-keep", "0.5", "--set", "data.size=32"], "data.size cannot be"),
    "resume": (["prune", "nnunet", "--macs-keep", "0.5", "--resume"], "--resume is for .*of a run folder"),
    "arguments for a folder": (
        ["prune", "nnunet", "--macs-keep", "0.5", "--kwargs", '{"width": 3}'],
        "brings its own network",
    ),
    "weights for a folder": (["prune", "nnunet", "--macs-keep", "0.5", "--weights", "good.pt"], "brings its own"),
    "weights for a run": (
        ["prune", "run", "--macs-keep", "0.5", "--weights", "good.pt"],
        "--weights is for .*of a network without data",
    ),
    "no input shape": (["prune", BUILDER, "--macs-keep", "0.5"], "needs --input-shape"),
    "an input that does not fit": (
        ["prune", BUILDER, "--input-shape", "1,1,16,16", "--macs-keep", "0.5"],
        "cannot be traced with an example of shape .1, 1, 16, 16.",
    ),
    "weights of another network": (
        ["prune", *_BUILDER, "--macs-keep", "0.5", "--weights", "narrow.pt"],
        "narrow.pt are not those of the Net",
    ),
    "weights that are not finite": (["prune", *_BUILDER, "--macs-keep", "0.5", "--weights", "nan.pt"], "not finite"),
    "a pickle that runs code": (
        ["prune", *_BUILDER, "--macs-keep", "0.5", "--weights", "evil.pt"],
        "holds more than weights, and reading it could run any code",
    ),
    "a missing package, pruned": (
        ["prune", "strange", "--macs-keep", "0.5"],
        r"need no_such_package.*pip install secateur\[nnunet\]",
    ),
    "a missing package, inspected": (["inspect", "strange"], r"need no_such_package.*pip install secateur\[nnunet\]"),
    "out exists": (["prune", "nnunet", "--macs-keep", "0.5", "--out", "saved"], "saved exists; give another --out"),
    "out is nobody's run": (
        ["prune", "nnunet", "--macs-keep", "0.5", "--out", "saved", "--overwrite"],
        "saved is not a run folder",
    ),
    "a shape for a run": (["export", "run", "--input-shape", "1,3,32,32"], "leave out --input-shape"),
    "an unknown format": (["export", "saved", "--format", "tflite"], "no export format 'tflite'"),
    "a shape of nothing": (["export", "saved", "--input-shape", "1,3"], "is not a shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gets_one_line_and_exit_code_two(folder, monkeypatch, capsys, name):
    arguments, message = WRONG[name]
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    out = [] if "--out" in arguments or arguments[0] != "prune" else ["--out", "new"]
    code, _, err = run(monkeypatch, capsys, *arguments, *out)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith("secateur: ")
    assert re.search(message, lines[0]), lines[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["evaluate", "bench", "report"])
def test_commands_that_need_data_say_so(folder, monkeypatch, capsys, command):
    monkeypatch.chdir(folder)
    if not (folder / "alone").exists():
        assert run(monkeypatch, capsys, "prune", *_BUILDER, "--macs-keep", 0.9, *_SMALL, "--out", "alone")[0] == 0
    code, _, err = run(monkeypatch, capsys, command, "alone")
    assert code == 2, err
    assert re.search("pruned without data", err), err
