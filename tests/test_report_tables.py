"""The report's rows come from the records, and from nothing but comparable ones."""

import json
from dataclasses import replace

import numpy as np
import pytest

from report_fixtures import CUTS, DENSE_MACS, bench_record, edit_record, evaluation_record, make_runs
from secateur.errors import InputError, RecordError
from secateur.records import write_record
from secateur.report.intervals import paired_difference
from secateur.report.runs.records import read_runs, read_timings
from secateur.report.runs.tables import markdown_table, summary_record, summary_rows
from secateur.report.tasks.views import VIEWS

POLYP = VIEWS["polyp"]


@pytest.fixture
def folders(tmp_path):
    return make_runs(tmp_path)


def test_paired_interval_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.2, 0.9, 400)
    change = rng.normal(-0.02, 0.05, 400)
    found = paired_difference(
        evaluation_record(before.tolist()), evaluation_record((before + change).tolist()), metric="dice"
    )
    half = 1.96 * change.std(ddof=1) / np.sqrt(400)
    assert found.cases == 400
    assert found.mean == pytest.approx(change.mean())
    assert (found.low, found.high) == pytest.approx((change.mean() - half, change.mean() + half), abs=0.1 * half)


def test_difference_pairs_by_case_and_leaves_out_undefined_ones():
    dense = evaluation_record([0.9, 0.5, None, 0.7, 0.3])
    pruned = evaluation_record([0.8, 0.4, 0.1, None, 0.2])
    pruned["cases"].reverse()
    found = paired_difference(dense, pruned, metric="dice")
    assert found.cases == 3
    assert (found.mean, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))


def test_one_common_case_has_no_interval():
    assert paired_difference(evaluation_record([0.9, None]), evaluation_record([0.8, 0.4]), metric="dice") is None


def test_rows_carry_what_the_records_say(folders):
    dense, first, *_ = summary_rows(read_runs(folders), POLYP)
    assert (dense.macs, dense.macs_keep_ratio, dense.method) == (DENSE_MACS, 1.0, None)
    assert dense.score_difference is None
    assert first.method == "taylor"
    assert first.macs_keep_ratio == pytest.approx(0.099)
    setup, timing = next(iter(first.latency.items()))
    assert (setup.runtime, timing.speedup) == ("openvino", pytest.approx(190 / timing.p50_ms))
    evaluation = json.loads((folders[1] / "evaluation.json").read_text())
    assert (first.score.mean, first.evaluation["polyps"]["lost"]) == (evaluation["metrics"]["dice"]["mean"], 1)
    assert first.score_difference.mean == pytest.approx(first.score.mean - dense.score.mean)


def test_latest_measurement_beside_the_dense_network_counts(folders):
    write_record(folders[2] / "bench.json", bench_record(CUTS, dense_ms=400, created="2026-02-01T00:00:00"))
    alone = bench_record(CUTS, dense_ms=1, created="2026-03-01T00:00:00")
    for bench in alone["benches"]:
        bench["models"] = bench["models"][1:]
    write_record(folders[1] / "bench.json", alone)
    by_name = next(iter(read_timings(read_runs(folders)).values()))
    assert by_name["dense"].p50_ms == 400
    assert by_name["taylor-10"].p50_ms == pytest.approx(400 * 0.15)


def test_absent_records_leave_gaps(folders):
    for name in ("prune.json", "evaluation.json", "export/parity.json"):
        (folders[1] / name).unlink()
    (folders[0] / "bench.json").unlink()
    row = summary_rows(read_runs(folders), POLYP)[1]
    assert (row.macs, row.score, row.score_difference, row.size_bytes, row.latency) == (None,) * 4 + ({},)


@pytest.fixture
def scratch(folders):
    """The same with a network that was not cut, in the shape of a cut, timed at a larger input than the cuts know."""
    bench = bench_record(CUTS)
    for setup in bench["benches"]:
        setup["input_shape"] = [1, 3, 704, 704]
        for model in setup["models"]:
            model["macs"] *= 4
    write_record(folders[0] / "bench.json", bench)
    (folders[2] / "prune.json").unlink()
    return folders


