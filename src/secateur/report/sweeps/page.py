"""The page of a sweep: one record in, one HTML file out that opens offline; its tables as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from secateur.records import Record, atomic_path
from secateur.report.sweeps.budgets import page as budgets
from secateur.report.sweeps.ratios import page as ratios


def write_sweep_page(record: Record, out: Path, *, command: Sequence[str]) -> Path:
    """Write one HTML page about a sweep that needs no network; return ``out``.

    Only the record is read. Cells that failed or were not run, and what was not measured, are named on the
    page. ``out`` is replaced atomically.

    Args:
        record: ``sweep.json``, finished or not.
        out: the file to write.
        command: the command line that makes this page, shown on it.

    Raises:
        InputError: a package of the extra ``report`` is missing.
        RecordError: the record is of another kind, or contradicts itself.
    """
    page = ratios.page if _over_ratios(record) else budgets.page
    html = page(record, command)
    with atomic_path(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out


def sweep_markdown(record: Record) -> str:
    """The tables of a sweep as Markdown: per set results and comparisons, then size and speed, then every cell.

    Raises:
        RecordError: the record is of another kind, or contradicts itself.
    """
    return ratios.markdown(record) if _over_ratios(record) else budgets.markdown(record)


def readme_table(record: Record) -> str:
    """What a sweep found in one table, as Markdown.

    Over budgets: dense, the leading criterion at every budget, its shapes from scratch, and the other criteria where
    they cut every dense network: mean Dice after recovery on every set, what it is above the dense networks of the same
    seeds with its 95 % interval, and the speed-up on OpenVINO in float32 where it was measured. Over ratios: for mask,
    distances and nuclei the largest ratio whose loss stays under 2 %, of each scope and baseline, beside the paper's.
    What failed or was not run is said in its cell.

    Raises:
        RecordError: the record is of another kind, or contradicts itself.
    """
    return ratios.compact(record) if _over_ratios(record) else budgets.compact(record)


def _over_ratios(record: Record) -> bool:
    return bool(record.get("recipe", {}).get("ratios"))
