"""The page of nuclei runs: AJI leads, sparse networks are described in words, and pictures show fates."""

import io
import json
import re
from base64 import b64decode

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from nuclei_report_fixtures import CUTS, SparseCut, make_nuclei_runs, sparse_record
from report_fixtures import edit_record, make_runs, parity_record
from secateur.errors import InputError, RecordError
from secateur.records import read_record, write_record
from secateur.report.intervals import paired_difference
from secateur.report.runs.cases import case_pairs
from secateur.report.runs.page import write_report
from secateur.report.runs.records import read_runs
from secateur.report.runs.sparsity import cut_findings, density_figure, stays
from secateur.report.runs.tables import markdown_table
from secateur.report.tasks.nuclei_pictures import FATE_COLOURS, tile_picture, worst_place
from secateur.report.tasks.views import VIEWS, view_of
from test_report_page import CHROMIUM, Page, browse

COMMAND = ("secateur", "report", "runs/dense")
NUCLEI = VIEWS["nuclei"]
DYING = SparseCut("network-64", "network", 64, 0.25, dead=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_nuclei_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return Page(write_report(runs, tmp_path_factory.mktemp("page") / "report.html", command=COMMAND))


def evaluation_of(folder):
    return read_record(folder / "evaluation.json")


def test_the_page_stands_alone_and_lacks_nothing_it_has(page):
    assert [address for address in page.addresses if not re.match(r"#|data:image/", address)] == []
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    for figure in page.figures:
        go.Figure(json.loads(re.sub(r'"var\(--[\w-]+\)"', '"#123456"', json.dumps(figure))))
    missing = re.findall(r"(\S+ has not been \w+)\.", page.text)
    assert missing == ["Latency has not been measured", *(f"{cut.name} has not been exported" for cut in CUTS)]
    for word in ("Dice case by case", "polyp", "Polyp", "frame"):
        assert word not in page.text


def test_aji_leads_with_its_paired_difference(page, runs):
    dense, cut = (evaluation_of(folder) for folder in runs[:2])
    change = paired_difference(dense, cut, metric="aji")
    before, after = (record["metrics"]["aji"]["mean"] for record in (dense, cut))
    assert f"Mean AJI goes from {before:.3f} to {after:.3f}" in page.text
    assert change.mean == pytest.approx(after - before)
    assert f"to \N{MINUS SIGN}{abs(change.high):.3f})." in page.text
    assert "segments worse" in page.text
    table = markdown_table(runs).splitlines()
    assert table[0].startswith("| Network | Weights or channels chosen by | Compression of weights | MACs (kept) |")
    assert "AJI [95 %]" in table[0]
    assert len({line.count(" | ") for line in table}) == 1


def test_nuclei_are_counted_by_what_became_of_them(page, runs):
    nuclei = evaluation_of(runs[1])["nuclei"]
    lost, merged, split = (nuclei[f"{fate}_by_cut"] for fate in ("lost", "merged", "split"))
    verbs = ["is" if count == 1 else "are" for count in (lost, merged, split)]
    sentence = (
        f"Of {nuclei['kept_by_dense']} nuclei that the dense network kept, {lost} {verbs[0]} lost, {merged} {verbs[1]} "
        f"merged and {split} {verbs[2]} split now."
    )
    assert lost > 0
    assert sentence in page.text
    assert f"{lost}, {merged}, {split} of {nuclei['kept_by_dense']}" in page.text


def test_each_branch_has_its_own_paired_interval(page, runs):
    dense, cut = (evaluation_of(folder) for folder in runs[:2])
    for key, name, digits in (("distance_mse", "distance MSE", 4), ("distance_correlation", "distance correlation", 3)):
        change = paired_difference(dense, cut, metric=key)
        before, after = (record["metrics"][key]["mean"] for record in (dense, cut))
        signed = f"{change.mean:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
        assert f"{name} {before:.{digits}f} to {after:.{digits}f} ({signed}, 95 % interval" in page.text


def test_a_branch_that_collapsed_is_not_passed_over(tmp_path):
    def broken(metrics, cases, key, values, mean):
        metrics[key] |= {"mean": mean, "n": sum(value is not None for value in values), "undefined": values.count(None)}
        for case, value in zip(cases, values, strict=True):
            case[key] = value

    dense, cut, *_ = make_nuclei_runs(tmp_path)
    record = evaluation_of(cut)
    gone = [None] * len(record["cases"])
    broken(record["metrics"], record["cases"], "semantic_dice", [0.0] * len(gone), 0.0)
    broken(record["metrics"], record["cases"], "distance_correlation", gone, None)
    write_record(cut / "evaluation.json", record)
    text = Page(write_report([dense, cut], tmp_path / "page.html", command=COMMAND)).text
    metrics = evaluation_of(dense)["metrics"]
    dice, correlation = (metrics[key]["mean"] for key in ("semantic_dice", "distance_correlation"))
    assert f"emantic Dice {dice:.3f} to 0.000 (\N{MINUS SIGN}" in text
    assert f"distance correlation {correlation:.3f} to n/a, undefined in 0 and {len(gone)} cases" in text


def test_what_was_cut_is_said_in_words(page, runs):
    prune = read_record(runs[1] / "prune.json")
    masks = prune["masks"]
    assert f"layer-16 keeps {masks['kept']:,} of the {masks['weights']:,} weights that may go" in page.text
    assert "compression 16\N{MULTIPLICATION SIGN}, layer-wise (the same share of every layer)" in page.text
    assert "Every filter has a weight left, so none could leave" in page.text
    assert "Zeros alone do not make a CPU faster" in page.text
    assert "No filter left, so there was nothing to prove." in page.text
    sizes = prune["sizes"]
    assert f"{sizes['compressed_bytes'] / 1e6:.3g}\N{NO-BREAK SPACE}MB as a sparse file" in page.source


def test_layers_that_died_and_filters_that_left_are_named():
    prune = sparse_record(DYING)
    died = prune["masks"]["dead"]
    found = {finding.topic: finding for finding in cut_findings("net", prune)}
    assert died
    assert all(name in found["Layers that died"].text for name in died)
    assert found["Layers that died"].good is False
    assert "7 filters had no weight left; 6 filters left for real" in found["What left for real"].text
    figure = density_figure(prune["masks"])
    names = [layer["name"] for layer in prune["masks"]["layers"]]
    assert [names[number - 1] for number in figure["data"][1]["x"]] == died
    assert [(each.group, each.filters) for each in stays(prune)] == [("semantic.levels.1.conv", 1)]
    assert len(density_figure(sparse_record(CUTS[0])["masks"])["data"]) == 1


def test_layers_that_keep_one_weight_are_named():
    prune = sparse_record(CUTS[0])
    prune["masks"]["layers"][0]["kept"] = 1
    topics = {finding.topic: finding.text for finding in cut_findings("net", prune)}
    assert topics["Layers that keep one weight"] == f"{prune['masks']['layers'][0]['name']}."


def test_branches_and_chance_are_named():
    prune = sparse_record(CUTS[0]) | {"branches": ["semantic"], "criterion": "random", "outputs": True}
    text = cut_findings("net", prune)[0].text
    assert "in semantic alone" in text
    assert "weights drawn at random" in text
    assert text.endswith("Biases and norms stay whole.")


def test_proof_of_filters_that_left_is_on_the_page(page):
    assert "Without its dead filters the network gives the same outputs as with them" in page.text
    assert "largest difference 8.9e-16" in page.text
    assert "it carries the constants that others read" in page.text


def test_seconds_add_up(page):
    (figure,) = [figure for figure in page.figures if figure["layout"].get("barmode") == "stack"]
    assert [trace["name"] for trace in figure["data"]] == ["read", "network", "merge", "metrics"]
    assert sum(trace["x"][0] for trace in figure["data"]) == pytest.approx(1.22)
    assert "dense: merging and metrics take 24.6 %" in page.text


def test_the_validation_score_is_found_whatever_its_name(page):
    (figure,) = [f for f in page.figures if f["layout"]["yaxis"]["title"]["text"] == "mean of Dice and correlation"]
    assert figure["data"][0]["y"][-1] == pytest.approx(0.74 - 0.5 / 12)
    assert "validation mean of Dice and correlation 0.741" in page.text


def test_the_largest_fall_in_aji_comes_first(runs):
    dense, cut = (evaluation_of(folder) for folder in runs[:2])
    pairs = case_pairs(dense, cut, NUCLEI)
    changes = [pair.change for pair in pairs]
    assert changes == sorted(changes)
    assert "lost" in pairs[0].badge
    assert "by the cut" in pairs[0].badge


def test_an_export_is_judged_by_its_numbers_and_its_mask(tmp_path):
    folders = make_nuclei_runs(tmp_path, cuts=CUTS[:1], images=False)
    write_record(folders[1] / "export/parity.json", parity_record(0.1))
    page = Page(write_report(folders, tmp_path / "page.html", command=COMMAND))
    assert "no number is off by more than 4.0e-05 (allowed: 1.0e-03)" in page.text
    assert "Flipped pixels" in page.text
    assert "Pictures of 3 of these cases are missing." in page.text


def test_runs_of_two_tasks_are_refused(tmp_path, runs):
    folders = make_runs(tmp_path, cuts=())
    with pytest.raises(InputError, match="several tasks, 'dense' of polyp"):
        view_of((*read_runs(folders), *read_runs(runs[:1])))
    edit_record(folders[0] / "run.json", task="volume")
    with pytest.raises(RecordError, match="no page for the task 'volume'; there is one for polyp, nuclei"):
        write_report(folders, tmp_path / "page.html", command=COMMAND)


def picture(address):
    with Image.open(io.BytesIO(b64decode(address.split(",", 1)[1]))) as file:
        return np.asarray(file.convert("RGBA"))


@pytest.fixture
def drawn(tmp_path):
    """A tile of 400x500: a nucleus is kept, one lost by the cut, four elsewhere by both; one is spurious in the cut."""
    truth = np.zeros((400, 500), np.uint16)
    truth[20:40, 20:40], truth[350:370, 430:450], truth[20:40, 300:320] = 1, 2, 3
    for number in range(3):
        truth[60:80, 300 + 40 * number : 320 + 40 * number] = 4 + number
    dense, pruned = np.where(truth >= 3, 0, truth), np.where(truth == 1, 1, 0)
    pruned[300:310, 400:410] = 9
    for name, labels in (("dense", dense), ("pruned", pruned)):
        (tmp_path / name).mkdir()
        Image.fromarray(labels.astype(np.uint16)).save(tmp_path / name / "a.png")
    Image.fromarray(truth).save(tmp_path / "dense/a_truth.png")
    Image.fromarray(np.full((400, 500, 3), 200, np.uint8)).save(tmp_path / "dense/a_image.jpg")
    return {name: tmp_path / name for name in ("dense", "pruned")}


def test_a_large_tile_is_shown_where_the_cut_did_harm(drawn):
    found = tile_picture("a", **drawn)
    assert (found.width, found.height, found.whole) == (256, 256, False)
    assert 370 - 256 <= found.top <= 350
    assert 450 - 256 <= found.left <= 430
    assert picture(found.image).shape[:2] == (256, 256)


def test_pictures_show_fates_by_colour(drawn):
    found = tile_picture("a", **drawn)
    before, after = picture(found.dense), picture(found.pruned)
    fine = before.shape[0] // 256
    row, column = (350 - found.top) * fine, (430 - found.left) * fine  # first pixel of the nucleus lost by the cut
    assert tuple(before[row, column]) == (*FATE_COLOURS["kept"], 255)
    assert tuple(after[row, column]) == (*FATE_COLOURS["lost"], 255)
    middle = (row + 10 * fine, column + 10 * fine)
    assert before[middle][3] == 0
    assert tuple(after[middle][:3]) == FATE_COLOURS["lost"]
    assert 0 < after[middle][3] < 255
    assert tuple(picture(found.truth)[row, column]) == (255, 255, 255, 255)
    row, column = (300 - found.top) * fine, (400 - found.left) * fine
    assert tuple(after[row, column]) == (*FATE_COLOURS["spurious"], 255)
    assert after[row + 5 * fine, column + 5 * fine][3] == 0


def test_colours_are_apart():
    colours = np.array(list(FATE_COLOURS.values()), float)
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1) + 255 * np.eye(len(colours))
    assert apart.min() > 90


