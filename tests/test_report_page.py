"""The page stands alone, says what is missing, and repeats nothing that the records do not say."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from report_fixtures import CUTS, edit_record, make_runs
from secateur.errors import RecordError
from secateur.report.findings import SYNTHETIC
from secateur.report.runs.page import write_report

COMMAND = ("secateur", "report", "runs/dense", "runs/a b")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """What a test asks of a page: addresses, ids, references, figures and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.figures: list[dict] = []
        self.words: list[str] = []
        self.source = path.read_text().replace(get_plotlyjs(), "")
        self._silent = False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}:
                self.addresses.append(value)
            elif name == "id":
                self.ids.append(value)
            elif name == "data-figure":
                self.figures.append(json.loads(value))
        self._silent = tag in {"style", "script"}

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        if not self._silent:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return Page(write_report(runs, tmp_path_factory.mktemp("page") / "report.html", command=COMMAND))


def test_nothing_is_fetched(page):
    outside = [address for address in page.addresses if not re.match(r"#|data:image/", address)]
    assert outside == []
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert re.search(r'Content-Security-Policy" content="default-src \'none\';', page.source)


def test_every_reference_has_its_target_once(page):
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    named = re.findall(r'aria-(?:labelledby|controls)="([^"]+)"', page.source)
    assert set(named) <= set(page.ids)


def test_figures_are_what_plotly_understands(page):
    assert len(page.figures) == 1 + 3 + 2 + 2 * len(CUTS)
    for figure in page.figures:
        go.Figure(json.loads(re.sub(r'"var\(--[\w-]+\)"', '"#123456"', json.dumps(figure))))


def test_intervals_are_the_error_bars(page, runs):
    dice = json.loads((runs[0] / "evaluation.json").read_text())["metrics"]["dice"]
    dense = page.figures[0]["data"][0]
    assert (dense["name"], dense["x"], dense["y"]) == ("dense", [19.83], [dice["mean"]])
    low = dense["y"][0] - dense["error_y"]["arrayminus"][0]
    high = dense["y"][0] + dense["error_y"]["array"][0]
    assert [low, high] == pytest.approx(dice["ci95"])
    left, right = page.figures[0]["layout"]["xaxis"]["range"]
    assert all(10**left < x < 10**right for trace in page.figures[0]["data"] for x in trace["x"])


def colours(style: str) -> dict[str, str]:
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", style))


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_both_themes_define_and_contrast_every_colour(page):
    light, dark = (colours(block) for block in re.findall(r":root \{(.*?)\}", page.source, re.DOTALL))
    used = set(re.findall(r"var\((--[\w-]+)\)", page.source))
    for theme in (light, dark):
        assert used <= set(theme)
        readable = ["--ink", "--muted", "--good", "--bad", "--dense", *(f"--series-{n}" for n in range(1, 6))]
        for name in readable:
            high, low = sorted((luminance(theme[name]), luminance(theme["--card"])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_the_banner_is_there_for_synthetic_data_alone(page, tmp_path):
    assert SYNTHETIC in page.text
    folders = make_runs(tmp_path, cuts=CUTS[:1])
    for folder in folders:
        edit_record(folder / "run.json", synthetic=False)
    assert SYNTHETIC not in Page(write_report(folders, tmp_path / "page.html", command=COMMAND)).text


def test_every_metric_is_on_the_page_and_defined(page, runs):
    recall = json.loads((runs[1] / "evaluation.json").read_text())["metrics"]["recall"]
    low, high = recall["ci95"]
    assert f"{recall['mean']:.3f} ({recall['std']:.3f}) [{low:.3f}, {high:.3f}]" in page.text
    for term in ("Dice", "IoU, precision, recall", "HD95", "Polyp lost", "False-polyp frame", "MACs", "Proof"):
        assert f"<dt>{term}" in page.source


def test_proof_pins_and_commands_are_on_the_page(page):
    assert "differ by at most 3.1e-14" in page.text
    assert "output_block.conv 1 the network's output" in page.text
    assert "secateur report runs/dense 'runs/a b'" in page.text
    assert "secateur train" in page.text


def test_units_stand_beside_channels_where_they_differ(tmp_path, page):
    folders = make_runs(tmp_path, cuts=CUTS[:1])
    edit_record(folders[1] / "prune.json", groups=[{"id": "stem", "width": 32, "units": 8, "kept": 16}])
    assert "stem 32 in 8 units 16 (50 %)" in Page(write_report(folders, tmp_path / "page.html", command=COMMAND)).text
    assert " in 8 units" not in page.text


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ("prune.json", "There is no pruning record, hence no proof. This makes it: secateur prune"),
        ("evaluation.json", "taylor-10 has not been evaluated. This makes it: secateur evaluate"),
        ("export/parity.json", "taylor-10 has not been exported. This makes it: secateur export"),
        ("predictions/test/case-003.png", "Pictures of 1 of these cases are missing. This makes it: secateur evaluate"),
        ("../dense/bench.json", "Latency has not been measured. This makes it: secateur bench"),
    ],
)
def test_what_is_missing_is_named_with_its_command(tmp_path, record, sentence):
    folders = make_runs(tmp_path, cuts=CUTS[:1])
    (folders[1] / record).unlink()
    text = Page(write_report(folders, tmp_path / "page.html", command=COMMAND)).text
    assert sentence in text


def test_nothing_is_called_missing_where_all_is_there(page):
    assert "This makes it" not in page.text


def test_a_dense_run_alone_has_a_page(tmp_path):
    (folder,) = make_runs(tmp_path, cuts=())
    (folder / "metrics.jsonl").unlink()
    text = Page(write_report([folder], tmp_path / "page.html", command=COMMAND, title="Mine")).text
    assert "Mine" in text
    assert "There are no training curves. This makes it: secateur train" in text
    assert "No pruned network is shown. This makes it: secateur prune" in text


def test_names_are_text_not_markup(tmp_path):
    hostile = "<img src=x onerror=alert(1)>'\""
    folders = make_runs(tmp_path, cuts=[replace(CUTS[0], criterion=hostile)])
    edit_record(folders[1] / "run.json", name=hostile)
    page = Page(write_report(folders, tmp_path / "page.html", command=(hostile,), title=hostile))
    assert "<img" not in page.source
    assert hostile in page.text


def test_a_failure_leaves_the_old_page(runs, tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    out.write_text("old")
    with pytest.raises(RecordError):
        write_report([*runs, tmp_path], out, command=COMMAND)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(runs, out, command=COMMAND)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_importing_the_page_loads_no_extra():
    code = "import sys, secateur.report.runs.page; sys.exit(any(name in sys.modules for name in ('plotly', 'jinja2')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def browse(page, profile) -> str:
    """The page's elements after a browser ran its scripts without an error."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    shown = subprocess.run(
        [CHROMIUM, *flags, "--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Content Security Policy" not in shown.stderr
    assert "Uncaught" not in shown.stderr
    return shown.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_every_figure(runs, tmp_path):
    out = write_report(runs[:2], tmp_path / "page.html", command=COMMAND)
    assert browse(out, tmp_path / "profile").count('class="plot-container') == len(Page(out).figures)
