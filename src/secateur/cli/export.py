"""``secateur export``: ONNX files that say what PyTorch says."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder.")],
    cases: Annotated[int, typer.Option(min=1, help="Test cases on which runtimes are compared with PyTorch.")] = 20,
    json: Json = None,
) -> None:
    """Write ONNX files (fixed and dynamic batch) and check them on ONNX Runtime and OpenVINO against PyTorch."""
    from secateur import pipeline
    from secateur.cli.options import session, write_json
    from secateur.cli.show import show_parity
    from secateur.store.runs import RunFolder

    record = pipeline.export(RunFolder(model), session(), cases=cases)
    show_parity(record, model / "export")
    write_json(json, record)
