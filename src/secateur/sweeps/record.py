"""``sweep.json``: one record of all that a sweep found, and the page and the tables made from it."""

from datetime import UTC, datetime
from pathlib import Path

from secateur.errors import RecordError
from secateur.recipes.recipe import parse_recipe
from secateur.records import Record, read_record, write_record
from secateur.report.sweeps.page import sweep_markdown, write_sweep_page
from secateur.session import Session
from secateur.store.runs import surroundings
from secateur.sweeps.cells import Cell
from secateur.sweeps.folder import MEASURED, Status, SweepFolder

RECORD = "sweep.json"
PAGE = "report.html"


def publish(folder: SweepFolder, command: list[str]) -> Record:
    """Write the record of a sweep as far as it has come, and its page."""
    record = _collect(folder, command)
    write_record(folder.path / RECORD, record)
    write_sweep_page(record, folder.path / PAGE, command=command)
    return record


def read_sweep(folder: Path) -> Record:
    """The record of the sweep in ``folder``; settings that its recipe did not have yet have their defaults.

    Raises:
        RecordError: it is missing, unreadable or of another kind.
        RecipeError: its recipe is none.
    """
    path = folder / RECORD
    record = read_record(path)
    if "recipe" not in record:
        raise RecordError(f"{path} has no recipe; give the folder of a `secateur sweep`.")
    return {**record, "recipe": parse_recipe(record["recipe"], str(path)).model_dump(mode="json")}


def report_sweep(folder: Path, out: Path, session: Session) -> Path:
    """Write the page about the sweep in ``folder`` from its record alone."""
    return write_sweep_page(read_sweep(folder), out, command=session.command)


def sweep_tables(folder: Path) -> str:
    """The tables of the sweep in ``folder`` as Markdown."""
    return sweep_markdown(read_sweep(folder))


def _collect(folder: SweepFolder, command: list[str]) -> Record:
    """Recipe, sets, cells, latency: what the sweep asks for and no more, as far as it is there."""
    recipe = folder.plan.recipe
    entries = [_entry(folder, cell) for cell in folder.plan.cells]
    ids: Record = {}
    for entry in entries:
        ids = {**entry.pop("ids", {}), **ids}
    bench, frames = folder.bench()
    return {
        "name": folder.path.resolve().name,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
        "synthetic": recipe.data.synthetic,
        "recipe": recipe.model_dump(mode="json"),
        "sets": {
            label: {"source": Path(source or recipe.data.source).name, "split": "test", "ids": ids[label]}
            for label, source in folder.plan.sets.items()
            if label in ids
        },
        "cells": entries,
        "bench": bench,
        "frames": frames,
    }


def _entry(folder: SweepFolder, cell: Cell) -> Record:
    found = folder.read(cell)
    if found is None:
        return {**cell.record(), "status": Status.WAITING.value, "error": None, "seconds": None}
    entry = {key: value for key, value in found.items() if key not in ("schema", "sources")}
    for key in MEASURED:
        if entry.get(key):
            wanted = folder.plan.sets if key != "before_recovery" or folder.plan.has_before(cell) else ()
            entry[key] = {label: entry[key][label] for label in wanted if label in entry[key]}
    return entry
