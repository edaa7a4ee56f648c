"""The page of a sweep says what the record says, by rules, and hides nothing that is missing."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from secateur.errors import RecordError
from secateur.metrics.aggregate import summarize
from secateur.records import read_record, write_record
from secateur.report import rounding
from secateur.report.findings import SYNTHETIC
from secateur.report.intervals import interval_text
from secateur.report.sweeps.budgets.cells import DENSE, Arm, read_sweep
from secateur.report.sweeps.budgets.figures import dice_curves, samples_curves, speedup_curves
from secateur.report.sweeps.budgets.tables import compared_arms
from secateur.report.sweeps.budgets.wording import comparisons_made, sweep_findings
from secateur.report.sweeps.page import readme_table, sweep_markdown, write_sweep_page
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.record import read_latencies
from secateur.roles import Role
from sweep_fixtures import CRITERIA, SETS, evaluation, replace_cell, sweep_record, unfinished_cell
from test_report_page import CHROMIUM, Page, browse, colours, luminance

COMMAND = ("secateur", "report", "runs/a sweep")
OTHER = "polyp_polypgen-test"
TAYLOR, RANDOM = Arm(Role.PRUNED, "taylor"), Arm(Role.PRUNED, "random")


@pytest.fixture(scope="module")
def whole():
    return sweep_record()


@pytest.fixture
def record(whole):
    return copy.deepcopy(whole)


@pytest.fixture(scope="module")
def page(whole, tmp_path_factory):
    return Page(write_sweep_page(whole, tmp_path_factory.mktemp("page") / "sweep.html", command=COMMAND))


def cell_named(record, name):
    return next(cell for cell in record["cells"] if cell["name"] == name)


def set_dices(record, name, dices):
    """Give a cell these values per case on its own test split."""
    cell_named(record, name)["evaluations"]["test"] = evaluation(dices)


def small_record(dices):
    """Dense, taylor-10 and random-10 with the Dice per case of each seed: ``{name: [seed 0, seed 1, ...]}``."""
    seeds = range(len(dices["dense"]))
    record = sweep_record(criteria=("taylor", "random"), budgets=(0.1,), one_shot=(), seeds=seeds, extras=False)
    record["sets"] = {"test": {"source": "a", "split": "test", "ids": list("abcdefgh"[: len(dices["dense"][0])])}}
    for cell in record["cells"]:
        _, name = cell["name"].split("/")
        evaluations = {"test": evaluation(dices[name][cell["seed"]], lost=None if name == "dense" else 1)}
        cell["evaluations"] = evaluations
        cell["before_recovery"] = evaluations if cell["kind"] == "pruned" else None
    return record


def test_the_record_goes_through_a_file(whole, tmp_path):
    write_record(tmp_path / "sweep.json", whole)
    assert readme_table(read_record(tmp_path / "sweep.json")) == readme_table(whole)


def test_one_seed_has_the_interval_of_its_own_evaluation(whole):
    found = read_sweep(whole).at(OTHER, Phase.AFTER, TAYLOR, 0.5).dice
    recorded = cell_named(whole, "seed-0/taylor-50")["evaluations"][OTHER]["metrics"]["dice"]
    assert (found.interval.mean, [found.interval.low, found.interval.high]) == (recorded["mean"], recorded["ci95"])


def test_seeds_are_averaged_case_by_case_before_cases_are_drawn():
    # each case has the same mean over seeds: no spread is left, though single trainings differ widely
    record = small_record(
        {
            "dense": [[0.9, 0.7, 0.8], [0.7, 0.9, 0.8]],
            "taylor-10": [[0.8, 0.4, 0.6], [0.4, 0.8, 0.6]],
            "random-10": [[0.5, 0.5, 0.5], [0.1, 0.3, 0.5]],
        }
    )
    sweep = read_sweep(record)
    found = sweep.at("test", Phase.AFTER, TAYLOR, 0.1).dice
    assert (found.interval.low, found.interval.high) == pytest.approx((0.6, 0.6))
    assert found.by_seed == pytest.approx({0: 0.6, 1: 0.6})
    difference = sweep.difference((TAYLOR, 0.1), (DENSE, None), label="test", phase=Phase.AFTER)
    assert (difference.interval.mean, difference.interval.high) == pytest.approx((-0.2, -0.2))
    other = sweep.difference((TAYLOR, 0.1), (RANDOM, 0.1), label="test", phase=Phase.AFTER)
    assert other.interval.mean == pytest.approx(np.mean([0.3, 0.2, 0.1]))
    assert other.by_seed == pytest.approx({0: 0.1, 1: 0.3})
    cases = summarize([0.3, 0.2, 0.1])
    assert (other.interval.low, other.interval.high) == pytest.approx(cases.ci95)


def test_only_seeds_that_both_have_are_compared():
    dices = {
        "dense": [[0.9, 0.8], [0.5, 0.4]],
        "taylor-10": [[0.8, 0.7], [0.4, 0.3]],
        "random-10": [[0.7, 0.6], [0.0, 0.0]],
    }
    record = small_record(dices)
    replace_cell(record, unfinished_cell(cell_named(record, "seed-1/random-10")))
    found = read_sweep(record).difference((TAYLOR, 0.1), (RANDOM, 0.1), label="test", phase=Phase.AFTER)
    assert found.interval.mean == pytest.approx(0.1)
    assert list(found.by_seed) == [0]


def test_a_case_undefined_for_one_seed_is_left_out():
    dices = {
        "dense": [[0.9, 0.8, 0.7]] * 2,
        "taylor-10": [[0.5, None, 0.3], [0.5, 0.9, 0.3]],
        "random-10": [[0.1] * 3] * 2,
    }
    found = read_sweep(small_record(dices)).at("test", Phase.AFTER, TAYLOR, 0.1).dice
    assert (found.interval.cases, found.interval.mean) == (2, pytest.approx(0.4))


@pytest.mark.parametrize(
    ("shift", "verdict", "good"),
    [
        ((0.1, 0.2, 0.1, 0.2), "better", True),
        ((-0.1, -0.2, -0.1, -0.2), "worse", False),
        ((0.1, -0.3, 0.2, -0.1), "no difference shown", None),
    ],
)
def test_a_verdict_says_what_the_interval_says(shift, verdict, good):
    dense = [0.5, 0.6, 0.4, 0.5]
    taylor = [before + change for before, change in zip(dense, shift, strict=True)]
    sweep = read_sweep(small_record({"dense": [dense], "taylor-10": [taylor], "random-10": [taylor]}))
    (finding,) = sweep_findings(sweep, "test")
    assert f"against dense: {verdict}" in finding.text
    assert finding.good is good
    assert "No difference shown against random (0.000)." in finding.text
    assert comparisons_made(sweep) == (4, 0 if good is None else 2)  # after and before recovery alike


def test_findings_name_lost_polyps_seeds_and_what_was_not_recovered(whole):
    after, *_, last = sweep_findings(read_sweep(whole), "test")
    assert after.topic == "taylor at 50\N{NO-BREAK SPACE}% after recovery (1 seed)"
    assert "0 of 39 polyps lost" in after.text
    assert last.topic == "taylor at 75\N{NO-BREAK SPACE}% before recovery (1 seed)"
    tenth = next(
        finding for finding in sweep_findings(read_sweep(whole), "test") if " 10\N{NO-BREAK SPACE}%" in finding.topic
    )
    for rival in ("from scratch in taylor's shape, equal epochs", "uniform", "taylor, distilled"):
        assert rival in tenth.text
    assert all(arm.samples is None for arm in compared_arms(read_sweep(whole), Phase.BEFORE))


def test_one_shot_cells_are_before_recovery_alone(whole):
    sweep = read_sweep(whole)
    assert sweep.budgets(Phase.AFTER) == [0.5, 0.25, 0.1, 0.05]
    assert sweep.budgets(Phase.BEFORE) == [0.9, 0.75, 0.5, 0.25, 0.1, 0.05]
    before = sweep.at("test", Phase.BEFORE, TAYLOR, 0.1).dice.mean
    assert before < sweep.at("test", Phase.AFTER, TAYLOR, 0.1).dice.mean
    assert all(arm.role is not Role.SCRATCH for arm in sweep.arms(Phase.BEFORE))


def test_a_cut_made_with_recovery_and_without_counts_once(record):
    again = copy.deepcopy(cell_named(record, "seed-0/taylor-50")) | {"name": "seed-0/taylor-50-cut", "recovered": False}
    before = read_sweep(record)
    record["cells"].append(again)
    assert read_sweep(record).reached == before.reached


def test_rows_go_by_criterion_with_variants_behind(whole):
    labels = [arm.label for arm in read_sweep(whole).arms(Phase.AFTER)]
    scratch = [f"from scratch in taylor's shape, equal {what}" for what in ("epochs", "training MACs")]
    assert labels == ["dense", "taylor", "taylor, distilled", *scratch, *CRITERIA[1:]]


def test_curves_show_means_intervals_and_single_seeds(whole):
    sweep = read_sweep(whole)
    figure = dice_curves(sweep, "test", Phase.AFTER)
    lines = {trace["name"]: trace for trace in figure["data"] if trace.get("showlegend", True)}
    assert set(lines) == {arm.label for arm in sweep.arms(Phase.AFTER)}
    found = sweep.at("test", Phase.AFTER, TAYLOR, 0.25).dice
    assert lines["taylor"]["y"][1] == found.mean
    assert found.mean - lines["taylor"]["error_y"]["arrayminus"][1] == pytest.approx(found.interval.low)
    assert lines["taylor"]["x"] == pytest.approx([49.5, 24.75, 9.9, 4.95], rel=0.12)  # shifted a little
    (seeds,) = [t for t in figure["data"] if t["name"] == "taylor" and not t.get("showlegend", True)]
    assert seeds["y"] == list(sweep.at("test", Phase.AFTER, TAYLOR, 0.1).dice.by_seed.values())
    low, high = figure["layout"]["xaxis"]["range"]
    assert all(10**low < x < 10**high for trace in figure["data"] for x in trace["x"])


def test_no_two_lines_look_alike(whole):
    figure = dice_curves(read_sweep(whole), "test", Phase.AFTER)
    looks = [
        (trace["line"]["color"], trace["line"]["dash"], trace["marker"]["symbol"])
        for trace in figure["data"]
        if trace.get("showlegend", True)
    ]
    assert len(looks) == len(set(looks)) == len(CRITERIA) + 4
    assert len({(colour, symbol) for colour, _, symbol in looks}) == len(looks)  # one point shows no dash
    plain = {(colour, symbol) for colour, dash, symbol in looks if dash == "solid"}
    assert len({colour for colour, _ in plain}) == len({symbol for _, symbol in plain}) == len(CRITERIA) + 1


def test_samples_are_plotted_against_what_all_frames_gave(whole):
    sweep = read_sweep(whole)
    figure = samples_curves(sweep, "test")
    assert figure["data"][0]["x"] == [1, 4, 16, 64]
    assert figure["data"][0]["name"].endswith("before recovery")
    assert len(figure["data"][1]["y"]) == 4 * 3
    (level,) = figure["layout"]["shapes"]
    assert level["y0"] == sweep.at("test", Phase.BEFORE, TAYLOR, 0.1).dice.mean
    assert samples_curves(read_sweep(sweep_record(extras=False, seeds=(0,))), "test") is None


def test_speed_is_held_against_macs(whole):
    sweep = read_sweep(whole)
    setups = read_latencies(whole)
    assert [(setup.runtime, setup.precision) for setup in setups][-1] == ("torch", "float32")
    figure = speedup_curves(sweep, setups[list(setups)[-1]])
    (taylor,) = [trace for trace in figure["data"] if trace["name"] == "taylor"]
    bench = whole["bench"]["benches"][0]
    speedups = {pair["pruned"]: pair["speedup"] for pair in bench["pairs"]}
    assert taylor["y"] == [speedups[name] for name in taylor["customdata"]]
    assert taylor["x"] == pytest.approx([1 / (0.99 * ratio) for ratio in (0.5, 0.25, 0.1, 0.05)], rel=1e-6)


def test_the_page_stands_alone(page):
    assert [address for address in page.addresses if not re.match(r"#|data:image/", address)] == []
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page.source
    assert "url(" not in page.source
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page.source)) <= set(page.ids)
    for figure in page.figures:
        go.Figure(json.loads(re.sub(r'"var\(--[\w-]+\)"', '"#123456"', json.dumps(figure))))
    assert len(page.figures) == len(SETS) * (2 + 1) + 3


def test_every_colour_of_a_line_is_readable_in_both_themes(page):
    light, dark = (colours(block) for block in re.findall(r":root \{(.*?)\}", page.source, re.DOTALL))
    used = {name for figure in page.figures for name in re.findall(r"var\((--[\w-]+)\)", json.dumps(figure["data"]))}
    assert "--series-6" in used
    for theme in (light, dark):
        for name in used:
            high, low = sorted((luminance(theme[name]), luminance(theme["--card"])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_protocol_time_and_terms_are_on_the_page(page, whole):
    for part in (
        "secateur sweep --out 'runs/a sweep'",
        "secateur report 'runs/a sweep'",
        "polyp_polypgen test (30 cases)",
        "An x86 processor, 2 cores",
        "torch 2.13.0",
        "1350 \N{MULTIPLICATION SIGN} 1080",
        "equal training MACs",
    ):
        assert part in page.text
    hours = sum(cell["seconds"] for cell in whole["cells"]) / 3600
    assert f"{len(whole['cells'])} of {len(whole['cells'])} cells took {hours:.1f} hours together" in page.text
    terms = ("Dice", "95 % interval", "Better, worse", "Polyp lost", "False-polyp frame", "MACs", "Latency", "Seed")
    for term in (*terms, "From scratch", "Scoring samples", "Frames per second", *CRITERIA):
        assert f"<dt>{term}" in page.source
    assert "not complete" not in page.text
    assert SYNTHETIC not in page.text


def test_failed_and_waiting_cells_are_shown_with_their_message(record, tmp_path):
    error = "BudgetError: 5 % asked,\n6 % possible | <b>"
    replace_cell(record, unfinished_cell(cell_named(record, "seed-2/l2-10"), error=error))
    replace_cell(record, unfinished_cell(cell_named(record, "seed-0/random-5")))
    record |= {"bench": None, "frames": None, "synthetic": True}
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    states = f"{len(record['cells']) - 2} of {len(record['cells'])} cells are done, 1 failed, 1 not run."
    for part in (states, "seed-2/l2-10 failed: BudgetError", "not run: seed 0", SYNTHETIC):
        assert part in page.text
    assert '<span class="error">seed 2 failed: BudgetError: 5 % asked, 6 % possible | &lt;b&gt;</span>' in page.source
    assert "There is no record of latency and frames per second." in page.text
    assert "Latency has not been measured." in page.text
    markdown = sweep_markdown(record)
    assert r"seed 2 failed: BudgetError: 5 % asked, 6 % possible \| &lt;b&gt; |" in markdown
    assert "seed 2 failed" in readme_table(record)


def test_a_sweep_that_has_just_begun_has_a_page(record, tmp_path):
    record["cells"] = [unfinished_cell(cell) for cell in record["cells"]]
    record |= {"bench": None, "frames": None, "sets": {}}
    record["recipe"]["pruning"]["recovery"] = None
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    assert "No cell of the leading criterion, taylor, is done yet." in page.text
    assert "No cell has been timed." in page.text
    assert page.figures == []
    assert "| seed-0/dense | not run |" in sweep_markdown(record)


def test_a_single_case_has_a_mean_and_no_interval(tmp_path):
    record = small_record({"dense": [[0.8]], "taylor-10": [[0.7]], "random-10": [[0.6]]})
    text = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND)).text
    assert "0.700 (1 seed)" in text
    assert "not comparable: fewer than two common cases" in text
    assert "A single case has no interval" in text
    assert "0.700" in readme_table(record)


def test_markdown_has_every_table(whole):
    text = sweep_markdown(whole)
    for heading in (
        *(f"## {source} test ({count} cases)\n" for source, count in SETS.values()),
        "### Mean Dice after recovery, by share of MACs kept\n",
        "### taylor minus each other network before recovery, Dice\n",
        "### Latency: median (speed-up)\n",
        "### From decoded frame to overlay\n",
        "### Every cell\n",
    ):
        assert heading in text
    widths = [{line.count(" | ") for line in block.splitlines()} for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    assert all(len(width) == 1 for width in widths)


def test_the_readme_holds_the_leading_criterion_against_dense_networks_of_the_same_seeds(whole):
    header, _, *rows = readme_table(whole).splitlines()
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    scratch = [f"from scratch in taylor's shape, equal {what}" for what in ("epochs", "training MACs")]
    assert names == ["dense", "taylor", "taylor", "taylor", *scratch, "l2", "random", "uniform", "taylor"]
    assert header.endswith("| speed-up, OpenVINO, float32, 2 threads |")
    sweep = read_sweep(whole)
    reached = sweep.at(OTHER, Phase.AFTER, TAYLOR, 0.5).dice.mean
    above = sweep.difference((TAYLOR, 0.5), (DENSE, None), label=OTHER, phase=Phase.AFTER)
    assert list(above.by_seed) == [0]  # the other dense networks were not cut to half
    assert above.interval.mean != pytest.approx(reached - sweep.at(OTHER, Phase.AFTER, DENSE, None).dice.mean, abs=5e-4)
    speedup = next(p["speedup"] for p in whole["bench"]["benches"][1]["pairs"] if p["pruned"] == "seed-0/taylor-50")
    difference = interval_text(above.interval, signed=True)
    assert rows[1].endswith(f"| {reached:.3f} | {difference} | {rounding.times(speedup)} |")
    assert "speed-up" not in readme_table(whole | {"bench": None})


def test_a_record_that_contradicts_itself_is_refused(record, tmp_path):
    set_dices(record, "seed-0/taylor-10", [0.5, 0.6])
    out = tmp_path / "page.html"
    out.write_text("old")
    with pytest.raises(RecordError, match=r"'seed-0/taylor-10' has 2 values of 'dice' for the 40 cases of 'test'"):
        write_sweep_page(record, out, command=COMMAND)
    assert (out.read_text(), list(tmp_path.iterdir())) == ("old", [out])
    with pytest.raises(RecordError, match="has no cells, recipe, sets; give the sweep"):
        read_sweep({"name": "a run"})


def test_a_failure_while_writing_leaves_the_old_page(whole, tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    out.write_text("old")
    write = Path.write_text

    def fail(path: Path, text: str, **settings: str) -> None:
        write(path, text[:100], **settings)
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        write_sweep_page(whole, out, command=COMMAND)
    assert (out.read_text(), list(tmp_path.iterdir())) == ("old", [out])


def test_importing_the_page_loads_no_extra():
    code = (
        "import sys, secateur.report.sweeps.page; sys.exit(any(name in sys.modules for name in ('plotly', 'jinja2')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_every_figure(whole, tmp_path):
    out = write_sweep_page(whole, tmp_path / "page.html", command=COMMAND)
    shown = browse(out, tmp_path / "profile")
    assert shown.count('class="plot-container') == len(Page(out).figures)
