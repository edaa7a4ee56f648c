"""``secateur inspect``: what could be removed, what could not and why, before anything is touched."""

from typing import Annotated

import typer

from secateur.cli.options import (
    GroupNorm,
    InputShape,
    Json,
    Kwargs,
    MacsKeep,
    MinChannels,
    ParamsKeep,
    RoundTo,
    Weights,
)
from secateur.graph.group_norm import GroupNormMode


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Run or saved folder, nnU-Net folder, MONAI bundle, or package.module:callable."
        ),
    ],
    kwargs: Kwargs = "{}",
    input_shape: InputShape = "",
    weights: Weights = None,
    macs_keep: MacsKeep = None,
    params_keep: ParamsKeep = None,
    criterion: Annotated[
        str, typer.Option(help="Of the dry run; one that needs no data: l2, l1, random, uniform.")
    ] = "l2",
    round_to: RoundTo = None,
    min_channels: MinChannels = None,
    group_norm: GroupNorm = GroupNormMode.WHOLE,
    json: Json = None,
) -> None:
    """Show groups of channels, what ties them, what is pinned and why; with --macs-keep or --params-keep, a dry run."""
    from secateur import inspection
    from secateur.cli.options import pruning_settings, session, write_json
    from secateur.cli.show import show_inspection
    from secateur.opening import open_model

    settings = pruning_settings(
        macs_keep=macs_keep,
        params_keep=params_keep,
        criterion=criterion,
        round_to=round_to,
        min_channels=min_channels,
    )
    dry_run = inspection.dry_run_recipe(model, settings)
    opened = open_model(model, kwargs=kwargs, input_shape=input_shape, weights=weights)
    record = inspection.inspect(opened, dry_run=dry_run, group_norm=group_norm, console=session().console)
    show_inspection(record)
    write_json(json, record)
