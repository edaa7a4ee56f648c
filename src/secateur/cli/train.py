"""``secateur train``: a dense network from a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Data, Json, Out, Overwrite, RecipeName, Resume, set_option


def train(
    out: Out = Path("runs/dense"),
    recipe: RecipeName = None,
    task: Annotated[
        str | None,
        typer.Option(help="Clinical job, polyp (the default) or nuclei: its recipe; --recipe has to be for the same."),
    ] = None,
    data: Data = None,
    settings: Annotated[list[str] | None, set_option("training.epochs=20")] = None,
    shape_of: Annotated[
        Path | None, typer.Option(help="Run folder of a pruned network: train its shape from fresh weights.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Train a dense network, or the shape of a pruned one; the best epoch on validation is kept."""
    from secateur import pipeline
    from secateur.cli.options import find_recipe, session, write_json
    from secateur.cli.show import show_training
    from secateur.store.runs import RunFolder

    run = pipeline.train(
        find_recipe(recipe or task or "polyp", settings, data, task=task),
        out,
        session(resume=resume, overwrite=overwrite),
        shape_of=RunFolder(shape_of) if shape_of else None,
    )
    show_training(run.run, out)
    write_json(json, run.run)
