"""What every sweep records, whatever it compares: sets, cells, latency, how it was made."""

from collections.abc import Mapping, Sequence

from secateur.records import Record
from secateur.report import rounding
from secateur.report.findings import Finding
from secateur.report.runs.records import validation_score
from secateur.report.sweeps.grid import Cell, Part, Table, error_text, plain
from secateur.report.timings import Setup, Timing, latency_text, timings_beside
from secateur.roles import Role


def set_name(record: Record, label: str) -> str:
    """Source and split of an evaluated set, with its number of cases."""
    found = record["sets"][label]
    return f"{found['source']} {found['split']} ({len(found['ids'])} cases)"


def read_latencies(record: Record) -> dict[Setup, dict[str, Timing]]:
    """Latencies by setup and cell, speed-ups against the first network timed; empty where none was."""
    benches = (record["bench"] or {}).get("benches", [])
    return timings_beside(benches[0]["models"][0]["name"], [record["bench"]]) if benches else {}


def progress(record: Record, *, expected: Mapping[str, str]) -> list[Finding]:
    """What is not there: cells that failed or were not run, and what of ``expected``, words by key, has no record."""
    states = [cell["status"] for cell in record["cells"]]
    failed, waiting = states.count("failed"), states.count("waiting")
    found = []
    if failed or waiting:
        text = f"{states.count('done')} of {len(states)} cells are done, {failed} failed, {waiting} not run."
        found.append(Finding("This sweep is not complete", text, good=False))
    missing = [words for key, words in expected.items() if not record[key]]
    return found + ([Finding("Not measured", f"There is no record of {' and '.join(missing)}.")] if missing else [])


def latency_table(record: Record, labels: Mapping[str, str]) -> Table | None:
    """Median milliseconds and speed-up of every timed network, a column per runtime and precision."""
    latencies = read_latencies(record)
    if not latencies:
        return None
    first = next(iter(latencies.values()))
    dense = next(iter(first.values()))
    header = ("Network", "MACs (kept)", "File size", *(setup.label for setup in latencies))
    rows = tuple(
        (
            plain(labels.get(name, name)),
            plain(f"{rounding.counted(timing.macs)} ({rounding.percent(timing.macs / dense.macs)})"),
            plain(rounding.megabytes(timing.size_bytes)),
            *(plain(latency_text(timings.get(name))) for timings in latencies.values()),
        )
        for name, timing in first.items()
    )
    return Table("Latency: median (speed-up)", header, rows)


def frames_table(record: Record, labels: Mapping[str, str]) -> Table | None:
    """Frames per second and the median milliseconds of each step, from decoded frame to overlay."""
    frames = record["frames"]
    if not frames:
        return None
    steps = ("prepare", "network", "overlay", "total")
    header = ("Network", "Runtime", "Precision", "Frames per second", *(f"{step}, ms" for step in steps))
    rows = tuple(
        (
            plain(labels.get(row["name"], row["name"])),
            plain(row["runtime"]),
            plain(row["precision"]),
            (Part(rounding.three_digits(row["fps"]), "strong"),),
            *(plain(rounding.three_digits(row["ms"][step])) for step in steps),
        )
        for row in frames["rows"]
    )
    return Table("From decoded frame to overlay", header, rows)


def cells_table(cells: Sequence[Record], *, score: str) -> Table:
    """Every cell, in its order; ``score`` is what checkpoints are chosen by, in words."""
    header = (
        "Cell",
        "Status",
        "MACs",
        "Parameters",
        "Epochs",
        f"Validation {score} before recovery",
        f"Best validation {score}",
        "Seconds",
    )
    return Table("Every cell", header, tuple(_cell_row(cell) for cell in cells))


def seconds_text(cells: Sequence[Record]) -> str:
    """How long the cells took, in a sentence."""
    timed = [cell for cell in cells if cell["seconds"] is not None]
    if not timed:
        return "No cell has been timed."
    longest = max(timed, key=lambda cell: float(cell["seconds"]))
    total = sum(cell["seconds"] for cell in timed)
    return (
        f"{len(timed)} of {len(cells)} cells took {rounding.three_digits(total / 3600)} hours together, "
        f"{rounding.three_digits(total / len(timed))} s each on average; the longest was "
        f"{longest['name']} with {rounding.three_digits(longest['seconds'])} s."
    )


def surroundings(record: Record) -> list[tuple[str, str]]:
    """Machine, versions, revision and date, a line each: name and text."""
    machine = record["machine"]
    accelerator = f", {machine['accelerator']}" if machine.get("accelerator") else ""
    return [
        ("Machine", f"{machine['cpu']}, {machine['cores']} cores{accelerator}"),
        ("Versions", ", ".join(f"{package} {version}" for package, version in record["versions"].items())),
        ("Revision", (record["git_revision"] or "unknown")[:10]),
        ("Created", record["created"]),
    ]


def _cell_row(cell: Record) -> tuple[Cell, ...]:
    status = {
        "done": Part("done"),
        "failed": Part(f"failed: {error_text(cell)}", "error"),
        "waiting": Part("not run", "muted"),
    }[cell["status"]]
    done, cut = cell["status"] == "done", Role(cell["kind"]).is_cut
    trained = done and (not cut or cell["recovered"])
    return (
        plain(cell["name"]),
        (status,),
        plain(rounding.counted(cell["macs"]) if done else ""),
        plain(rounding.counted(cell["params"]) if done else ""),
        plain(str(cell["epochs"]) if done else ""),
        plain(rounding.score(validation_score(cell, suffix="_before")) if done and cut else ""),
        plain(rounding.score(validation_score(cell, prefix="best_val_")) if trained else ""),
        plain("" if cell["seconds"] is None else rounding.three_digits(cell["seconds"])),
    )
