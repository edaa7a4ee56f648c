"""A sweep: which cells it has, that each survives being stopped, and that failures are shown."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from ratio_fixtures import ratio_record
from secateur import measures, pipeline
from secateur.errors import CheckError, InputError, RecordError
from secateur.recipes import RECIPES
from secateur.recipes.recipe import parse_settings
from secateur.recipes.sweep import SweepRecipe
from secateur.records import read_record, write_record
from secateur.roles import Role
from secateur.session import Session
from secateur.sweeps import folder as folders
from secateur.sweeps import record as records
from secateur.sweeps import run as running
from secateur.sweeps.budgets import plan_budget_cells
from secateur.sweeps.folder import SweepFolder
from secateur.sweeps.pace import estimate
from secateur.sweeps.plan import plan_sweep
from secateur.sweeps.record import report_sweep, sweep_tables
from secateur.sweeps.run import sweep
from test_cli import _SETTINGS, SMALL, run
from test_killed_runs import finish, start

_CELLS = [
    "sweep.criteria=[taylor, random]", "sweep.keep_ratios=[0.5, 0.3]", "sweep.seeds=[0, 1]",
    "sweep.repeated_keep_ratios=[0.3]", "sweep.scratch_keep_ratios=[0.3]", "sweep.scratch_macs_keep_ratios=[0.5]",
    "sweep.distilled_keep_ratios=[0.5]", "sweep.scoring_samples=[2]", "sweep.one_shot_keep_ratios=[0.8]",
]  # fmt: skip
_FEW = ["sweep.criteria=[taylor, random]", "sweep.keep_ratios=[0.5]", "sweep.scratch_keep_ratios=[0.5]"]
_NAMES = {"seed-0/dense", "seed-0/taylor-50", "seed-0/random-50", "seed-0/scratch-50"}


def recipe(*settings):
    return RECIPES["polyp-demo"]().with_settings(parse_settings([*_SETTINGS, *settings]))


def session(**how):
    return Session(["secateur", "sweep"], None, **how)


def results(record):
    """What must not depend on when, or in how many pieces, a sweep was run."""
    return [{key: value for key, value in cell.items() if key != "seconds"} for cell in record["cells"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small sweep, run in one go: its folder and its record."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    return out, sweep(recipe(*_FEW), out, session())


def test_every_row_asked_for_is_a_cell_of_its_own():
    cells = {cell.name: cell for cell in plan_budget_cells(recipe(*_CELLS))}
    assert set(cells) == {
        "seed-0/dense", "seed-1/dense",
        "seed-0/taylor-30", "seed-0/random-30", "seed-1/taylor-30", "seed-1/random-30",
        "seed-0/taylor-50", "seed-0/random-50", "seed-0/taylor-50-distilled",
        "seed-0/taylor-80-cut", "seed-0/random-80-cut",
        "seed-0/taylor-50-cut-of-2", "seed-1/taylor-50-cut", "seed-1/taylor-50-cut-of-2",
        "seed-0/scratch-30", "seed-1/scratch-30", "seed-0/scratch-50-macs",
    }  # fmt: skip
    assert all(cell.needs is None or cell.needs in cells for cell in cells.values())
    assert cells["seed-1/random-30"].recipe.pruning.recovery.seed == cells["seed-1/random-30"].recipe.pruning.seed == 1
    assert cells["seed-1/dense"].recipe.training.seed == 1
    assert cells["seed-0/taylor-80-cut"].recipe.pruning.recovery is None
    assert cells["seed-0/taylor-50-cut-of-2"].recipe.pruning.scoring_samples == 2
    assert cells["seed-0/taylor-50-distilled"].recipe.pruning.distillation is not None


def test_from_scratch_trains_as_long_as_the_dense_network_and_its_recovery():
    chosen = recipe(*_CELLS, "training.epochs=6", "pruning.recovery.epochs=2")
    cells = {cell.name: cell for cell in plan_budget_cells(chosen)}
    assert cells["seed-0/scratch-30"].epochs == 6 + 2
    assert cells["seed-0/scratch-50-macs"].epochs == 6 / 0.5 + 2
    assert cells["seed-0/scratch-30"].needs == "seed-0/taylor-30"


def test_a_cell_is_evaluated_before_and_after_recovery_and_counted(whole):
    out, record = whole
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert set(cells) == _NAMES
    assert {cell["status"] for cell in cells.values()} == {"done"}
    cut, scratch, dense = (cells[f"seed-0/{name}"] for name in ("taylor-50", "scratch-50", "dense"))
    evaluated = read_record(out / "seed-0" / "taylor-50" / "evaluation.json")
    assert cut["evaluations"]["test"]["dice"] == [case["dice"] for case in evaluated["cases"]]
    assert cut["before_recovery"]["test"]["dice"] != cut["evaluations"]["test"]["dice"]
    assert record["sets"]["test"]["ids"] == [case["id"] for case in evaluated["cases"]]
    assert (scratch["macs"], scratch["params"]) == (cut["macs"], cut["params"])
    assert cut["macs"] < dense["macs"]
    assert scratch["best_val_dice"] != cut["best_val_dice"]
    assert {model["name"] for model in record["bench"]["benches"][0]["models"]} == {"seed-0/dense", "seed-0/taylor-50"}
    assert {row["name"] for row in record["frames"]["rows"]} == {"seed-0/dense", "seed-0/taylor-50"}
    assert "taylor" in (out / "report.html").read_text(encoding="utf-8")
    assert read_record(out / "sweep.json") == {"schema": 1, **record}


def test_its_page_is_made_again_from_the_record_alone(whole, tmp_path, monkeypatch, capsys):
    shutil.copy(whole[0] / "sweep.json", tmp_path)
    page, table = tmp_path / "page.html", tmp_path / "table.md"
    code, _, err = run(monkeypatch, capsys, "report", tmp_path, "--out", page, "--markdown", table)
    assert code == 0, err
    assert "taylor" in page.read_text(encoding="utf-8")
    assert "Mean Dice after recovery" in table.read_text(encoding="utf-8")
    code, _, err = run(monkeypatch, capsys, "report", tmp_path, tmp_path, "--out", page)
    assert (code, "give its folder alone" in err) == (2, True)


@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_sweep_that_was_stopped_in_a_cell_goes_on_to_the_same_record(whole, tmp_path, monkeypatch, stop_at):
    evaluate, calls = measures.evaluate, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    monkeypatch.setattr(measures, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe(*_FEW), tmp_path / "cut", session())
    stopped = read_record(tmp_path / "cut" / "sweep.json")
    assert {cell["status"] for cell in stopped["cells"]} == {"done", "waiting"}
    assert results(sweep(recipe(*_FEW), tmp_path / "cut", session(resume=True))) == results(whole[1])


def test_nothing_is_done_twice(whole, monkeypatch):
    out, record = whole
    monkeypatch.setattr(running, "make_network", None)
    monkeypatch.setattr(measures, "latencies", None)
    assert sweep(recipe(*_FEW), out, session(resume=True))["cells"] == record["cells"]


def test_a_cell_that_fails_is_shown_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    few = [part for setting in [*_FEW, "sweep.keep_ratios=[0.5, 0.001]"] for part in ("--set", setting)]
    code, _, err = run(monkeypatch, capsys, "sweep", "polyp-demo", *SMALL, *few, "--out", out)
    assert code == 1
    assert "2 of 6 cells failed: seed-0/taylor-0.1, seed-0/random-0.1" in err
    cells = {cell["name"]: cell for cell in read_record(out / "sweep.json")["cells"]}
    assert {name for name, cell in cells.items() if cell["status"] == "done"} == _NAMES
    assert "cannot be reached" in cells["seed-0/taylor-0.1"]["error"]
    assert "cannot be reached" in (out / "report.html").read_text(encoding="utf-8")


def test_what_needs_a_failed_cell_waits_and_a_second_try_mends_both(tmp_path, monkeypatch):
    make = running.make_network

    def broken(cell, *how):
        if cell.role is Role.PRUNED:
            raise RuntimeError("planted")
        return make(cell, *how)

    monkeypatch.setattr(running, "make_network", broken)
    with pytest.raises(CheckError, match="2 of 4 cells failed"):
        sweep(recipe(*_FEW), tmp_path / "out", session())
    cells = {cell["name"]: cell for cell in read_record(tmp_path / "out" / "sweep.json")["cells"]}
    assert cells["seed-0/taylor-50"]["error"] == "RuntimeError: planted"
    assert cells["seed-0/scratch-50"]["status"] == "waiting"
    monkeypatch.setattr(running, "make_network", make)
    record = sweep(recipe(*_FEW), tmp_path / "out", session(resume=True))
    assert {cell["status"] for cell in record["cells"]} == {"done"}


def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path):
    (tmp_path / ".locks").mkdir()
    shared = SweepFolder(tmp_path, plan_sweep(recipe(*_FEW)), started=0.0)
    with FileLock(tmp_path / ".locks" / "seed-0.dense.lock"), shared.held("seed-0/dense") as mine:
        assert not mine
    with shared.held("seed-0/dense") as mine:
        assert mine


def test_a_sweep_of_other_settings_is_refused(whole):
    out, _ = whole
    before = (out / "recipe.yaml").read_bytes()
    with pytest.raises(InputError, match="made with other settings"):
        sweep(recipe(*_FEW, "training.epochs=2"), out, session(resume=True))
    assert (out / "recipe.yaml").read_bytes() == before
    with pytest.raises(InputError, match="exists; give another --out"):
        sweep(recipe(*_FEW), out, session())


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_folder_that_is_no_sweep_is_left_as_it_is(whole, tmp_path, how):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    shutil.copytree(whole[0] / "seed-0" / "dense", tmp_path / "run")
    for folder in (tmp_path / "thesis", tmp_path / "run"):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(InputError, match="not the folder of a sweep"):
            sweep(recipe(*_FEW), folder, session(**{how: True}))
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_sweep_that_has_grown_is_timed_again(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "grown")
    record = sweep(recipe(*_FEW, "sweep.keep_ratios=[0.5, 0.4]"), tmp_path / "grown", session(resume=True))
    timed = {model["name"] for model in record["bench"]["benches"][0]["models"]}
    assert timed == {"seed-0/dense", "seed-0/taylor-50", "seed-0/taylor-40"}


def frames_folder(root, *, count=3):
    """A data folder of a few frames, each with one polyp."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count + 2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        mask = np.zeros((40, 40), dtype=np.uint8)
        mask[8 : 20 + number, 8:24] = 255
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    names = [str(number) for number in range(count + 2)]
    splits = {"train": names[:1], "val": names[1:2], "test": names[2:]}
    (root / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return str(root)


def untrained(monkeypatch):
    """Let whatever trains or cuts a network fail."""
    for stage in ("train", "prune", "sparsify"):
        monkeypatch.setattr(pipeline, stage, None)


def test_done_cells_are_measured_on_a_set_that_is_added_and_not_trained_again(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "more")
    untrained(monkeypatch)
    places = [frames_folder(tmp_path / "a" / "clinic"), frames_folder(tmp_path / "b" / "clinic", count=2)]
    more = sweep(recipe(*_FEW, f"sweep.elsewhere=['{places[0]}']"), out, session(resume=True))
    assert {label: len(found["ids"]) for label, found in more["sets"].items()} == {"test": 3, "clinic-test": 3}
    for cell, before in zip(more["cells"], whole[1]["cells"], strict=True):
        assert set(cell["evaluations"]) == {"test", "clinic-test"}, cell["name"]
        assert cell["kind"] != "pruned" or set(cell["before_recovery"]) == {"test", "clinic-test"}
        assert cell["evaluations"]["test"] == before["evaluations"]["test"]
        assert cell["seconds"] > before["seconds"]
    assert "clinic test (3 cases)" in (out / "report.html").read_text(encoding="utf-8")

    moved = sweep(recipe(*_FEW, f"sweep.elsewhere=['{places[1]}']"), out, session(resume=True))
    assert len(moved["sets"]["clinic-test"]["ids"]) == 2  # a folder of the same name, but another one
    assert {len(cell["evaluations"]["clinic-test"]["dice"]) for cell in moved["cells"]} == {2}

    monkeypatch.setattr(measures, "evaluate", None)
    assert results(sweep(recipe(*_FEW), out, session(resume=True))) == results(whole[1])


def test_a_set_that_cannot_be_read_costs_no_measurement(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "more")
    untrained(monkeypatch)
    with pytest.raises(InputError, match="nowhere"):
        sweep(recipe(*_FEW, f"sweep.elsewhere=['{tmp_path / 'nowhere'}']"), out, session(resume=True))
    monkeypatch.setattr(measures, "evaluate", None)
    assert results(sweep(recipe(*_FEW), out, session(resume=True))) == results(whole[1])


def test_a_sweep_stopped_while_it_is_measured_on_a_new_set_has_a_page(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "more")
    evaluate, calls = measures.evaluate, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    monkeypatch.setattr(measures, "evaluate", interrupted)
    place = frames_folder(tmp_path / "clinic")
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe(*_FEW, f"sweep.elsewhere=['{place}']"), out, session(resume=True))
    cells = read_record(out / "sweep.json")["cells"]
    assert [set(cell["evaluations"]) for cell in cells] == [{"test", "clinic-test"}, *[{"test"}] * 3]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "clinic test (3 cases)" in page
    assert "not measured" in page


