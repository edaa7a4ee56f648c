"""What the README shows runs as it stands."""

import re
from importlib import import_module
from pathlib import Path

from secateur.records import read_record
from secateur.report.sweeps.page import readme_table
from secateur.sweeps.record import read_sweep, sweep_tables

_README = Path(__file__).parents[1] / "README.md"


def test_the_python_screen_runs():
    (snippet,) = re.findall(r"```python\n(.*?)```", _README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(snippet, str(_README), "exec"), names)
    dense, small = (sum(p.numel() for p in names[key].parameters()) for key in ("model", "small"))
    assert small < dense
    assert names["plan"].reached["macs_keep_ratio"] <= 0.10


def test_every_command_it_names_exists():
    from secateur.cli import app

    shown = set(re.findall(r"^secateur (\w+)", _README.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert shown <= {command.name for command in app.registered_commands}
    assert len(shown) >= 8


def test_its_tables_are_those_of_the_records(monkeypatch):
    monkeypatch.syspath_prepend(_README.parent / "benchmarks")
    engine, study, readme = (import_module(name) for name in ("engine", "study", "readme"))
    text = _README.read_text(encoding="utf-8")
    assert readme.with_table(text, "engine", "engine.py", engine.readme_table(read_record(engine.RECORD))) == text
    for path in map(study.record_path, study.STUDIES):
        table = readme_table(read_sweep(path.parent))
        assert readme.with_table(text, path.parent.name, "study.py", table) == text
        assert (path.parent / "tables.md").read_text(encoding="utf-8") == sweep_tables(path.parent)
