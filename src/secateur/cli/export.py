"""``secateur export``: files that say what PyTorch says, and need no secateur."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder.")],
    cases: Annotated[int, typer.Option(min=1, help="Test cases on which runtimes are compared with PyTorch.")] = 20,
    formats: Annotated[
        str, typer.Option("--format", help="onnx (fixed and dynamic batch), pt2 (PyTorch's own), or both: onnx,pt2.")
    ] = "onnx",
    json: Json = None,
) -> None:
    """Write the network for the runtimes that ship it, and check every file against PyTorch on real cases."""
    from secateur import pipeline
    from secateur.cli.options import session, write_json
    from secateur.cli.show import show_parity
    from secateur.store.runs import RunFolder

    record = pipeline.export(RunFolder(model), session(), cases=cases, formats=formats.split(","))
    show_parity(record, model / "export")
    write_json(json, record)