def test_a_record_from_before_sources_were_kept_is_held_against_its_evaluations(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "old")
    places = [frames_folder(tmp_path / "a" / "clinic"), frames_folder(tmp_path / "b" / "clinic", count=2)]
    asked = recipe(*_FEW, f"sweep.elsewhere=['{places[0]}']")
    sweep(asked, out, session(resume=True))
    for name in _NAMES:
        record = read_record(out / f"{name}.json")
        del record["sources"]
        write_record(out / f"{name}.json", record)
    with monkeypatch.context() as patch:
        patch.setattr(measures, "evaluate", None)
        sweep(asked, out, session(resume=True))
    moved = sweep(recipe(*_FEW, f"sweep.elsewhere=['{places[1]}']"), out, session(resume=True))
    assert {len(cell["evaluations"]["clinic-test"]["dice"]) for cell in moved["cells"]} == {2}


@pytest.mark.parametrize("changed", ["bench.seconds=0.001", "bench_size=64", "bench.targets=[torch]", None])
def test_latency_is_timed_again_with_other_settings(whole, tmp_path, changed):
    out = shutil.copytree(whole[0], tmp_path / "again")
    if changed is None:  # a file from before the settings were beside it
        write_record(out / "bench.json", {key: each for key, each in whole[1]["bench"].items() if key != "settings"})
    record = sweep(recipe(*_FEW, *([changed] if changed else [])), out, session(resume=True))
    assert record["bench"]["benches"] != whole[1]["bench"]["benches"]
    assert record["bench"]["settings"] == {key: record["recipe"][key] for key in ("bench", "bench_size")}


