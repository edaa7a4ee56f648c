"""The whole of a run's settings as frozen data: one YAML file, unknown keys fail."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from secateur.data.sources import DataRecipe
from secateur.deploy.timing import BenchRecipe
from secateur.errors import RecipeError
from secateur.nets.spec import ModelSpec
from secateur.prune.criteria import CRITERIA
from secateur.records import atomic_path
from secateur.train.recipe import DistillationRecipe, TrainRecipe


class PruneRecipe(BaseModel):
    """How a trained network is cut and recovers.

    Attributes:
        criterion: a name in `secateur.prune.criteria.CRITERIA`.
        budget: what ``keep_ratio`` limits on the whole network: MACs per frame, or parameters.
        keep_ratio: share of the dense network's cost to keep, in (0, 1].
        rounds: 1 cuts once; more cut in equal ratios, with ``round_epochs`` of recovery after each but the last.
        round_epochs: epochs between rounds.
        round_to: widths are multiples of this; 8 is what CPU kernels compute at once.
        min_channels: no group of channels falls below this many, so that no layer becomes a bottleneck of one channel.
        min_keep_ratio: nor below this share of its own width.
        scoring_samples: training frames that the criterion sees; None takes all.
        recovery: training after the last cut. A third of the usual rate, falling only: the weights are good already.
        distillation: learn from the dense network during recovery too; None does not. ``--set pruning.distillation={}``
            takes its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: str = "taylor"
    budget: Literal["macs", "params"] = "macs"
    keep_ratio: float = Field(0.10, gt=0, le=1)
    rounds: int = Field(1, ge=1)
    round_epochs: int = Field(3, ge=1)
    round_to: int = Field(8, ge=1)
    min_channels: int = Field(8, ge=1)
    min_keep_ratio: float = Field(0.0, ge=0, le=1)
    scoring_samples: int | None = Field(None, ge=1)
    recovery: TrainRecipe = TrainRecipe(epochs=20, learning_rate=5e-4, schedule="cosine")
    distillation: DistillationRecipe | None = None

    @field_validator("criterion")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in CRITERIA:
            near = difflib.get_close_matches(name, CRITERIA, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"no criterion is called {name!r}; {hint}known: {', '.join(CRITERIA)}")
        return name


class Recipe(BaseModel):
    """One run from data to page.

    Attributes:
        task: the clinical job.
        network: how to build the dense network.
        data: where cases come from, and the side of the network's input.
        training: of the dense network.
        pruning: cut and recovery.
        bench: runtimes and threads for latency.
        bench_size: side in pixels of the frame for which latency is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["polyp"] = "polyp"
    network: ModelSpec
    data: DataRecipe = DataRecipe()
    training: TrainRecipe = TrainRecipe()
    pruning: PruneRecipe = PruneRecipe()
    bench: BenchRecipe = BenchRecipe()
    bench_size: int = Field(352, ge=32)

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
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        raise RecipeError(f"{source}: {where}: {first['msg']} (given: {first['input']!r}).") from error


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``["training.epochs=3", ...]`` as a mapping; values are read as YAML, so that numbers are numbers.

    Raises:
        RecipeError: a pair has no "=", or its value is not YAML.
    """
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set {pair!r} has no value; write it as key=value, such as training.epochs=20.")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {key}: {text!r} is not a value ({' '.join(str(error).split())}).") from error
    return settings


def _replace(values: dict[str, Any], key: str, value: Any) -> None:  # JSON values
    *parents, last = key.split(".")
    holder: Any = values
    for depth, part in enumerate([*parents, last]):
        if not isinstance(holder, dict) or (part not in holder and ".".join(parents[:2]) != "network.kwargs"):
            known = ", ".join(holder) if isinstance(holder, dict) else "nothing below it"
            where = ".".join(key.split(".")[:depth]) or "a recipe"
            raise RecipeError(f"--set {key}: {where} has no {part!r}; it has {known}.")
        if depth < len(parents):
            holder = holder.setdefault(part, {})  # a builder's arguments may be new ones
    holder[last] = value
