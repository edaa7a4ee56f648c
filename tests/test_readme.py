"""What the README and the how-to pages show runs as it stands."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
import typer

from secateur.cli import app
from secateur.records import read_record
from secateur.report.sweeps.page import readme_table
from secateur.sweeps.record import read_sweep, sweep_tables

_README = Path(__file__).parents[1] / "README.md"
_HOW_TO = _README.parent / "docs" / "how-to"


def run_python(page):
    """Run the Python of a page, from its first screen to its last, and return the names it leaves."""
    screens = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile("\n".join(screens), str(page), "exec"), names)
    return names


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_python_screen_runs():
    names = run_python(_README)
    assert count(names["small"]) < count(names["model"])
    assert names["plan"].reached["macs_keep_ratio"] <= 0.10


def test_a_network_of_ones_own_is_pruned_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_python(_HOW_TO / "own-network.md")
    assert names["plan"].reached["macs_keep_ratio"] <= 0.25
    again, small = names["again"].state_dict(), names["small"].state_dict()
    assert again.keys() == small.keys()
    assert all(torch.equal(again[name], small[name]) for name in small)
    assert names["sparse"].compression == pytest.approx(5, rel=1e-3)
    assert names["done"].max_rel_diff < 1e-9


@pytest.mark.parametrize("page", [_README, *sorted(_HOW_TO.glob("*.md"))], ids=lambda path: path.stem)
def test_every_command_and_option_shown_exists(page):
    shown = re.findall(r"^secateur (\w+)(.*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert shown
    commands = typer.main.get_command(app).commands
    for name, arguments in shown:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", arguments.split("  #")[0])) <= options


def test_what_it_links_to_is_there():
    for page in (_README, *_HOW_TO.glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_its_tables_are_those_of_the_records(monkeypatch):
    monkeypatch.syspath_prepend(_README.parent / "benchmarks")
    engine, study, readme = (import_module(name) for name in ("engine", "study", "readme"))
    text = _README.read_text(encoding="utf-8")
    assert readme.with_table(text, "engine", "engine.py", engine.readme_table(read_record(engine.RECORD))) == text
    for path in map(study.record_path, study.STUDIES):
        table = readme_table(read_sweep(path.parent))
        assert readme.with_table(text, path.parent.name, "study.py", table) == text
        assert (path.parent / "tables.md").read_text(encoding="utf-8") == sweep_tables(path.parent)