def test_all_sizes_are_of_one_input_shape(scratch):
    rows = summary_rows(read_runs(scratch), POLYP)
    assert {row.input_shape for row in rows} == {(1, 3, 704, 704)}  # where every network was counted
    assert [row.macs_keep_ratio for row in rows] == pytest.approx([1, 0.1, 0.25, 0.1], rel=1e-6)
    assert rows[0].macs == 4 * DENSE_MACS
    assert rows[2].params_keep_ratio == pytest.approx(0.25, rel=1e-6)


def test_a_size_that_training_recorded_stands_beside_those_of_cuts(scratch):
    size = {"input_shape": [1, 3, 352, 352], "macs": DENSE_MACS // 5, "params": 7}
    edit_record(scratch[2] / "run.json", size=size)
    rows = summary_rows(read_runs(scratch), POLYP)
    assert {row.input_shape for row in rows} == {(1, 3, 352, 352)}
    assert [row.macs_keep_ratio for row in rows] == pytest.approx([1, 0.099, 0.2, 0.099], rel=1e-6)
    assert rows[2].params == 7


def test_macs_at_another_shape_than_the_others_are_left_out(scratch):
    bench = json.loads((scratch[0] / "bench.json").read_text())
    for setup in bench["benches"]:
        setup["models"] = [model for model in setup["models"] if model["name"] in ("dense", "taylor-25")]
    edit_record(scratch[0] / "bench.json", benches=bench["benches"])
    rows = summary_rows(read_runs(scratch), POLYP)
    assert (rows[2].macs, rows[2].macs_keep_ratio) == (None, None)
    assert [row.macs_keep_ratio for row in (rows[1], rows[3])] == pytest.approx([0.099, 0.099], rel=1e-6)
    assert rows[2].params_keep_ratio == pytest.approx(0.25, rel=1e-6)


def test_the_summary_is_data_too(folders):
    record = json.loads(json.dumps(summary_record(folders)))
    assert record["metric"] == "dice"
    rows = summary_rows(read_runs(folders), POLYP)
    for found, row in zip(record["runs"], rows, strict=True):
        assert (found["name"], found["macs"], found["params_keep_ratio"]) == (row.name, row.macs, row.params_keep_ratio)
        assert found["score"]["mean"] == row.score.mean
        assert [time["p50_ms"] for time in found["latency"]] == [time.p50_ms for time in row.latency.values()]
    assert record["runs"][0]["score_difference"] is None


def test_markdown_table_has_one_line_per_run(tmp_path):
    lines = markdown_table(make_runs(tmp_path, cuts=[replace(CUTS[0], name="a|b")])).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("| Network | Channels chosen by | MACs (kept) |")
    assert lines[3].startswith("| a\\|b | taylor | 1.96\N{NO-BREAK SPACE}G (9.9\N{NO-BREAK SPACE}%) |")
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}


def test_columns_that_nobody_measured_are_left_out(folders):
    (folders[0] / "bench.json").unlink()
    assert "speed-up" not in markdown_table(folders)


def test_no_folder_is_refused():
    with pytest.raises(InputError, match="no run folder was given"):
        read_runs([])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"run\.json does not exist"):
        read_runs([tmp_path])


def test_the_first_run_must_be_dense(folders):
    with pytest.raises(InputError, match=r"'taylor-10', has the role 'pruned'.*parent.*\.\./dense"):
        read_runs(folders[1:])


def test_two_runs_of_one_name_are_refused(folders):
    edit_record(folders[2] / "run.json", name="taylor-10")
    with pytest.raises(InputError, match="both named 'taylor-10'"):
        read_runs(folders)


def test_evaluations_of_other_cases_are_refused(folders):
    evaluation = json.loads((folders[1] / "evaluation.json").read_text())
    edit_record(folders[1] / "evaluation.json", cases=evaluation["cases"][1:])
    with pytest.raises(RecordError, match="23 cases of 'test' and 'dense' on 24 of 'test', 23 of them the same"):
        read_runs(folders)


def test_a_broken_line_of_metrics_is_named(folders):
    path = folders[0] / "metrics.jsonl"
    path.write_text(path.read_text() + '{"stage": "tr')
    with pytest.raises(RecordError, match=r"metrics\.jsonl, line 13"):
        read_runs(folders)
