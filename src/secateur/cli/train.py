"""``secateur train``: a dense network from a recipe."""

from pathlib import Path

from secateur.cli.options import Data, Json, Out, Overwrite, RecipeName, Resume, Settings


def train(
    out: Out = Path("runs/dense"),
    recipe: RecipeName = "polyp",
    data: Data = None,
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Train a dense network; the best epoch on validation is kept."""
    from secateur import pipeline
    from secateur.cli.options import find_recipe, session, write_json
    from secateur.cli.show import show_training

    run = pipeline.train(find_recipe(recipe, settings, data), out, session(resume=resume, overwrite=overwrite))
    show_training(run.run, out)
    write_json(json, run.run)
