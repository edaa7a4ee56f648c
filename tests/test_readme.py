"""What the README shows runs as it stands."""

import importlib.util
import re
from pathlib import Path

from secateur.records import read_record
from secateur.report.sweep import readme_table, sweep_markdown

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


def test_the_tables_of_the_polyp_study_are_those_of_its_record():
    path = _README.parent / "benchmarks" / "polyp_study.py"
    spec = importlib.util.spec_from_file_location("polyp_study", path)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    record, text = read_record(study.RECORD), _README.read_text(encoding="utf-8")
    assert study.with_table(text, readme_table(record)) == text
    assert (study.RECORD.parent / "tables.md").read_text(encoding="utf-8") == sweep_markdown(record)
