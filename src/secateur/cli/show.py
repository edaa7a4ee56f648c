"""Records as tables for people, on stdout."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from secateur.records import Record, read_record
from secateur.report.rows import is_sparse
from secateur.report.tasks.views import VIEWS

_console = Console()
_MAC = 1e9
_ROWS = 24  # a table longer than a screen is cut, and says so


def show_training(run: Record, out: Path) -> None:
    """Best epoch and Dice."""
    training = run["training"]
    key = next(key for key in training if key.startswith("best_val_"))
    _console.print(
        f"best {_words(key.removeprefix('best_val_'))} on validation [bold]{training[key]:.4f}[/] in epoch "
        f"{training['best_epoch']} of {training['epochs']}, {training['seconds'] / 60:.1f} min; network in {out}",
        soft_wrap=True,
    )


def show_pruning(record: Record, out: Path) -> None:
    """Widths kept, budget reached, proof."""
    table = _table("group", "channels", "kept")
    for group in record["groups"]:
        table.add_row(group["id"], _channels(group, group["width"]), _channels(group, group["kept"]))
    _console.print(table)
    reached, dense, proof = record["reached"], record["dense"], record["proof"]
    _console.print(
        f"MACs {dense['macs'] / _MAC:.3f} G -> {reached['macs'] / _MAC:.3f} G ({reached['macs_keep_ratio']:.1%}), "
        f"parameters {dense['params']:,} -> {reached['params']:,} ({reached['params_keep_ratio']:.1%})"
    )
    _console.print(
        f"proof: masked equals removed in {', '.join(proof['modes'])}; largest difference {proof['max_abs_diff']:.2g}; "
        f"{len(proof['untested'])} of {proof['reads']} reads untested",
        soft_wrap=True,
    )
    if proof.get("approximate"):
        _console.print(f"approximate: statistics taken over what stays: {', '.join(proof['approximate'])}")
    if record.get("at_floor"):
        _console.print(f"at their floor: {', '.join(record['at_floor'])}", soft_wrap=True, markup=False)
    _show_rounds(record["rounds"])
    if "weights" in record:
        _console.print(
            f"weights from {record['weights'] or 'the builder itself: give --weights for trained ones'}; "
            f"cut without data, so not recovered and not evaluated",
            soft_wrap=True,
            markup=False,
        )
    _console.print(f"network in {out}", soft_wrap=True)


def show_sparsity(record: Record, out: Path) -> None:
    """Weights kept by layer, what died, what it takes on disk, proof."""
    masks, sizes, whole, compaction = (record[key] for key in ("masks", "sizes", "dense_sizes", "compaction"))
    table = _table("weights of", "number", "kept", "density")
    for layer in masks["layers"]:
        table.add_row(layer["name"], f"{layer['weights']:,}", f"{layer['kept']:,}", f"{layer['density']:.2%}")
    _console.print(table)
    _console.print(
        f"{masks['kept']:,} of {masks['weights']:,} weights stay: compression {masks['compression']:.4g}, "
        f"{masks['choice']}",
        soft_wrap=True,
    )
    for warning in record["warnings"]:
        _console.print(f"[yellow]warning[/] {warning}", soft_wrap=True)
    reached, dense = record["reached"], record["dense"]
    _console.print(
        f"dead filters taken out: {compaction['left']}; MACs {dense['macs'] / _MAC:.3f} G -> "
        f"{reached['macs'] / _MAC:.3f} G ({reached['macs_keep_ratio']:.1%}); largest difference in eval mode "
        f"{compaction['max_abs_diff']:.2g}",
        soft_wrap=True,
    )
    _console.print(
        f"on disk {sizes['compressed_bytes']:,} bytes; as a plain file {sizes['dense_bytes']:,}, gzip of that "
        f"{sizes['gzip_bytes']:,}; the dense network {whole['dense_bytes']:,}, gzip of that {whole['gzip_bytes']:,}",
        soft_wrap=True,
    )
    _show_rounds(record["rounds"])
    _console.print(f"network in {out}", soft_wrap=True)


def _show_rounds(rounds: list[Record]) -> None:
    for entry in rounds:
        score = next(key for key in entry if key.startswith("val_")).removeprefix("val_").removesuffix("_before")
        after = entry.get(f"val_{score}_after")
        _console.print(
            f"round {entry['round']}: {_words(score)} on validation {entry[f'val_{score}_before']:.4f} before recovery"
            + ("" if after is None else f", {after:.4f} after")
        )


def _words(score: str) -> str:
    """``dice`` as ``Dice``, ``dice_and_correlation`` as ``Dice and correlation``."""
    return score.replace("_", " ").capitalize()


def show_evaluation(record: Record) -> None:
    """Every metric with its interval, and what was lost."""
    table = _table("metric", "mean", "SD", "95 % interval", "undefined")
    for name, metric in record["metrics"].items():
        low, high = metric["ci95"]
        interval = "-" if low is None else f"{low:.4f} to {high:.4f}"
        table.add_row(name, _number(metric["mean"]), _number(metric["std"]), interval, str(metric["undefined"]))
    synthetic = ", [yellow]synthetic data[/]" if record["synthetic"] else ""
    _console.print(f"{record['n_cases']} cases of {record['split']}{synthetic}")
    _console.print(table)
    if record["task"] == "nuclei":
        _show_nuclei(record)
        return
    polyps, frames = record["polyps"], record["false_polyp_frames"]
    if polyps["lost"] is not None:
        seen = polyps["seen_by_dense"]
        _console.print(f"polyps lost by the cut: {polyps['lost']} of {seen} that the dense network saw")
    _console.print(f"frames with a false polyp: {frames['count']} of {frames['of']}")


def _show_nuclei(record: Record) -> None:
    nuclei, seconds = record["nuclei"], record["seconds"]
    _console.print(
        f"nuclei: {nuclei['kept']} of {nuclei['total']} kept, {nuclei['merged']} merged, {nuclei['split']} split, "
        f"{nuclei['lost']} lost; {nuclei['spurious']} spurious",
        soft_wrap=True,
    )
    if "kept_by_dense" in nuclei:
        _console.print(
            f"of the {nuclei['kept_by_dense']} that the dense network kept, the cut lost {nuclei['lost_by_cut']}, "
            f"merged {nuclei['merged_by_cut']}, split {nuclei['split_by_cut']}",
            soft_wrap=True,
        )
    _console.print("seconds per tile: " + ", ".join(f"{step} {value:.3f}" for step, value in seconds.items()))


def show_parity(record: Record, folder: Path) -> None:
    """Difference per file and runtime."""
    table = _table("file", "runtime", "largest difference", "allowed", "pixels flipped", "passed")
    for row in record["runtimes"]:
        table.add_row(
            row["file"],
            row["runtime"],
            _small(row["max_abs_diff"]),
            _small(row["tolerance"]),
            f"{row['flipped_pixels']} of {row['pixels']}",
            _mark(row["passed"]),
        )
    _console.print(table)
    _console.print(
        f"files in {folder}, compared with PyTorch on {record['cases']} {record.get('inputs', 'cases')}", soft_wrap=True
    )


def show_bench(record: Record) -> None:
    """Latency per runtime and network."""
    table = _table("runtime", "network", "GMACs", "p50 ms", "p95 ms", "p99 ms", "speed-up")
    for bench in record["benches"]:
        speedups = {pair["pruned"]: f"{pair['speedup']:.2f}x" for pair in bench["pairs"]}
        label = f"{bench['runtime']} {bench['precision']}, {bench['threads']} threads"
        for model in bench["models"]:
            times = [f"{model['latency_ms'][key]:.2f}" for key in ("p50", "p95", "p99")]
            table.add_row(label, model["name"], f"{model['macs'] / _MAC:.3f}", *times, speedups.get(model["name"], "1"))
    _console.print(table)
    _console.print(f"input {record['benches'][0]['input_shape']}, networks in turns in one process")


def show_frames(record: Record) -> None:
    """Frames per second per runtime and network, and where the milliseconds go."""
    steps = ("prepare", "network", "overlay", "total")
    table = _table("runtime", "network", "frames/s", *(f"{step} ms" for step in steps))
    for row in record["rows"]:
        label = f"{row['runtime']} {row['precision']}, {record['threads']} threads"
        table.add_row(label, row["name"], f"{row['fps']:.1f}", *(f"{row['ms'][step]:.2f}" for step in steps))
    _console.print(table)
    (height, width), side = record["frame_shape"], record["network_side"]
    _console.print(f"frames of {width}x{height}, network input {side}x{side}; without decoding and display (medians)")


def show_inspection(record: Record) -> None:
    """Groups, pins, and the dry run."""
    dry = record.get("dry_run")
    table = _table("group", "channels", "MACs", "parameters", "tied together", *(["would keep"] if dry else []))
    for group in record["group_table"][:_ROWS]:
        tied = ", ".join([*group["written_by"], *group["followed_by"]])
        shares = (f"{group[key]:.1%}" for key in ("macs_share", "params_share"))
        would_keep = [_channels(group, dry["kept"][group["id"]])] if dry else []
        table.add_row(group["id"], _channels(group, group["width"]), *shares, tied, *would_keep)
    _console.print(table)
    if len(record["group_table"]) > _ROWS:
        _console.print(f"... and {len(record['group_table']) - _ROWS} more groups (--json has all)")
    for group in record["group_table"]:
        for reason in group["approximate"]:
            _console.print(f"approximate: {group['id']}: {reason}", soft_wrap=True, markup=False)
    for pin in record["pinned"]:
        _console.print(f"stays: {pin['module']} [{pin['channels']}]: {pin['reason']}", soft_wrap=True, markup=False)
    _console.print(
        f"{record['params']:,} parameters, {record['macs'] / _MAC:.3f} GMACs at {record['input_shape']}; "
        f"{record['removable']} of {record['channels']} channels removable in {record['groups']} groups; "
        f"traced in {record['seconds']:.1f} s",
        soft_wrap=True,
    )
    if dry:
        _console.print(
            f"dry run by {dry['criterion']}, nothing touched: {dry['macs'] / _MAC:.3f} GMACs "
            f"({dry['macs_keep_ratio']:.1%}), {dry['params']:,} parameters ({dry['params_keep_ratio']:.1%}); floors: "
            f"multiples of {dry['round_to']}, {dry['min_channels']} channels, {dry['min_keep_ratio']:.0%} of a width; "
            f"at their floor: {', '.join(dry['at_floor']) or 'none'}",
            soft_wrap=True,
        )


def show_sweep(record: Record, out: Path) -> None:
    """Every cell with its leading metric on test, and where the page is."""
    metric, title = ("aji", "AJI") if record["recipe"]["task"] == "nuclei" else ("dice", "Dice")
    table = _table("cell", "GMACs", "score on validation", f"{title} on test", "")
    for cell in record["cells"]:
        if cell["status"] == "done":
            found = cell["evaluations"]["test"]["metrics"][metric]["mean"]
            best = next(value for key, value in cell.items() if key.startswith("best_val_"))
            table.add_row(cell["name"], f"{cell['macs'] / _MAC:.3f}", _number(best), _number(found), "done")
        else:
            table.add_row(cell["name"], "", "", "", cell["error"] or cell["status"])
    _console.print(table)
    _console.print(f"[bold]{out / 'report.html'}[/] is ready to open.", soft_wrap=True)


def show_checks(record: Record) -> None:
    """What works here."""
    table = _table("check", "result", "")
    for check in record["checks"]:
        table.add_row(check["name"], check["result"], _mark(check["passed"]))
    _console.print(table)


def show_summary(runs: Sequence[Path], page: Path) -> None:
    """The end of the main job: of each run but the first, the dense one, what was cut and what it is worth."""
    evaluations = {run.name: read_record(run / "evaluation.json") for run in runs}
    for run in runs[1:]:
        cut = read_record(run / "prune.json")
        (show_sparsity if is_sparse(cut) else show_pruning)(cut, run)
        show_evaluation(evaluations[run.name])
        show_parity(read_record(run / "export" / "parity.json"), run / "export")
    show_bench(read_record(runs[-1] / "bench.json"))
    leading = VIEWS[evaluations[runs[0].name]["task"]].leading
    scores = (f"{each['metrics'][leading.key]['mean']:.4f} {name}" for name, each in evaluations.items())
    _console.print(f"{leading.name} on test {', '.join(scores)}")
    _console.print(f"[bold]{page}[/] is ready to open.", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def _channels(group: Record, count: int) -> str:
    """So many of a group's channels, and how many units that is where a unit is several."""
    if "units" not in group:
        return str(count)
    units = count * group["units"] // group["width"]
    return f"{count} ({units} unit{'' if units == 1 else 's'})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _small(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"


def _mark(passed: bool) -> str:
    return "[green]yes[/]" if passed else "[red]no[/]"