def test_latencies_of_other_settings_do_not_stand_in_the_record(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "stale")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measures, "latencies", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe(*_FEW, "bench_size=64"), out, session(resume=True))
    record = read_record(out / "sweep.json")
    assert (record["bench"], record["frames"]) == (None, None)


def test_two_sets_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="elsewhere names a/clinic and b/clinic, which would both be called 'clinic'"):
        sweep(recipe(*_FEW, "sweep.elsewhere=[a/clinic, b/clinic]"), tmp_path / "out", session())
    assert not (tmp_path / "out").exists()


def test_waiting_for_another_process_reads_no_settings(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "shared")
    name = "seed-0/random-50"
    (out / f"{name}.json").rename(out / "made.json")
    lock = FileLock(out / ".locks" / f"{name.replace('/', '.')}.lock")
    lock.acquire()
    read, looks = [], []
    read_recipe = folders.read_recipe
    monkeypatch.setattr(folders, "read_recipe", lambda path: read.append(path) or read_recipe(path))

    def look(_):
        looks.append(len(read))
        if len(looks) == 4:  # the other process is done
            (out / "made.json").rename(out / f"{name}.json")
            lock.release()

    monkeypatch.setattr(running.time, "sleep", look)
    untrained(monkeypatch)
    record = sweep(recipe(*_FEW), out, session(resume=True))
    assert looks == [3] * 4
    assert len(read) == len(_NAMES)
    assert results(record) == results(whole[1])


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("jinja2", "the report needs jinja2, which is not installed"),
        ("openvino", "openvino needs the package 'openvino', which is not installed"),
        ("onnxscript", "onnxscript needs the package 'onnxscript', which is not installed"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_made(tmp_path, monkeypatch, package, words):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(running, "_run_cells", lambda _: pytest.fail("cells were run"))
    with pytest.raises(InputError, match=words):
        sweep(recipe(*_FEW), tmp_path / "out", session())
    assert not (tmp_path / "out").exists()


def test_what_is_not_timed_on_needs_no_package(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole[0], tmp_path / "out")
    monkeypatch.setitem(sys.modules, "openvino", None)
    few = recipe(*_FEW, "bench.targets=[torch, onnxruntime]")
    assert len(sweep(few, out, session(resume=True))["bench"]["benches"]) == 2


def test_a_page_that_fails_does_not_hide_what_stopped_the_sweep(tmp_path, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    def broken(*_, **__):
        raise RuntimeError("no page")

    monkeypatch.setattr(running, "_run_cells", stopped)
    monkeypatch.setattr(records, "write_sweep_page", broken)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe(*_FEW), tmp_path / "out", session())


def test_a_record_without_settings_that_came_later_is_read_with_their_defaults(tmp_path):
    """As records were before `before_recovery`, and before sweeps over ratios."""
    record = ratio_record()
    for section, keys in {
        "ratios": ("before_recovery", "branches", "branch_compressions"),
        "sparsity": ("rewind_epoch",),
    }.items():
        for key in keys:
            del record["recipe"][section][key]
    record["cells"] = [cell for cell in record["cells"] if "branch" not in (cell["variant"] or {})]
    write_record(tmp_path / "sweep.json", record)
    tables = sweep_tables(tmp_path)
    assert "each branch pruned alone is not in this sweep" in tables
    assert report_sweep(tmp_path, tmp_path / "page.html", session()).is_file()
    write_record(tmp_path / "sweep.json", {"name": "a run"})
    with pytest.raises(RecordError, match="has no recipe; give the folder of a `secateur sweep`"):
        sweep_tables(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"criteria": ("taylor", "tailor")}, "did you mean 'taylor'"),
        ({"keep_ratios": (0.5, 0.5)}, "names one value twice"),
        ({"keep_ratios": (1.0,)}, "less than 1"),
        ({"keep_ratios": (0.5,), "scratch_keep_ratios": (0.1,)}, "not among keep_ratios"),
        ({"seeds": ()}, "at least 1"),
    ],
)
def test_a_wrong_sweep_is_refused_in_words(values, message):
    with pytest.raises(ValueError, match=message):
        SweepRecipe(**values)


