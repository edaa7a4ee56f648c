"""``secateur demo``: the main job on synthetic frames, in minutes."""

from pathlib import Path

from secateur.cli.options import Out, Overwrite, Resume, Settings


def demo(
    out: Out = Path("demo"),
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a small U-Net on synthetic frames, prune it to 10 % of its MACs, recover, export, measure, report."""
    from secateur import pipeline
    from secateur.cli.options import find_recipe, session
    from secateur.cli.show import show_summary

    page = pipeline.main_job(find_recipe("polyp-demo", settings), out, session(resume=resume, overwrite=overwrite))
    show_summary(out / "dense", out / "pruned", page)
