"""The scripts of ``benchmarks/`` refuse wrong arguments, and pass on what they were given."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("study", [], "required: study, folder"),
        ("study", ["polyp_study"], "required: folder"),
        ("study", ["polip_study", "runs"], "invalid choice: 'polip_study'"),
        ("study", ["polyp_study", "runs", "more"], "unrecognized arguments: more"),
        ("engine", [], "required"),
        ("engine", ["--member"], "expected one argument"),
        ("engine", ["record.json", "UNett"], "no network is called UNett"),
        ("polyp_kvasir", ["runs"], "required: records"),
        ("tile", ["record.json"], "required: runs"),
    ],
)
def test_wrong_arguments_end_in_one_line_of_usage(monkeypatch, capsys, script, arguments, words):
    monkeypatch.syspath_prepend(_FOLDER)
    module = import_module(script)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_budget_of_five_percent_is_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(_FOLDER)
    script = import_module("polyp_kvasir")
    calls = []
    monkeypatch.setattr(script, "secateur", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(script, "_CUTS", [("taylor", 5, 0)])
    monkeypatch.setattr(sys, "argv", ["polyp_kvasir", str(tmp_path / "runs"), str(tmp_path / "records")])
    script.main()
    (cut,) = (call for call in calls if call[0] == "prune")
    assert float(cut[cut.index("--macs-keep") + 1]) == 0.05


def test_the_peak_of_memory_counts_what_was_there_for_a_moment(monkeypatch):
    monkeypatch.syspath_prepend(_FOLDER)
    measuring = import_module("measuring")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux counts the peak in /proc")
    before = measuring.reset_peak_mib()
    bytearray(b"x") * (64 * 2**20)
    assert 60 < measuring.peak_mib() - before < 80
