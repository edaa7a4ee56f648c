"""``secateur inspect``: what could be removed, what could not and why, before anything is touched."""

from typing import Annotated

import typer

from secateur.cli.options import Json


def inspect(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Run folder, package.module:callable, nnU-Net folder or MONAI bundle."),
    ],
    kwargs: Annotated[str, typer.Option(help="JSON arguments of the callable.")] = "{}",
    input_shape: Annotated[str, typer.Option(help="Shape of one input, e.g. 1,3,352,352.")] = "",
    macs_keep: Annotated[
        float | None, typer.Option(help="Dry run: the widths that would keep this share of the multiply-adds.")
    ] = None,
    params_keep: Annotated[float | None, typer.Option(help="Dry run: the same for the parameters instead.")] = None,
    criterion: Annotated[
        str, typer.Option(help="Of the dry run; one that needs no data: l2, l1, random, uniform.")
    ] = "l2",
    round_to: Annotated[
        int | None, typer.Option(min=1, help="Of the dry run; that of the run folder's recipe, or 8.")
    ] = None,
    json: Json = None,
) -> None:
    """Show groups of channels, what ties them, what is pinned and why; with --macs-keep or --params-keep, a dry run."""
    from secateur import inspection
    from secateur.cli.options import write_json
    from secateur.cli.show import show_inspection

    record = inspection.inspect(
        model,
        kwargs=kwargs,
        input_shape=input_shape,
        macs_keep=macs_keep,
        params_keep=params_keep,
        criterion=criterion,
        round_to=round_to,
    )
    show_inspection(record)
    write_json(json, record)
