"""The whole of a run's settings as frozen data: one YAML file, unknown keys fail."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secateur.data.sources import DataRecipe
from secateur.deploy.timing import BenchRecipe
from secateur.errors import RecipeError
from secateur.nets.spec import ModelSpec
from secateur.recipes.pruning import PruneRecipe
from secateur.recipes.ratios import RatioSweepRecipe
from secateur.recipes.sparsity import SparsityRecipe
from secateur.recipes.sweep import SweepRecipe
from secateur.records import atomic_path
from secateur.train.recipe import TrainRecipe


class _Yaml(yaml.SafeLoader):
    """YAML without numbers to the base of 60: 2:4 is text."""


def _plain_number(loader: _Yaml, node: yaml.ScalarNode) -> int | str:
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


_Yaml.add_constructor("tag:yaml.org,2002:int", _plain_number)


class Recipe(BaseModel):
    """One run from data to page.

    Attributes:
        task: the clinical job.
        network: how to build the dense network.
        data: where cases come from, and the side of the network's input.
        training: of the dense network.
        pruning: which filters are cut, and recovery.
        sparsity: which single weights are taken out instead, and recovery.
        bench: runtimes and threads for latency.
        bench_size: side in pixels of the frame for which latency is measured.
        sweep: which cuts of filters `secateur sweep` compares, over budgets.
        ratios: which sparse networks it compares instead, over compression ratios; None where it compares cuts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["polyp", "nuclei"] = "polyp"
    network: ModelSpec
    data: DataRecipe = DataRecipe()
    training: TrainRecipe = TrainRecipe()
    pruning: PruneRecipe = PruneRecipe()
    sparsity: SparsityRecipe = SparsityRecipe()
    bench: BenchRecipe = BenchRecipe()
    bench_size: int = Field(352, ge=32)
    sweep: SweepRecipe = SweepRecipe()
    ratios: RatioSweepRecipe | None = None

    def with_settings(self, settings: Mapping[str, Any]) -> "Recipe":
        """A copy with some settings replaced, by dotted keys such as ``training.epochs``.

        Raises:
            RecipeError: a key is unknown or a value does not fit; the message says which and why.
        """
        values = self.model_dump(mode="json")
        for key, value in settings.items():
            _replace(values, key, value)
        return parse_recipe(values, "the settings")

    def write(self, path: Path) -> None:
        """Write the recipe as YAML, atomically."""
        with atomic_path(path) as temporary:
            temporary.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def read_recipe(path: Path) -> Recipe:
    """Read a YAML file that `Recipe.write` or a person wrote.

    Raises:
        RecipeError: the file is missing, not YAML, or not a recipe.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Yaml)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from error
    return parse_recipe(values, str(path))


def parse_recipe(values: object, source: str) -> Recipe:
    """Check ``values`` and return them as a recipe; ``source`` names them in errors."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{source}: {where}: {message}{given}.") from error


def parse_settings(pairs: Sequence[str], *, sections: Sequence[str] | None = None) -> dict[str, Any]:
    """``["training.epochs=3", ...]`` as a mapping; values are read as YAML, so that numbers are numbers.

    Args:
        pairs: as they were typed.
        sections: what is read of a recipe; None for all of it.

    Raises:
        RecipeError: a pair has no "=", its value is not YAML, or it belongs to another section.
    """
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set {pair!r} has no value; write it as key=value.")
        section = key.partition(".")[0]
        if sections is not None and section in Recipe.model_fields and section not in sections:
            raise RecipeError(
                f"--set {pair} would change nothing: of a recipe this command reads only {', '.join(sections)}; leave "
                f"it out."
            )
        try:
            settings[key] = yaml.load(text, _Yaml)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {key}: {text!r} is not a value ({' '.join(str(error).split())}).") from error
    return settings


def _replace(values: dict[str, Any], key: str, value: Any) -> None:  # JSON values
    *parents, last = key.split(".")
    holder: Any = values
    for depth, part in enumerate([*parents, last]):
        if not isinstance(holder, dict) or (part not in holder and ".".join(parents[:2]) != "network.kwargs"):
            where = ".".join(key.split(".")[:depth]) or "a recipe"
            if holder is None:
                raise RecipeError(f"--set {key}: this recipe has no {where}; give all of it, as {where}={{...}}.")
            known = ", ".join(holder) if isinstance(holder, dict) else "nothing below it"
            raise RecipeError(f"--set {key}: {where} has no {part!r}; it has {known}.")
        if depth < len(parents):
            holder = holder.setdefault(part, {})  # a builder's arguments may be new ones
    holder[last] = value
