"""``secateur report``: one page from records."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json


def report(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders, dense first (one pruned run brings its own); or the folder of one sweep.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="The page; report.html in the last run by default.")] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table of results as Markdown.")] = None,
    json: Json = None,
) -> None:
    """Write one HTML page that opens offline, from the records of run folders, or of a sweep, alone."""
    from rich.console import Console

    from secateur import measures
    from secateur.cli.options import session, write_json
    from secateur.errors import InputError
    from secateur.records import atomic_path, read_record
    from secateur.report.runs.tables import markdown_table, summary_record
    from secateur.store.runs import RunFolder
    from secateur.sweeps.record import RECORD, report_sweep, sweep_tables

    page = out or models[-1] / "report.html"
    if any((path / RECORD).is_file() for path in models):
        if len(models) > 1 or title is not None:
            raise InputError("a sweep has a page of its own; give its folder alone, without --title.")
        report_sweep(models[0], page, session())
        tables, record = sweep_tables(models[0]), read_record(models[0] / RECORD)
    else:
        runs = measures.with_dense([RunFolder(path) for path in models])
        measures.report(runs, page, session(), title=title)
        folders = [run.path for run in runs]
        tables, record = markdown_table(folders), summary_record(folders)
    if markdown is not None:
        with atomic_path(markdown) as temporary:
            temporary.write_text(tables, encoding="utf-8")
    write_json(json, {"page": str(page), **record})
    Console().print(f"[bold]{page}[/] is ready to open.", soft_wrap=True)
