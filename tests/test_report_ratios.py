"""The page of a sweep over compression ratios says what its record says, by rules, and hides nothing."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from ratio_fixtures import (
    RATIOS,
    bench_record,
    cell_named,
    drawn_record,
    ratio_record,
    replace_cell,
    set_values,
    unfinished_cell,
)
from secateur.errors import RecordError
from secateur.metrics.aggregate import summarize_difference
from secateur.report.intervals import Interval
from secateur.report.quantities import AJI, CORRELATION, MSE, SEMANTIC_DICE
from secateur.report.sweeps.page import readme_table, sweep_markdown, write_sweep_page
from secateur.report.sweeps.pooling import Difference, Phase
from secateur.report.sweeps.ratios.figures import density_map, metric_curves
from secateur.report.sweeps.ratios.limits import Loss, absolute_limit, losses, relative_limit
from secateur.report.sweeps.ratios.results import (
    CONTROL,
    DENSE,
    FILTERS,
    LAYER,
    LINES,
    NETWORK,
    OUTPUTS,
    RANDOM,
    SMALL,
    read_ratios,
)
from secateur.report.sweeps.ratios.tables import cell_labels
from secateur.report.sweeps.ratios.wording import (
    against_finding,
    comparisons_made,
    limit_text,
    not_run,
    ratio_findings,
    scope_finding,
)
from test_report_page import CHROMIUM, Page, browse, colours, luminance

COMMAND = ("secateur", "report", "runs/a sweep")
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def whole():
    return ratio_record()


@pytest.fixture
def record(whole):
    return copy.deepcopy(whole)


@pytest.fixture(scope="module")
def page(whole, tmp_path_factory):
    return Page(write_sweep_page(whole, tmp_path_factory.mktemp("page") / "sweep.html", command=COMMAND))


def curve(*relative):
    """Losses at the ratios 1, 2, 4, ... with these shares of a dense mean of 0.5."""
    return [loss_at(2.0**n, 0.5 * loss) for n, loss in enumerate(relative)]


def loss_at(ratio, absolute, *, reference=0.5, undefined=0):
    return Loss(ratio, absolute, None, reference, seeds=1, undefined=undefined)


def ratios_of(limit):
    return tuple(loss.ratio if loss else None for loss in (limit.unbroken, limit.plain, limit.broken))


@pytest.mark.parametrize(
    ("found", "limit", "words"),
    [
        (curve(-0.01, 0.0, 0.01, 0.03, 0.5), (4, 4, 8), f"4{TIMES}"),
        (curve(0.0, 0.03, 0.01, 0.05), (1, 4, 2), f"1{TIMES}, and again 4{TIMES}"),  # not monotone
        (curve(0.03, 0.01, 0.05), (None, 2, 1), f"2{TIMES}, but smaller ones do not"),
        (curve(0.03, 0.04), (None, None, 1), "none of those tested"),
        (curve(0.0, 0.01), (2, 2, None), f"2{TIMES}"),
        (curve(0.0, 0.02), (1, 1, 2), f"1{TIMES}"),  # exactly 2 % is not under 2 %
    ],
)
def test_the_limit_is_the_largest_ratio_under_which_nothing_breaks(found, limit, words):
    assert ratios_of(relative_limit(found[::-1])) == limit
    assert limit_text(relative_limit(found)) == words


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (
            (0.5, 0.46, 0.499, 0.4),
            [f"2{TIMES}, and again 8{TIMES}", "0.0 %", f"4{TIMES}: +8.0 %", f"8{TIMES}: +0.2 %"],
        ),
        ((0.46, 0.499, 0.4, 0.4), [f"4{TIMES}, but smaller ones do not", f"2{TIMES}: +8.0 %", f"4{TIMES}: +0.2 %"]),
        ((0.499, 0.499, 0.46, 0.4), [f"4{TIMES}", "+0.2 %", f"8{TIMES}: +8.0 %"]),
    ],
)
def test_the_loss_without_a_ratio_is_that_at_the_unbroken_limit(at, shown):
    levels = {("dense", 1): 0.5, **{("layer", ratio): level for ratio, level in zip((2, 4, 8, 16), at, strict=True)}}
    row = next(line for line in sweep_markdown(drawn_record(levels)).splitlines() if line.startswith("| AJI "))
    parts = row.split(" | ")[1].split("<br>")
    assert [re.sub(r"loss | \[.*", "", part) for part in parts] == shown


def test_absolute_and_relative_limits_differ():
    found = curve(0.01, 0.03, 0.05)  # absolute: 0.005, 0.015, 0.025
    assert ratios_of(relative_limit(found)) == (1, 1, 2)
    assert ratios_of(absolute_limit(found)) == (2, 2, 4)


def test_cases_that_became_undefined_break_the_limit():
    gone = loss_at(4, 0.001, undefined=1)
    assert ratios_of(relative_limit([*curve(0.0, 0.0), gone])) == (2, 2, 4)
    assert ratios_of(relative_limit([loss_at(1, 0.0, reference=0.0)])) == (None, None, 1)


@pytest.mark.parametrize(("control", "reference", "limit"), [(0.52, CONTROL, 10), (None, DENSE, 20)])
def test_what_further_training_gains_does_not_hide_what_a_cut_costs(control, reference, limit):
    levels = {("dense", 1): 0.5, ("layer", 10): 0.515, ("layer", 20): 0.5002, ("layer", 32): 0.4}
    sweep = read_ratios(drawn_record(levels if control is None else {**levels, ("layer", 1): control}))
    assert sweep.reference(Phase.AFTER) == (reference, 1.0)
    assert ratios_of(relative_limit(losses(sweep, LAYER, "test", Phase.AFTER, AJI)))[0] == limit


def test_a_loss_has_the_paired_interval_over_cases():
    record = drawn_record({("dense", 1): 0.6, ("layer", 4): 0.6})
    set_values(record, "seed-0/dense", "aji", [0.4, 0.6, 0.8, 0.6])
    set_values(record, "seed-0/layer-x4", "aji", [0.3, 0.6, 0.7, 0.6])
    (found,) = losses(read_ratios(record), LAYER, "test", Phase.AFTER, AJI)
    expected = summarize_difference([0.3, 0.6, 0.7, 0.6], [0.4, 0.6, 0.8, 0.6])
    assert (found.interval.mean, found.interval.low, found.interval.high) == (found.absolute, *expected.ci95)
    assert found.interval.low >= 0 < found.interval.high


def test_a_loss_is_the_mean_over_seeds_and_cases_against_the_same_seeds():
    record = drawn_record({("dense", 1): 0.6, ("layer", 4): 0.54}, seeds=(0, 1))
    set_values(record, "seed-0/dense", "aji", [0.4, 0.6, 0.8, 0.6])
    set_values(record, "seed-1/dense", "aji", [0.8, 0.8, 0.8, 0.8])
    set_values(record, "seed-0/layer-x4", "aji", [0.3, 0.5, 0.7, 0.5])
    set_values(record, "seed-1/layer-x4", "aji", [0.7, 0.6, 0.8, 0.8])
    (found,) = [loss for loss in losses(read_ratios(record), LAYER, "test", Phase.AFTER, AJI) if loss.ratio == 4]
    assert (found.absolute, found.relative, found.seeds) == (pytest.approx(0.0875), pytest.approx(0.0875 / 0.7), 2)
    replace_cell(record, unfinished_cell(cell_named(record, "seed-1/layer-x4"), error="died"))
    (found,) = [loss for loss in losses(read_ratios(record), LAYER, "test", Phase.AFTER, AJI) if loss.ratio == 4]
    assert (found.absolute, found.relative, found.seeds) == (pytest.approx(0.1), pytest.approx(0.1 / 0.6), 1)


def test_a_rise_of_the_error_is_a_loss():
    record = drawn_record({("dense", 1): 0.05, ("layer", 2): 0.0505, ("layer", 4): 0.06}, key="distance_mse")
    found = losses(read_ratios(record), LAYER, "test", Phase.AFTER, MSE)
    by_ratio = {loss.ratio: loss.relative for loss in found}
    assert (by_ratio[2], by_ratio[4]) == (pytest.approx(0.01), pytest.approx(0.2))
    assert ratios_of(relative_limit(found)) == (2, 2, 4)


def test_an_undefined_case_is_left_out_and_counted():
    levels = {("dense", 1): 0.6, ("layer", 1): 0.6, ("layer", 4): 0.6}
    record = drawn_record(levels, key="distance_correlation")
    set_values(record, "seed-0/layer-x4", "distance_correlation", [0.6, None, 0.6, 0.6])
    sweep = read_ratios(record)
    (found,) = [loss for loss in losses(sweep, LAYER, "test", Phase.AFTER, CORRELATION) if loss.ratio == 4]
    assert (found.undefined, found.absolute) == (1, pytest.approx(0.0))
    assert sweep.pooled((LAYER, 4.0), "test", Phase.AFTER, CORRELATION).undefined == 1
    set_values(record, "seed-0/layer-x4", "distance_correlation", [None] * 4)
    found = losses(read_ratios(record), LAYER, "test", Phase.AFTER, CORRELATION)
    assert [loss.undefined for loss in found if loss.ratio == 4] == [4]
    assert "undefined for 4 cases" in sweep_markdown(record)
    set_values(record, "seed-0/dense", "distance_correlation", [None] * 4)
    set_values(record, "seed-0/layer-x1", "distance_correlation", [None] * 4)
    assert losses(read_ratios(record), LAYER, "test", Phase.AFTER, CORRELATION) == []
    assert "nan" not in sweep_markdown(record)


def test_a_missing_ratio_is_said_so():
    levels = {("dense", 1): 0.6, **{("layer", ratio): level for ratio, level in ((1, 0.6), (2, 0.1), (4, 0.6))}}
    record = drawn_record(levels)
    assert ratios_of(relative_limit(losses(read_ratios(record), LAYER, "test", Phase.AFTER, AJI))) == (None, 4, 2)
    replace_cell(record, unfinished_cell(cell_named(record, "seed-0/layer-x2")))
    limit = relative_limit(losses(read_ratios(record), LAYER, "test", Phase.AFTER, AJI))
    assert ratios_of(limit) == (4, 4, None)
    line = next(line for line in sweep_markdown(record).splitlines() if line.startswith("| AJI | "))
    assert line.split(" | ")[1].endswith(f"<br>not run: 2{TIMES}")
    replace_cell(record, unfinished_cell(cell_named(record, "seed-0/layer-x2"), error="died"))
    legend, _, header, _, *rows = readme_table(record).splitlines()
    assert f"Tested: layer-wise 2{TIMES}, 4{TIMES}; network-wide" in legend
    (row,) = [row for row in rows if row.startswith("| AJI ")]
    shown = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert shown["dense"] == shown["nothing removed, trained on"] == "0.600"
    layer = shown["layer-wise"].split("<br>")
    assert re.fullmatch(rf"4{TIMES} \(0.0 %, 1\Wseed\)", layer[0])
    assert layer[1:] == [f"failed: 2{TIMES}"]
    assert row.endswith(f" | 5{TIMES} |")


def test_baselines_stand_in_the_compact_table_with_what_they_lose(whole):
    (line,) = [line for line in readme_table(whole).splitlines() if line.startswith("| AJI | 0.5")]
    random, small = line.split(" | ")[5:7]
    for cell, ratio in ((random, 2), (small, 5)):
        assert re.fullmatch(rf"none; {ratio}{TIMES}: {MINUS}\d+\.\d %", cell)


def difference(low, high, quantity=AJI, seeds=(0.0,)):
    return Difference(quantity, Interval((low + high) / 2, low, high, 14), dict(enumerate(seeds)))


WIN, LOSS, NEITHER = (0.01, 0.02), (-0.02, -0.01), (-0.01, 0.01)  # network minus layer


@pytest.mark.parametrize(
    ("intervals", "says"),
    [
        ({2: LOSS, 16: NEITHER, 64: WIN}, "This is the direction of what the paper says"),
        ({2: WIN, 64: LOSS}, "This is the reverse of what the paper says"),
        ({2: LOSS, 4: WIN, 8: LOSS}, "No single ratio parts them"),
        ({2: NEITHER, 64: NEITHER}, "What the paper says, that layer-wise wins at small ratios"),
        ({2: NEITHER, 64: WIN}, "Layer-wise is better nowhere"),
        ({2: LOSS, 64: NEITHER}, "Network-wide is better nowhere"),
    ],
)
def test_the_claim_about_scopes_is_confirmed_by_intervals_alone(intervals, says):
    text = scope_finding(AJI, {ratio: difference(*ends) for ratio, ends in intervals.items()}).text
    assert says in text
    if says[:4] != "This":
        assert "direction" not in text
    for words, ends in (("network-wide is better at", WIN), ("layer-wise is better at", LOSS)):
        won = [ratio for ratio, each in intervals.items() if each == ends]
        assert (words in text.lower()) == bool(won)
        assert not won or f"{words} {won[0]}{TIMES}" in text.lower()


@pytest.mark.parametrize(
    ("ends", "quantity", "verdict"),
    [
        (WIN, AJI, "better"),
        (LOSS, AJI, "worse"),
        (NEITHER, AJI, "no difference shown"),
        ((0.0, 0.02), AJI, "no difference shown"),
        (WIN, MSE, "worse"),
        (LOSS, MSE, "better"),
    ],
)
def test_a_verdict_says_what_the_interval_says(ends, quantity, verdict):
    assert difference(*ends, quantity).verdict == verdict


def test_one_training_does_not_outvote_the_others():
    assert difference(*WIN, seeds=(-0.010, 0.059, -0.005)).verdict == "seeds disagree"
    assert difference(*WIN, seeds=(0.010, 0.030, 0.005)).verdict == "better"
    assert difference(*NEITHER, seeds=(-0.010, 0.010)).verdict == "no difference shown"
    found = scope_finding(AJI, {2: difference(*LOSS), 16: difference(*WIN, seeds=(-0.010, 0.059, -0.005))})
    assert f"seeds disagree at 16{TIMES} (3)" in found.text


def test_against_chance_only_what_is_always_better_is_good():
    surely = difference(*WIN, seeds=(0.01, 0.02))
    always = against_finding((LAYER, RANDOM), {2: surely, 5: surely})
    assert (always.good, always.text) == (True, f"Layer-wise is better at 2{TIMES} (2) and 5{TIMES} (2).")
    assert against_finding((LAYER, RANDOM), {2: surely, 5: difference(*WIN)}).good is None  # one training
    mixed = against_finding((LAYER, RANDOM), {2: surely, 5: difference(*NEITHER, seeds=(0.0, 0.0))})
    assert mixed.good is None
    assert f"no difference is shown at 5{TIMES} (2)" in mixed.text
    assert against_finding((LAYER, RANDOM), {}) is None


def test_scopes_are_paired_by_case_over_common_seeds(record):
    replace_cell(record, unfinished_cell(cell_named(record, "seed-2/network-x16")))
    place = {"label": "test", "phase": Phase.AFTER, "quantity": AJI}
    found = read_ratios(record).difference((NETWORK, 16.0), (LAYER, 16.0), **place)
    sides = [
        np.mean([cell_named(record, f"seed-{seed}/{scope}-x16")["evaluations"]["test"]["aji"] for seed in (0, 1)], 0)
        for scope in ("layer", "network")
    ]
    expected = summarize_difference(*sides)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected.ci95)
    assert list(found.by_seed) == [0, 1]
    assert found.interval.mean == pytest.approx(np.mean(list(found.by_seed.values())))


def test_ratio_one_is_a_line_of_its_own(whole):
    sweep = read_ratios(whole)
    assert len(sweep.places[CONTROL, 1.0]) == 3
    assert all(1.0 not in sweep.ratios(line) for line in (LAYER, NETWORK, RANDOM))
    assert cell_labels(sweep)["seed-0/layer-x1"] == "nothing removed, trained on, seed 0"


def test_networks_measured_before_recovery_do_not_stand_beside_recovered_ones(whole):
    sweep = read_ratios(whole)
    assert len(sweep.cells((LAYER, 2.0), Phase.AFTER)) == 1
    assert [cell["name"] for cell in sweep.cells((LAYER, 2.0), Phase.BEFORE)] == ["seed-0/layer-x2"]
    after, before = (sweep.pooled((LAYER, 2.0), "test", phase, AJI).mean for phase in Phase)
    assert before < 0.5 * after
    assert SMALL not in sweep.lines(Phase.BEFORE)


def test_cuts_that_were_not_measured_before_recovery_have_no_such_tables(tmp_path):
    record = ratio_record(ratios=RATIOS.model_copy(update={"before_recovery": False}))
    for cell in record["cells"]:
        cell["before_recovery"] = {} if cell["kind"] in ("sparse", "pruned") else None
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    assert "AJI after recovery" in page.text
    assert "before recovery, by" not in page.text
    assert "No network was measured between its cut and its recovery." in page.text


def test_whole_filters_stand_at_their_parameters(whole):
    sweep = read_ratios(whole)
    assert sweep.ratios(FILTERS) == [2.0, 10.0]
    cells = [cell_named(whole, name) for name in ("seed-0/dense", "seed-0/taylor-10")]
    assert sweep.position((FILTERS, 10.0)) == pytest.approx(cells[0]["params"] / cells[1]["params"])
    assert sweep.position((LAYER, 16.0)) == 16


def test_curves_show_means_intervals_seeds_and_the_dense_band(whole):
    sweep = read_ratios(whole)
    figure = metric_curves(sweep, "test", Phase.AFTER, SEMANTIC_DICE)
    lines = {trace["name"]: trace for trace in figure["data"] if trace.get("showlegend", True)}
    branches = {"semantic branch alone", "distance branch alone"}
    assert set(lines) == {line.label for line in LINES if line != DENSE} | branches
    assert len({line["line"]["color"] for line in lines.values()}) == len(lines)
    assert lines["layer-wise"]["x"] == pytest.approx(RATIOS.compressions[1:], rel=0.1)
    found = sweep.pooled((LAYER, 16.0), "test", Phase.AFTER, SEMANTIC_DICE)
    assert lines["layer-wise"]["y"][2] == found.mean
    assert found.mean - lines["layer-wise"]["error_y"]["arrayminus"][2] == pytest.approx(found.interval.low)
    (seeds,) = [t for t in figure["data"] if t["name"] == "layer-wise" and not t.get("showlegend", True)]
    assert len(seeds["y"]) == 3 * (len(RATIOS.repeated_compressions) - 1)
    dense = sweep.pooled((DENSE, 1.0), "test", Phase.AFTER, SEMANTIC_DICE).interval
    assert [figure["layout"]["shapes"][0][end] for end in ("y0", "y1")] == [dense.low, dense.high]
    low, high = figure["layout"]["xaxis"]["range"]
    assert all(10**low < x < 10**high for trace in figure["data"] for x in trace["x"])


def test_dead_layers_are_named_and_crossed(whole, page):
    figure = density_map(read_ratios(whole), NETWORK)
    heat, crosses = figure["data"]
    name = "semantic.levels.4.conv"
    assert (f"64{TIMES}", name) in zip(crosses["x"], crosses["y"], strict=True)
    assert heat["z"][heat["y"].index(name)][heat["x"].index(f"64{TIMES}")] is None
    layers = cell_named(whole, "seed-0/network-x2")["sparsity"]["masks"]["layers"]
    assert heat["customdata"][0][0] == pytest.approx(100 * layers[0]["density"])
    assert len(density_map(read_ratios(whole), LAYER)["data"]) == 1
    assert f"Network-wide, 2 layers at most, at 64{TIMES} and 100{TIMES}." in page.text
    assert f"{name}.weight" in page.text


def test_the_page_stands_alone(page):
    assert [address for address in page.addresses if not re.match(r"#|data:image/", address)] == []
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page.source
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page.source)) <= set(page.ids)
    for figure in page.figures:
        go.Figure(json.loads(re.sub(r'"var\(--[\w-]+\)"', '"#123456"', json.dumps(figure))))
    assert len(page.figures) == len(OUTPUTS) + 2 + 2


def test_every_colour_of_a_line_is_readable_in_both_themes(page):
    light, dark = (colours(block) for block in re.findall(r":root \{(.*?)\}", page.source, re.DOTALL))
    assert set(re.findall(r"var\((--[\w-]+)\)", page.source)) <= set(light) & set(dark)
    lines = [trace for figure in page.figures for trace in figure["data"] if trace["type"] == "scatter"]
    for theme in (light, dark):
        for name in set(re.findall(r"var\((--[\w-]+)\)", json.dumps(lines))):
            high, low = sorted((luminance(theme[name]), luminance(theme["--card"])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_the_page_says_what_was_found_and_what_was_not_run(page, whole):
    for part in (
        "Largest ratio with a mean loss under 2 % against “nothing removed, trained on”: layer-wise 20\xd7, 3",
        "The paper, layer-wise, other data, metric not named: 16\xd7.",
        "Of seed 0 alone: random masks, small dense networks, whole filters and single branches.",
        "Zeros alone do not make a CPU faster",
        f"At 2{TIMES} and 100{TIMES} there is one dense training only, seed 0.",
        f"Random masks were not drawn at 20{TIMES} and 100{TIMES}.",
        "Latency has not been measured.",
        "secateur report 'runs/a sweep'",
        "nuclei_kumar test (14 cases)",
        "Only 14 cases",
    ):
        assert part in page.text
    made, shown = comparisons_made(read_ratios(whole))
    assert f"hold {made} comparisons, {shown} with" in page.text
    assert made == len(OUTPUTS) * (6 + 4 + 3 + 3)
    for term in ("AJI", "Distance MSE", "Dead", "Random masks", "Small dense network", "Nothing removed", "Undefined"):
        assert f"<dt>{term}" in page.source


def test_failed_and_waiting_cells_are_shown_with_their_message(record, tmp_path):
    error = "CheckError: the loss\nis | <b>"
    replace_cell(record, unfinished_cell(cell_named(record, "seed-1/network-x20"), error=error))
    replace_cell(record, unfinished_cell(cell_named(record, "seed-0/small-x64")))
    record["bench"] = bench_record([cell_named(record, name) for name in ("seed-0/dense", "seed-0/layer-x16")])
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    total = len(record["cells"])
    for part in (
        f"{total - 2} of {total} cells are done, 1 failed, 1 not run.",
        "seed-1/network-x20 failed: CheckError",
        "not run: seed 0",
        "layer-wise at 16\xd7, seed 0",
    ):
        assert part in page.text
    assert '<span class="error">seed 1 failed: CheckError: the loss is | &lt;b&gt;</span>' in page.source
    assert r"seed 1 failed: CheckError: the loss is \| &lt;b&gt;" in sweep_markdown(record)


def test_a_sweep_that_has_just_begun_has_a_page(record, tmp_path):
    record["cells"] = [unfinished_cell(cell) for cell in record["cells"]]
    record["sets"] = {}
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    assert "No sparse network beside its dense one is done yet." in page.text
    assert page.figures == []
    assert "| seed-0/dense | not run |" in sweep_markdown(record)


def test_only_the_dense_network_is_done(record, tmp_path):
    record["cells"] = [c if c["kind"] == "dense" else unfinished_cell(c) for c in record["cells"]]
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    assert "No sparse network beside its dense one is done yet." in page.text
    assert "not run: seed 0, 1, 2" in page.text


def test_one_seed_and_no_recovery(tmp_path):
    recipe = RATIOS.model_copy(
        update={
            "seeds": (0,),
            "repeated_compressions": None,
            "structured_keep_ratios": (),
            "branches": (),
            "branch_compressions": (),
        }
    )
    record = ratio_record(ratios=recipe)
    record["recipe"]["sparsity"]["recovery"] = None
    for cell in record["cells"]:
        if cell["kind"] == "sparse":
            cell |= {"recovered": False, "evaluations": cell["before_recovery"]}
    sweep = read_ratios(record)
    assert sweep.main_phase is Phase.BEFORE
    page = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND))
    assert "AJI before recovery" in page.text
    assert "All of it comes from one dense training" in page.text
    assert "No network was trained after its cut." in page.text
    assert "No network was cut by whole filters." in not_run(record)
    assert "each branch pruned alone is not in this sweep" in page.text
    assert "layer-wise none of those tested" in ratio_findings(sweep, "test")[0].text
    assert SMALL in sweep.lines(Phase.BEFORE)


def test_a_single_case_has_means_and_no_intervals(tmp_path):
    record = drawn_record({("dense", 1): 0.6, ("layer", 4): 0.59, ("network", 4): 0.3}, cases=1)
    text = Page(write_sweep_page(record, tmp_path / "page.html", command=COMMAND)).text
    assert "A single case has no interval" in text
    assert "0.590 (1\xa0seed)" in text or "0.590 (1 seed)" in text
    assert comparisons_made(read_ratios(record)) == (0, 0)


def test_markdown_has_every_table(whole):
    text = sweep_markdown(whole)
    for heading in (
        "## nuclei_kumar test (14 cases)\n",
        "### Largest ratio with a loss under 2 % against “nothing removed, trained on”, beside the paper's layer-wise",
        "by metrics that its abstract does not name",
        "### AJI after recovery, by compression of the weights\n",
        "### Cut by whole filters, after recovery\n",
        "### Network-wide minus layer-wise\n",
        "### Layer-wise minus random masks\n",
        "### What is left, and what it takes on disk\n",
        "### Every cell\n",
        "## What was not run\n",
    ):
        assert heading in text
    widths = [{line.count(" | ") for line in block.splitlines()} for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    assert all(len(width) == 1 for width in widths)


def test_a_record_that_contradicts_itself_is_refused(record, tmp_path):
    set_values(record, "seed-0/layer-x5", "aji", [0.5])
    with pytest.raises(RecordError, match=r"'seed-0/layer-x5' has 1 values of 'aji' for the 14 cases of 'test'"):
        write_sweep_page(record, tmp_path / "page.html", command=COMMAND)
    assert list(tmp_path.iterdir()) == []


def test_a_record_with_a_set_that_it_does_not_name_is_refused(record, tmp_path):
    cell = cell_named(record, "seed-0/layer-x5")
    cell["evaluations"]["clinic-test"] = cell["evaluations"]["test"]
    with pytest.raises(
        RecordError, match="'seed-0/layer-x5' was measured on 'clinic-test', which is not among the sets"
    ):
        write_sweep_page(record, tmp_path / "page.html", command=COMMAND)


def test_the_committed_study_of_criteria_still_has_its_page(tmp_path):
    path = Path(__file__).parent.parent / "benchmarks/records/polyp_study/sweep.json"
    study = json.loads(path.read_text())
    page = Page(write_sweep_page(study, tmp_path / "page.html", command=COMMAND))
    assert "The leading criterion is the first of the recipe." in page.text
    assert "Largest ratio" not in page.text
    assert len(page.figures) > 4


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_every_figure(whole, tmp_path):
    out = write_sweep_page(whole, tmp_path / "page.html", command=COMMAND)
    assert browse(out, tmp_path / "profile").count('class="plot-container') == len(Page(out).figures)
