"""``secateur prune``: a smaller network from a trained one."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import (
    GroupNorm,
    InputShape,
    Json,
    Kwargs,
    MacsKeep,
    MinChannels,
    Out,
    Overwrite,
    ParamsKeep,
    Resume,
    RoundTo,
    Settings,
    Weights,
)
from secateur.graph.group_norm import GroupNormMode

if TYPE_CHECKING:
    from secateur.opening import OpenedModel
    from secateur.records import Record
    from secateur.session import Session
    from secateur.without_data import CutRecipe


class Granularity(StrEnum):
    """What leaves the network."""

    FILTER = "filter"
    WEIGHT = "weight"


class WeightScope(StrEnum):
    """Among which weights the largest are kept; see `secateur.recipes.sparsity.SparsityRecipe`."""

    LAYER = "layer"
    NETWORK = "network"
    TWO_OF_FOUR = "2:4"


def prune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Run folder; or, without data: saved folder, nnU-Net folder, MONAI bundle, package.module:callable.",
        ),
    ],
    out: Out = Path("runs/pruned"),
    kwargs: Kwargs = "{}",
    input_shape: InputShape = "",
    weights: Weights = None,
    macs_keep: MacsKeep = None,
    params_keep: ParamsKeep = None,
    criterion: Annotated[
        str | None, typer.Option(help="taylor, l2, random, uniform, ...; without data l2, l1, random or uniform.")
    ] = None,
    granularity: Annotated[
        Granularity, typer.Option(help="Whole filters, or single weights that stay zero.")
    ] = Granularity.FILTER,
    scope: Annotated[WeightScope | None, typer.Option(help="Of weights: the same share of every layer, ...")] = None,
    compression: Annotated[float | None, typer.Option(help="Of weights: before / after, 1 or more.")] = None,
    branch: Annotated[list[str] | None, typer.Option(help="Of weights: only in this part, e.g. semantic.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of score, remove, recover.")] = None,
    round_to: RoundTo = None,
    min_channels: MinChannels = None,
    group_norm: GroupNorm = GroupNormMode.WHOLE,
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Score channels, remove the least important for real, and prove the removal.

    A run folder is pruned as the recipe says that its dense network was trained with, and recovers. Any other MODEL
    comes without data: it is scored by its weights alone and does not recover.
    """
    from secateur.cli.options import pruning_settings, session, sparsity_settings, write_json
    from secateur.cli.show import show_pruning, show_sparsity
    from secateur.errors import InputError
    from secateur.opening import is_run, open_model
    from secateur.without_data import cut_recipe

    called = session(resume=resume, overwrite=overwrite)
    of_weights = {"scope": scope, "compression": compression, "branches": branch or None}
    if granularity is Granularity.WEIGHT:
        for_filters = (macs_keep, params_keep, criterion, round_to, min_channels, weights, input_shape or None)
        if any(given is not None for given in for_filters) or not is_run(Path(model)):
            raise InputError(
                "single weights leave a run folder's network, by --scope, --compression, --branch and --rounds; leave "
                "out the options of filters, and train a run folder first."
            )
        asked = sparsity_settings(**of_weights, rounds=rounds, settings=settings)
        record = _sparsify_run(Path(model), asked, out, called)
        show_sparsity(record, out)
        write_json(json, record)
        return
    if any(given is not None for given in of_weights.values()):
        raise InputError("--scope, --compression and --branch are of single weights; add --granularity weight.")
    asked = pruning_settings(
        macs_keep=macs_keep,
        params_keep=params_keep,
        criterion=criterion,
        rounds=rounds,
        round_to=round_to,
        min_channels=min_channels,
        settings=settings,
    )
    if not is_run(Path(model)):
        recipe = cut_recipe(asked)
        opened = open_model(model, kwargs=kwargs, input_shape=input_shape, weights=weights)
        record = _prune_alone(opened, recipe, out, called, group_norm)
    elif kwargs != "{}" or input_shape or weights is not None or group_norm is not GroupNormMode.WHOLE:
        raise InputError(
            f"{model} is a run folder, whose recipe says what --kwargs, --input-shape, --weights and --group-norm "
            f"would; leave them out."
        )
    else:
        record = _prune_run(Path(model), asked, out, called)
    show_pruning(record, out)
    write_json(json, record)


def _prune_alone(
    opened: "OpenedModel", recipe: "CutRecipe", out: Path, called: "Session", group_norm: GroupNormMode
) -> "Record":
    from secateur import without_data
    from secateur.errors import InputError

    if called.resume:
        raise InputError("pruning without data is one step, of which nothing is left to resume; leave out --resume.")
    return without_data.prune(
        opened,
        recipe,
        out,
        group_norm=group_norm,
        command=called.command,
        overwrite=called.overwrite,
        console=called.console,
    )


def _prune_run(folder: Path, asked: dict[str, Any], out: Path, called: "Session") -> "Record":  # what recipes take
    from secateur import pipeline
    from secateur.records import read_record
    from secateur.session import read_run_recipe
    from secateur.store.runs import RunFolder

    dense = RunFolder(folder)
    pipeline.prune(dense, read_run_recipe(dense).with_settings(asked), out, called)
    return read_record(out / "prune.json")


def _sparsify_run(folder: Path, asked: dict[str, Any], out: Path, called: "Session") -> "Record":  # what recipes take
    from secateur import pipeline
    from secateur.records import read_record
    from secateur.session import read_run_recipe
    from secateur.store.runs import RunFolder

    dense = RunFolder(folder)
    pipeline.sparsify(dense, read_run_recipe(dense).with_settings(asked), out, called)
    return read_record(out / "prune.json")
