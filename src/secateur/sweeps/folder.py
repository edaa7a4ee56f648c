"""A sweep on disk: a run folder and a record beside it per cell, latencies, and locks between processes."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout

from secateur.errors import InputError
from secateur.measures import evaluation_name
from secateur.recipes.recipe import read_recipe
from secateur.records import Record, read_record, write_record
from secateur.session import Session, decisive
from secateur.sweeps.cells import Cell
from secateur.sweeps.plan import Plan

_BENCH = "bench.json"
_FRAMES = "frames.json"
_LOCKS = ".locks"
MEASURED = ("ids", "evaluations", "before_recovery")  # keys of a cell's record that hold something for every set


class Status(StrEnum):
    """How far a cell is; ``failed``: since this process began, earlier failures are tried again."""

    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"


@final
@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep.

    Attributes:
        path: of the folder.
        plan: what the sweep asks for.
        started: when this process began, in seconds since the epoch.
        done: records of cells that are done, by name. They are read and checked once: nobody changes them any more.
    """

    path: Path
    plan: Plan
    started: float
    done: dict[str, Record] = field(default_factory=dict)

    def require_fit(self, session: Session) -> None:
        """Refuse a folder that holds something else than a sweep that goes on so; nothing is written.

        Raises:
            InputError: it exists and ``session`` does not resume, or is no sweep's.
        """
        written = self.path / "recipe.yaml"
        taken = self.path.exists() and any(not entry.name.endswith(".part") for entry in self.path.iterdir())
        if taken and not session.resume and not session.overwrite:
            raise InputError(
                f"{self.path} exists; give another --out, --resume to go on, or --overwrite to begin again."
            )
        if taken and (not written.is_file() or (self.path / "run.json").exists()):
            raise InputError(f"{self.path} is not the folder of a sweep, so it is left as it is; give another --out.")

    def waiting(self) -> list[Cell]:
        """The cells that are not done.

        Raises:
            InputError: one was made with other settings.
        """
        return [cell for cell in self.plan.cells if self.status(cell) is not Status.DONE]

    def begin(self, session: Session) -> None:
        """Make the folder, emptied first where ``session`` overwrites it."""
        if session.overwrite and self.path.exists():
            shutil.rmtree(self.path)
        self.plan.recipe.write(self.path / "recipe.yaml")

    def status(self, cell: Cell) -> Status:
        """A cell is done when every measurement that the sweep asks for is there.

        Raises:
            InputError: it was made with other settings.
        """
        if cell.name in self.done:
            return Status.DONE
        record = self.read(cell)
        if record is None:
            return Status.WAITING
        if record["status"] == Status.FAILED:
            return Status.WAITING if self._record_path(cell).stat().st_mtime < self.started else Status.FAILED
        wanted = [record["evaluations"], *([record["before_recovery"]] if self.plan.has_before(cell) else [])]
        if any(label not in (found or {}) for found in wanted for label in self.plan.sets):
            return Status.WAITING
        self.done[cell.name] = record
        return Status.DONE

    def read(self, cell: Cell) -> Record | None:
        """What is recorded of a cell, without what was measured on another source of the same name.

        Raises:
            InputError: it was made with other settings than it has now.
        """
        if cell.name in self.done:
            return self.done[cell.name]
        record = _optional(self._record_path(cell))
        if record is None or not is_made(record):
            return record
        path = self.path / cell.name
        if decisive(read_recipe(path / "recipe.yaml"), record["kind"]) != decisive(cell.recipe, cell.role):
            raise InputError(
                f"{path} was made with other settings than this sweep has; give another --out, or the old settings."
            )
        sources = record.get("sources") or {  # older records leave it to the evaluations
            label: read_record(file).get("source")
            for label in record["ids"]
            if (file := path / evaluation_name(label)).is_file()
        }
        stale = {label for label, source in self.plan.sets.items() if label in sources and sources[label] != source}
        measured = {
            key: {label: found for label, found in record[key].items() if label not in stale}
            for key in MEASURED
            if record[key]
        }
        return {**record, "sources": sources, **measured}

    def write(self, cell: Cell, findings: Mapping[str, Any]) -> None:
        """Record what was found of a cell; its run folder is as it is."""
        write_record(self._record_path(cell), {**cell.record(), **findings})

    def bench(self) -> tuple[Record | None, Record | None]:
        """Latencies, and frame rates, if they were measured with the settings of now.

        A file that does not name its settings counts as measured with others: what it says itself leaves out for how
        long, and minutes are cheaper than a wrong number.
        """
        found = _optional(self.path / _BENCH)
        if found is None or found.get("settings") != self.plan.bench_settings:
            return None, None
        return found, _optional(self.path / _FRAMES)

    def write_bench(self, bench: Record, frames: Record | None) -> None:
        """Record both; the latencies last, since they say that all is there."""
        if frames is not None:
            write_record(self.path / _FRAMES, frames)
        write_record(self.path / _BENCH, {**bench, "settings": self.plan.bench_settings})

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Hold a cell while the block runs; False where another process has it. A killed process lets go of its own."""
        (self.path / _LOCKS).mkdir(exist_ok=True)
        lock = FileLock(self.path / _LOCKS / f"{name.replace('/', '.')}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _record_path(self, cell: Cell) -> Path:
        """Beside the run folder, which a cell that failed may not have."""
        return self.path / f"{cell.name}.json"


def is_made(record: Record) -> bool:
    """Whether a cell's network is there, and only measurements may be missing."""
    return "macs" in record


def _optional(path: Path) -> Record | None:
    return read_record(path) if path.is_file() else None
