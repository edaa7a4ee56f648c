"""Sentences say what the numbers say, and no more."""

from dataclasses import replace

import pytest

from report_fixtures import CUTS, parity_record, prune_record
from secateur.report import rounding
from secateur.report.findings import caution
from secateur.report.intervals import Interval
from secateur.report.rows import SummaryRow
from secateur.report.runs.wording import findings, tiles
from secateur.report.tasks.views import VIEWS

GAP = "\N{NO-BREAK SPACE}"
POLYP = VIEWS["polyp"]
MINUS = "\N{MINUS SIGN}"


def row(**known) -> SummaryRow:
    names = SummaryRow.__dataclass_fields__
    return SummaryRow(**(dict.fromkeys(names) | {"name": "net", "latency": {}} | known))


def cost_of(low: float, high: float, view=POLYP) -> tuple[str, bool | None]:
    dense = row(score=Interval(0.871, 0.85, 0.89, 100))
    pruned = row(score=Interval(0.862, 0.84, 0.88, 100), score_difference=Interval(-0.009, low, high, 100))
    (finding,) = findings(view, dense, pruned, parity=None)
    return finding.text, finding.good


def test_a_drop_is_called_one():
    text, good = cost_of(-0.015, -0.003)
    assert "from 0.871 to 0.862" in text
    assert f"{MINUS}0.015 to {MINUS}0.003" in text
    assert "segments worse" in text
    assert good is False


def test_an_interval_around_zero_is_neither_good_nor_bad():
    text, good = cost_of(-0.021, 0.003)
    assert "contains zero" in text
    assert f"as large as {MINUS}0.021 is not ruled out" in text
    assert good is None


def test_a_gain_is_called_one():
    text, good = cost_of(0.001, 0.02)
    assert "segments better" in text
    assert good is True


@pytest.mark.parametrize(
    ("low", "high", "words", "good"),
    [
        (0.001, 0.02, "above zero: on average the pruned network segments worse", False),
        (-0.02, -0.001, "below zero: on average the pruned network segments better", True),
        (-0.02, 0.003, "as large as +0.003 is not ruled out", None),
    ],
)
def test_a_metric_that_should_fall_is_judged_the_other_way(low, high, words, good):
    distance = replace(POLYP, leading=replace(POLYP.leading, lower_is_better=True))
    text, found = cost_of(low, high, distance)
    assert words in text
    assert found is good


@pytest.mark.parametrize(("lost", "words", "good"), [(0, "0 are lost", None), (1, "1 is lost", False)])
def test_lost_polyps_are_counted_among_those_found(lost, words, good):
    (finding,) = findings(POLYP, row(), row(evaluation={"polyps": {"lost": lost, "seen_by_dense": 98}}), parity=None)
    assert f"Of 98 polyps that the dense network found, {words}." in finding.text
    assert finding.good is good


def test_failed_checks_are_said_to_have_failed():
    proof = prune_record(CUTS[0])["proof"] | {"passed": False, "max_abs_diff": 0.5}
    found = findings(
        POLYP, row(), row(prune=prune_record(CUTS[0]) | {"proof": proof}), parity=parity_record(0.1) | {"passed": False}
    )
    assert [(finding.topic, finding.good) for finding in found] == [("Proof failed", False), ("Export failed", False)]
    assert "does not give the outputs" in found[0].text


def test_tiles_compare_with_the_dense_network():
    (tile,) = tiles(POLYP, row(macs=19_830_000_000), row(macs=1_963_170_000))
    assert (tile.value, tile.comparison) == (f"1.96{GAP}G", f"9.9{GAP}% of the dense 19.8{GAP}G")
    assert tile.share == pytest.approx(0.099)


def test_few_cases_are_cautioned_against():
    assert caution(20) is None
    assert "Only 19 cases" in caution(19)
    assert "single case" in caution(1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (rounding.signed(-0.0004), "0.000"),
        (rounding.signed(0.0126), "+0.013"),
        (rounding.three_digits(1234.4), "1,234"),
        (rounding.three_digits(0.00001234), "1.2e-05"),
        (rounding.counted(999), "999"),
        (rounding.counted(7_932_417), f"7.93{GAP}M"),
        (rounding.percent(0.1), f"10{GAP}%"),
        (rounding.score(None), "n/a"),
        (rounding.tiny(None), "not finite"),
    ],
)
def test_numbers_are_rounded(written, expected):
    assert written == expected
