"""``secateur sweep``: criteria x budgets x seeds of one task, or scopes x compression ratios x seeds."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Data, Json, Overwrite, Resume, set_option


def sweep(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name (polyp-study, nuclei-study, ...) or a YAML file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("runs/sweep"),
    data: Data = None,
    settings: Annotated[list[str] | None, set_option("sweep.seeds=[0]")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Train, cut and measure every cell of a comparison: those of the recipe's `ratios`, else of its `sweep`.

    Several processes share the work: start the command again with --resume in another terminal.
    """
    from secateur.cli.options import find_recipe, session, write_json
    from secateur.cli.show import show_sweep
    from secateur.sweeps.run import sweep as run

    record = run(find_recipe(recipe, settings, data), out, session(resume=resume, overwrite=overwrite))
    show_sweep(record, out)
    write_json(json, record)
