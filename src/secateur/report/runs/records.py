"""Run folders as the report sees them: their records, and nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import InputError, RecordError
from secateur.records import Record, read_record
from secateur.report.timings import Setup, Timing, timings_beside


@dataclass(frozen=True)
class Run:
    """The records of one run folder; a record that is not there is None, and its part of the page says so."""

    folder: Path
    info: Record
    prune: Record | None
    evaluation: Record | None
    bench: Record | None
    parity: Record | None
    epochs: tuple[Record, ...]

    @property
    def name(self) -> str:
        """Name of the run, which is also its name in bench records."""
        return str(self.info["name"])


def validation_score(record: Record, *, prefix: str = "val_", suffix: str = "") -> float | None:
    """The validation score of a record, whose key ends or goes on with the name of the task's score.

    Args:
        record: of an epoch, a round or a training.
        prefix: what the key begins with.
        suffix: what it ends with.
    """
    found = [value for key, value in record.items() if key.startswith(prefix) and key.endswith(suffix)]
    return None if not found else found[0]


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Read the records of run folders, the dense run first.

    Raises:
        InputError: no folder, a first run that is not dense, or two runs of one name.
        RecordError: a folder without ``run.json``, an unreadable record, or evaluations of different cases.
    """
    if not folders:
        raise InputError("no run folder was given; give the dense run's folder, then those of pruned runs.")
    runs = tuple(_read_run(Path(folder)) for folder in folders)
    first = runs[0]
    if first.info["role"] != "dense":
        raise InputError(
            f"the first run, '{first.name}', has the role {first.info['role']!r}; "
            f"give the dense run first (the parent of '{first.name}' is {first.info['parent']!r})."
        )
    seen: dict[str, Path] = {}
    for run in runs:
        if run.name in seen:
            raise InputError(
                f"{seen[run.name]} and {run.folder} are both named '{run.name}', so their latencies cannot "
                "be told apart; give each folder once, and each run a name of its own."
            )
        seen[run.name] = run.folder
    _check_same_cases(runs)
    return runs


def read_timings(runs: Sequence[Run]) -> dict[Setup, dict[str, Timing]]:
    """Latencies by setup and run name, from every bench record of the runs; see `timings_beside`."""
    return timings_beside(runs[0].name, [run.bench for run in runs if run.bench is not None])


def _read_run(folder: Path) -> Run:
    def optional(name: str) -> Record | None:
        return read_record(folder / name) if (folder / name).exists() else None

    info = read_record(folder / "run.json")
    if "training" not in info:
        raise RecordError(
            f"the run in {folder} has no training in it: go on with --resume, or it was pruned without data."
        )
    return Run(
        folder=folder,
        info=info,
        prune=optional("prune.json"),
        evaluation=optional("evaluation.json"),
        bench=optional("bench.json"),
        parity=optional("export/parity.json"),
        epochs=_read_epochs(folder / "metrics.jsonl"),
    )


def _read_epochs(path: Path) -> tuple[Record, ...]:
    if not path.exists():
        return ()
    epochs: list[Record] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            epochs.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}, line {number}, is not JSON ({error}); resume training.") from error
    return tuple(epochs)


def _check_same_cases(runs: Sequence[Run]) -> None:
    """Differences are paired by case, so every evaluation must be of the same cases."""
    evaluated = [(run.name, run.evaluation) for run in runs if run.evaluation is not None]
    for name, record in evaluated[1:]:
        first, reference = evaluated[0]
        found, wanted = ({case["id"] for case in cases} for cases in (record["cases"], reference["cases"]))
        if (record["split"], found) != (reference["split"], wanted):
            raise RecordError(
                f"'{name}' was evaluated on {len(found)} cases of '{record['split']}' and '{first}' on "
                f"{len(wanted)} of '{reference['split']}', {len(found & wanted)} of them the same; "
                "run `secateur evaluate` on the same split for both."
            )
