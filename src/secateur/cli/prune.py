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
    Weights,
    set_option,
)
from secateur.graph.group_norm import GroupNormMode

if TYPE_CHECKING:
    from secateur.records import Record
    from secateur.session import Session


class Granularity(StrEnum):
    """What leaves the network."""

    FILTER = "filter"
    WEIGHT = "weight"


class WeightScope(StrEnum):
    """Among which weights the largest are kept; see `secateur.recipes.sparsity.SparsityRecipe`."""

    LAYER = "layer"
    NETWORK = "network"
    TWO_OF_FOUR = "2:4"


_SCOPES = (
    "Of weights: the same share of every layer, the smallest of the whole network, or two of every four along the "
    "input channels (2:4)."
)


class _Route(StrEnum):
    """What is cut, in words."""

    FILTERS = "whole filters of a run folder"
    WEIGHTS = "single weights of a run folder (--granularity weight)"
    ALONE = "whole filters of a network without data"


_SCORED = ("macs_keep", "params_keep", "criterion", "round_to", "min_channels")
_FLAGS = {  # beside those that every route takes
    _Route.FILTERS: (*_SCORED, "rounds", "settings", "resume"),
    _Route.WEIGHTS: ("scope", "compression", "branch", "rounds", "settings", "resume"),
    _Route.ALONE: ("kwargs", "input_shape", "weights", "group_norm", *_SCORED, "settings"),
}


def prune(
    context: typer.Context,
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
    scope: Annotated[WeightScope | None, typer.Option(help=_SCOPES)] = None,
    compression: Annotated[float | None, typer.Option(help="Of weights: before / after, 1 or more.")] = None,
    branch: Annotated[list[str] | None, typer.Option(help="Of weights: only in this part, e.g. semantic.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of score, remove, recover.")] = None,
    round_to: RoundTo = None,
    min_channels: MinChannels = None,
    group_norm: GroupNorm = GroupNormMode.WHOLE,
    settings: Annotated[list[str] | None, set_option("pruning.recovery.epochs=20")] = None,
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

    called, route = session(resume=resume, overwrite=overwrite), _route(model, granularity)
    _require_flags(context, route)
    if route is _Route.WEIGHTS:
        asked = sparsity_settings(
            scope=scope, compression=compression, branches=branch or None, rounds=rounds, settings=settings
        )
    else:
        asked = pruning_settings(
            macs_keep=macs_keep,
            params_keep=params_keep,
            criterion=criterion,
            rounds=rounds,
            round_to=round_to,
            min_channels=min_channels,
            settings=settings,
            sections=("pruning",) if route is _Route.FILTERS else None,
        )
    if route is _Route.ALONE:
        opened = {"kwargs": kwargs, "input_shape": input_shape, "weights": weights}
        record = _cut_alone(model, asked, out, called, opened=opened, group_norm=group_norm)
    else:
        record = _cut_run(Path(model), asked, out, called, weights=route is _Route.WEIGHTS)
    (show_sparsity if route is _Route.WEIGHTS else show_pruning)(record, out)
    write_json(json, record)


def _route(model: str, granularity: Granularity) -> _Route:
    from secateur.errors import InputError
    from secateur.opening import is_run

    if granularity is Granularity.FILTER:
        return _Route.FILTERS if is_run(Path(model)) else _Route.ALONE
    if not is_run(Path(model)):
        raise InputError(
            f"single weights leave the network of a run folder of `secateur train`, and {model} is none; train one "
            f"first, or leave out --granularity weight."
        )
    return _Route.WEIGHTS


def _require_flags(context: typer.Context, route: _Route) -> None:
    """Refuse options that were given and that ``route`` does not read."""
    from secateur.errors import InputError

    names = {str(option.name): option.opts[0] for option in context.command.params}
    for flag, name in names.items():
        owners = [other for other, flags in _FLAGS.items() if flag in flags]
        source = context.get_parameter_source(flag)
        if owners and route not in owners and source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"{name} is for {' and '.join(owners)}; this cuts {route}, {context.params['model']}, by "
                f"{', '.join(names[own] for own in _FLAGS[route])}; leave it out."
            )


def _cut_run(folder: Path, asked: dict[str, Any], out: Path, called: "Session", *, weights: bool) -> "Record":
    """Cut as the folder's recipe says, with what was ``asked``, and recover."""
    from secateur import pipeline
    from secateur.records import read_record
    from secateur.session import read_run_recipe
    from secateur.store.runs import RunFolder

    dense = RunFolder(folder)
    cut = pipeline.sparsify if weights else pipeline.prune
    cut(dense, read_run_recipe(dense).with_settings(asked), out, called)
    return read_record(out / "prune.json")


def _cut_alone(
    model: str,
    asked: dict[str, Any],
    out: Path,
    called: "Session",
    *,
    opened: dict[str, Any],
    group_norm: GroupNormMode,
) -> "Record":
    """Cut by the weights alone."""
    from secateur import without_data
    from secateur.opening import open_model

    recipe = without_data.cut_recipe(asked)
    return without_data.prune(
        open_model(model, **opened),
        recipe,
        out,
        group_norm=group_norm,
        command=called.command,
        overwrite=called.overwrite,
        console=called.console,
    )
