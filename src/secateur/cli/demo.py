"""``secateur demo``: the main job on synthetic images, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json, Out, Overwrite, Resume, set_option


def demo(
    out: Out = Path("demo"),
    task: Annotated[str, typer.Option(help="Clinical job: polyp or nuclei.")] = "polyp",
    settings: Annotated[list[str] | None, set_option("training.epochs=20")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Train a small network on synthetic images, prune it, recover, export, measure, report.

    Polyps: to 10 % of the MACs. Nuclei: to a fifth of the weights and, in another run, to a quarter of the MACs.
    """
    from secateur import pipeline
    from secateur.cli.options import find_recipe, session, write_json
    from secateur.cli.show import show_summary
    from secateur.report.runs.tables import summary_record

    recipe = find_recipe(f"{task}-demo", settings)
    page = pipeline.main_job(recipe, out, session(resume=resume, overwrite=overwrite))
    folders = [folder for name in ("dense", "sparse", "pruned") if (folder := out / name).is_dir()]
    show_summary(folders, page)
    write_json(json, {"page": str(page), **summary_record(folders)})