def test_the_time_left_counts_each_cell_at_the_pace_of_the_nearest_larger_budget():
    cells = {cell.name: cell for cell in plan_budget_cells(recipe(*_CELLS, "pruning.recovery.epochs=7"))}
    pace = [(1.0, 20.0), (0.5, 8.0), (0.5, 6.0)]
    assert estimate(cells["seed-0/random-30"], pace) == (7 + 3) * 7.0
    assert estimate(cells["seed-1/dense"], pace) == (1 + 3) * 20.0
    assert estimate(cells["seed-0/taylor-80-cut"], pace) == 3 * 20.0


@pytest.mark.slow
def test_a_sweep_killed_at_random_points_ends_with_the_same_record(whole, tmp_path):
    command = ["sweep", "polyp-demo", *SMALL, *[part for setting in _FEW for part in ("--set", setting)]]
    draw, kills = random.Random(0), 0
    seconds = finish(tmp_path, [*command, "--out", "timed"])
    while kills < 10:
        process = start(tmp_path, [*command, "--out", "killed", "--resume"])
        try:
            _, err = process.communicate(timeout=draw.uniform(0, seconds / 2))
            assert process.returncode == 0, err
            (tmp_path / "killed").rename(tmp_path / f"finished-{kills}")  # begin again for the kills still to come
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    finish(tmp_path, [*command, "--out", "killed", "--resume"])
    for name in ("timed", "killed"):
        assert results(read_record(tmp_path / name / "sweep.json")) == results(whole[1])


@pytest.mark.slow
def test_two_processes_share_a_sweep(whole, tmp_path):
    command = ["sweep", "polyp-demo", *SMALL, *[part for setting in _FEW for part in ("--set", setting)]]
    workers = [start(tmp_path, [*command, "--out", "shared", "--resume"]) for _ in range(2)]
    for worker in workers:
        _, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err
    assert results(read_record(Path(tmp_path) / "shared" / "sweep.json")) == results(whole[1])
