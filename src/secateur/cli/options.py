"""Options that several commands share, and the session that a command makes of them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.graph.group_norm import GroupNormMode

if TYPE_CHECKING:
    from secateur.recipes.recipe import Recipe
    from secateur.records import Record
    from secateur.session import Session

Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", help="A recipe's name (polyp, nuclei-shared, ...) or a YAML file; by default --task's."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Folder of images and masks, a name in $SECATEUR_DATA, or 'synthetic'."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Empty the run folder first, if there is one.")]
Kwargs = Annotated[str, typer.Option(metavar="JSON", help="Arguments of a package.module:callable.")]
InputShape = Annotated[str, typer.Option(help="Shape of one input, e.g. 1,3,352,352; folders mostly know their own.")]
Weights = Annotated[
    Path | None, typer.Option(help="State dict for the callable's network: .safetensors, or .pt read as tensors only.")
]
MacsKeep = Annotated[float | None, typer.Option(help="Share of the multiply-adds to keep, in (0, 1].")]
ParamsKeep = Annotated[float | None, typer.Option(help="Share of the parameters to keep instead.")]
RoundTo = Annotated[int | None, typer.Option(help="Widths are multiples of this; a run folder's recipe says, or 8.")]
MinChannels = Annotated[int | None, typer.Option(help="No group keeps fewer; a run folder's recipe says, or 8.")]
GroupNorm = Annotated[
    GroupNormMode,
    typer.Option(help="What leaves of a GroupNorm: whole norm groups, or one channel of each (approximate)."),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Also write the record here.")]


def set_option(example: str) -> Any:  # what Typer makes of it
    """``--set`` of a command, with an example that it reads."""
    return typer.Option("--set", metavar="KEY=VALUE", help=f"Replace a setting, e.g. {example}.")


def session(*, resume: bool = False, overwrite: bool = False) -> "Session":
    """The command as it was called, with progress on stderr."""
    from rich.console import Console

    from secateur.errors import InputError
    from secateur.session import Session

    if resume and overwrite:
        raise InputError("give --resume to go on or --overwrite to begin again, not both.")
    return Session(["secateur", *sys.argv[1:]], Console(stderr=True), resume, overwrite)


def find_recipe(name: str, settings: list[str] | None, data: str | None = None, *, task: str | None = None) -> "Recipe":
    """The recipe of that name or file, with ``--set`` and ``--data`` applied; of ``task`` if that is given."""
    import difflib

    from secateur.errors import RecipeError
    from secateur.recipes import RECIPES
    from secateur.recipes.recipe import parse_settings, read_recipe

    if name in RECIPES:
        recipe = RECIPES[name]()
    elif name.endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(name))
    else:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(f"no recipe is called {name!r}; {hint}known: {', '.join(RECIPES)}, or a .yaml file.")
    if task is not None and recipe.task != task:
        raise RecipeError(f"the recipe {name} is for the task {recipe.task}, not {task}; give another --recipe.")
    values = parse_settings(settings or [])
    return recipe.with_settings(values | ({"data.source": data} if data else {}))


def pruning_settings(
    *,
    macs_keep: float | None,
    params_keep: float | None,
    settings: list[str] | None = None,
    sections: Sequence[str] | None = None,
    **others: int | str | None,
) -> dict[str, Any]:  # what recipes take
    """The flags that were given as settings of ``pruning``; ``--set`` has the last word.

    Args:
        sections: of a recipe, that ``--set`` may name; None where the caller says.

    Raises:
        BudgetError: two budgets.
        RecipeError: a setting of another section.
    """
    from secateur.errors import BudgetError
    from secateur.recipes.recipe import parse_settings

    if macs_keep is not None and params_keep is not None:
        raise BudgetError("give --macs-keep or --params-keep, not both: one budget decides.")
    kind = "params" if params_keep is not None else "macs" if macs_keep is not None else None
    asked = {"budget": kind, "keep_ratio": macs_keep if params_keep is None else params_keep, **others}
    given = {f"pruning.{key}": value for key, value in asked.items() if value is not None}
    return given | parse_settings(settings or [], sections=sections)


def sparsity_settings(*, settings: list[str] | None, **flags: Any) -> dict[str, Any]:  # what recipes take
    """The same of ``sparsity``, the only section that ``--set`` may name."""
    from secateur.recipes.recipe import parse_settings

    given = {f"sparsity.{key}": value for key, value in flags.items() if value is not None}
    if given.get("sparsity.scope") == "2:4":
        given = {"sparsity.compression": 2, "sparsity.rounds": 1} | given
    return given | parse_settings(settings or [], sections=("sparsity",))


def write_json(path: Path | None, record: "Record") -> None:
    """Write the record of ``--json``, where it was asked for."""
    from secateur.records import write_record

    if path is not None:
        write_record(path, record)
