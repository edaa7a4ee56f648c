"""``secateur prune``: a smaller network from a trained one."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json, Out, Overwrite, Resume, Settings


def prune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder of a dense network.")],
    out: Out = Path("runs/pruned"),
    macs_keep: Annotated[float | None, typer.Option(help="Share of the multiply-adds to keep, in (0, 1].")] = None,
    params_keep: Annotated[float | None, typer.Option(help="Share of the parameters to keep instead.")] = None,
    criterion: Annotated[str | None, typer.Option(help="taylor, l2, random, uniform, ...")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of score, remove, recover.")] = None,
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Score channels, remove the least important for real, prove the removal, and recover.

    Everything else follows the recipe that the dense network was trained with.
    """
    from secateur import pipeline
    from secateur.cli.options import session, write_json
    from secateur.cli.show import show_pruning
    from secateur.errors import BudgetError
    from secateur.recipes.recipe import parse_settings
    from secateur.records import read_record
    from secateur.store.runs import RunFolder

    if macs_keep is not None and params_keep is not None:
        raise BudgetError("give --macs-keep or --params-keep, not both: one budget decides.")
    asked: dict[str, float | int | str | None] = {
        "pruning.keep_ratio": macs_keep if params_keep is None else params_keep,
        "pruning.budget": "params" if params_keep is not None else "macs" if macs_keep is not None else None,
        "pruning.criterion": criterion,
        "pruning.rounds": rounds,
    }
    dense = RunFolder(model)
    recipe = pipeline.read_run_recipe(dense).with_settings(
        {key: value for key, value in asked.items() if value is not None} | parse_settings(settings or [])
    )
    pipeline.prune(dense, recipe, out, session(resume=resume, overwrite=overwrite))
    record = read_record(out / "prune.json")
    show_pruning(record, out)
    write_json(json, record)
