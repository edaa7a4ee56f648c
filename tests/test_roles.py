"""What sets a network apart goes through records, whose keys stay as they are."""

import json
from pathlib import Path

import pytest

from secateur.errors import RecordError
from secateur.records import read_record
from secateur.roles import (
    Distilled,
    Match,
    Role,
    Sampled,
    Scratch,
    Small,
    Weights,
    variant_from_record,
    variant_to_record,
)

_RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"


@pytest.mark.parametrize(
    ("variant", "record"),
    [
        (None, None),
        (Distilled(), {"kind": "distilled"}),
        (Sampled(4), {"kind": "samples", "samples": 4}),
        (Scratch(90, Match.MACS), {"kind": "scratch", "epochs": 90, "matched": "macs"}),
        (
            Weights("layer", 16.0, "magnitude"),
            {"kind": "weights", "scope": "layer", "compression": 16.0, "score": "magnitude"},
        ),
        (
            Weights("layer", 16.0, "magnitude", "semantic"),
            {"kind": "weights", "scope": "layer", "compression": 16.0, "score": "magnitude", "branch": "semantic"},
        ),
        (Small(5.0, 27), {"kind": "small", "compression": 5.0, "epochs": 27}),
    ],
)
def test_a_variant_goes_through_its_record(variant, record):
    written = json.loads(json.dumps(variant_to_record(variant)))
    assert written == record
    assert variant_from_record(written) == variant


@pytest.mark.parametrize("study", ["polyp_study", "nuclei_kumar"])
def test_every_variant_of_the_committed_studies_is_known(study):
    for cell in read_record(_RECORDS / study / "sweep.json")["cells"]:
        assert variant_to_record(variant_from_record(cell["variant"])) == cell["variant"]
        assert Role(cell["kind"])


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "grafted"},
        {},
        {"kind": "samples"},
        {"kind": "distilled", "epochs": 3},
        {"kind": "scratch", "epochs": 3, "matched": "hours"},
    ],
)
def test_an_unknown_variant_is_refused_with_those_that_are_known(record):
    with pytest.raises(RecordError, match="known kinds: distilled, samples, scratch, weights, small"):
        variant_from_record(record)
