"""``secateur report``: one page from records."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Run folders, dense first; one pruned run brings its own.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="The page; report.html in the last run by default.")] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table of results as Markdown.")] = None,
) -> None:
    """Write one HTML page that opens offline, from the records of run folders alone."""
    from rich.console import Console

    from secateur import pipeline
    from secateur.cli.options import session
    from secateur.records import atomic_path
    from secateur.report.tables import markdown_table
    from secateur.store.runs import RunFolder

    runs = pipeline.with_dense([RunFolder(path) for path in models])
    page = pipeline.report(runs, out or models[-1] / "report.html", session(), title=title)
    if markdown is not None:
        with atomic_path(markdown) as temporary:
            temporary.write_text(markdown_table([run.path for run in runs]), encoding="utf-8")
    Console().print(f"[bold]{page}[/] is ready to open.", soft_wrap=True)