def test_a_tile_that_fits_is_shown_whole(runs):
    found = tile_picture("tile-0", dense=runs[0] / "predictions/test", pruned=runs[1] / "predictions/test")
    assert (found.left, found.top, found.width, found.height, found.whole) == (0, 0, 128, 128, True)


def test_pictures_are_small(tmp_path):
    dense, pruned = make_nuclei_runs(tmp_path, cuts=CUTS[:1], tiles=1, side=512)
    found = tile_picture("tile-0", dense=dense / "predictions/test", pruned=pruned / "predictions/test")
    assert sum(len(getattr(found, layer)) for layer in ("image", "truth", "dense", "pruned")) < 100_000


@pytest.mark.parametrize(
    ("points", "place"),
    [
        ({}, (50, 70)),  # nothing: the middle
        ({(0, 0): 1.0}, (0, 0)),
        ({(149, 199): 1.0}, (100, 140)),
        ({(0, 0): 1.0, (140, 190): 1.0, (149, 199): 1.0}, (100, 140)),
    ],
)
def test_the_window_with_most_harm_is_found(points, place):
    weights = np.zeros((150, 200))
    for point, weight in points.items():
        weights[point] = weight
    top, left = worst_place(weights, 50, 60)
    inside = sum(weight for (row, column), weight in points.items() if 0 <= row - top < 50 and 0 <= column - left < 60)
    best = 2.0 if len(points) == 3 else float(len(points))
    assert inside == best
    if not points:
        assert (top, left) == pytest.approx(place, abs=4)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_every_figure(runs, tmp_path):
    out = write_report(runs[:2], tmp_path / "page.html", command=COMMAND)
    assert browse(out, tmp_path / "profile").count('class="plot-container') == len(Page(out).figures)
