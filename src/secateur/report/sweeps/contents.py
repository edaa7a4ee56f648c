"""What the pages of all sweeps show alike, whatever is compared."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from secateur.records import Record
from secateur.report.findings import SYNTHETIC, Finding, caution
from secateur.report.sweeps.record import cells_table, progress, seconds_text, set_name, surroundings


def contents(
    record: Record, *, expected: Mapping[str, str], score: str, findings: Callable[[str], Sequence[Finding]]
) -> dict[str, Any]:  # the template's variables
    """What is there and what is not, findings set by set, every cell, the recipe.

    Args:
        record: ``sweep.json``.
        expected: words for what should have been measured, by key of the record.
        score: what checkpoints are chosen by, in words.
        findings: those of a set, by its label.
    """
    found = [(set_name(record, label), findings(label)) for label in record["sets"]]
    few = (caution(len(each["ids"])) for each in record["sets"].values())
    return {
        "title": f"Sweep: {record['name']}",
        "synthetic": SYNTHETIC if record["synthetic"] else None,
        "record": record,
        "progress": progress(record, expected=expected),
        "failures": [cell for cell in record["cells"] if cell["status"] == "failed"],
        "findings": [(name, each) for name, each in found if each],
        "cautions": list(dict.fromkeys(text for text in few if text)),
        "cells": cells_table(record["cells"], score=score),
        "seconds": seconds_text(record["cells"]),
        "recipe": yaml.safe_dump(record["recipe"], sort_keys=False),
    }


def protocol(
    record: Record,
    *,
    seeds: Sequence[int],
    compared: Mapping[str, str],
    recovery: Record | None,
    cut: Mapping[str, str],
    frames: str,
) -> list[tuple[str, str]]:
    """How the networks were made and measured, a line each: name and text.

    Args:
        record: ``sweep.json``.
        seeds: of the dense trainings.
        compared: lines about what is compared, and
        cut: about how networks are cut.
        recovery: settings of the training after a cut; None without one.
        frames: what the network sees, in words: "windows", "network input".
    """
    recipe = record["recipe"]
    return [
        ("Seeds", ", ".join(str(seed) for seed in seeds)),
        *compared.items(),
        ("Dense training", f"{recipe['training']['epochs']} epochs"),
        ("Recovery", f"{recovery['epochs']} epochs" if recovery else "none"),
        *cut.items(),
        ("Trained on", f"{recipe['data']['source']}, {frames} of {recipe['data']['size']} pixels a side"),
        ("Evaluated on", "; ".join(set_name(record, label) for label in record["sets"])),
        *surroundings(record),
    ]
