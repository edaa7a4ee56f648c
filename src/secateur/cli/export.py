"""``secateur export``: files that say what PyTorch says, and need no secateur."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import InputShape, Json


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder, or one that was pruned without data.")],
    cases: Annotated[
        int | None,
        typer.Option(min=1, help="Inputs on which runtimes are compared with PyTorch: 20 test cases, 3 random ones."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="onnx (fixed and dynamic batch), pt2 (PyTorch's own), or both: onnx,pt2.")
    ] = "onnx",
    input_shape: InputShape = "",
    json: Json = None,
) -> None:
    """Write the network for the runtimes that ship it, and check every file against PyTorch.

    A run folder is compared on real cases, a network that was pruned without data on random inputs.
    """
    from secateur import measures, without_data
    from secateur.cli.options import session, write_json
    from secateur.cli.show import show_parity
    from secateur.errors import InputError
    from secateur.opening import is_saved_alone
    from secateur.store.runs import RunFolder

    called, wanted = session(), formats.split(",")
    if is_saved_alone(model):
        record = without_data.export(
            model,
            formats=wanted,
            command=called.command,
            input_shape=input_shape,
            cases=cases or 3,
            console=called.console,
        )
    elif input_shape:
        raise InputError(f"{model} has a recipe, which says what the network takes; leave out --input-shape.")
    else:
        record = measures.export(RunFolder(model), called, cases=cases or 20, formats=wanted)
    show_parity(record, model / "export")
    write_json(json, record)
