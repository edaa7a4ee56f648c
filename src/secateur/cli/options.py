"""Options that several commands share, and the session that a command makes of them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from secateur.pipeline import Session
    from secateur.recipes.recipe import Recipe
    from secateur.records import Record

Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A recipe's name (polyp, polyp-large, ...) or a YAML file.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, e.g. training.epochs=20.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Folder of images and masks, a name in $SECATEUR_DATA, or 'synthetic'."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Empty the run folder first, if there is one.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Also write the record here.")]


def session(*, resume: bool = False, overwrite: bool = False) -> "Session":
    """The command as it was called, with progress on stderr."""
    from rich.console import Console

    from secateur.errors import InputError
    from secateur.pipeline import Session

    if resume and overwrite:
        raise InputError("give --resume to go on or --overwrite to begin again, not both.")
    return Session(["secateur", *sys.argv[1:]], Console(stderr=True), resume, overwrite)


def find_recipe(name: str, settings: list[str] | None, data: str | None = None) -> "Recipe":
    """The recipe of that name or file, with ``--set`` and ``--data`` applied."""
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
    values = parse_settings(settings or [])
    return recipe.with_settings(values | ({"data.source": data} if data else {}))


def write_json(path: Path | None, record: "Record") -> None:
    """Write the record of ``--json``, where it was asked for."""
    from secateur.records import write_record

    if path is not None:
        write_record(path, record)
