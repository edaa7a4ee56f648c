"""``secateur bench``: milliseconds, dense and pruned in turns in one process."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Json, set_option


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Run folders, dense first; one pruned run brings its own.")
    ],
    frames: Annotated[
        bool, typer.Option("--frames", help="Also time whole frames, from the decoded one to the overlay drawn on it.")
    ] = False,
    settings: Annotated[list[str] | None, set_option("bench.seconds=5")] = None,
    json: Json = None,
) -> None:
    """Measure latency on PyTorch, ONNX Runtime and OpenVINO, with threads and precision pinned."""
    from secateur import measures
    from secateur.cli.options import session, write_json
    from secateur.cli.show import show_bench, show_frames
    from secateur.recipes.recipe import parse_settings
    from secateur.session import read_run_recipe
    from secateur.store.runs import RunFolder

    runs = measures.with_dense([RunFolder(path) for path in models])
    sections = ("bench", "bench_size", *(["data"] if frames else []))
    recipe = read_run_recipe(runs[0]).with_settings(parse_settings(settings or [], sections=sections))
    record = measures.bench(runs, session(), recipe=recipe, frames=frames)
    show_bench(record)
    if frames:
        show_frames(record["frames"])
    write_json(json, record)
