"""A network that comes without data: cut it by its weights, with proof, and export what is left.

Nothing here recovers what a cut costs, and nothing measures it: that takes the data. What comes out is a folder that
`secateur.load` opens, to be trained on elsewhere.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from rich.console import Console
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.deploy.checked import export_checked
from secateur.deploy.timing import BenchRecipe
from secateur.errors import BudgetError, CheckError, InputError, RecipeError
from secateur.graph.group_norm import GroupNormMode
from secateur.graph.patch import random_inputs
from secateur.graph.records import ChannelGraph, GroupId
from secateur.opening import OpenedModel, open_model
from secateur.prune.allocate import Floors, allocate
from secateur.prune.budget import BUDGETS
from secateur.prune.criteria import CRITERIA
from secateur.prune.plan import PruningPlan
from secateur.prune.proof import Proof
from secateur.prune.removal_record import removal_record
from secateur.prune.surgery import remove_with_proof
from secateur.prune.trial import trace
from secateur.recipes.pruning import PruneRecipe, known_criterion
from secateur.records import Record, write_record
from secateur.store.folders import require_free, whole_folder
from secateur.store.networks import load, save
from secateur.store.runs import RunFolder
from secateur.train.progress import waiting

WITHOUT_DATA = ("l2", "l1", "random", "uniform")  # the criteria that look at weights alone, or at nothing
_USUAL = PruneRecipe()
_SAME = 1e-5  # of an output's largest value; float32 in another memory layout differs by less
_SEED = 0  # of the inputs on which exported files are compared


class CutRecipe(BaseModel):
    """How a network is cut by its weights alone: those settings of `PruneRecipe` that need no data.

    Attributes:
        criterion: one of `WITHOUT_DATA`.
        budget: what ``keep_ratio`` limits on the whole network: MACs per sample, or parameters.
        keep_ratio: share of the given network's cost to keep, in (0, 1].
        round_to: widths in channels are multiples of this.
        min_channels: no group falls below this many channels.
        min_keep_ratio: nor below this share of its own width.
        seed: draws what the criterion draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: str = WITHOUT_DATA[0]
    budget: Literal["macs", "params"] = "macs"
    keep_ratio: float = Field(gt=0, le=1)
    round_to: int = Field(_USUAL.round_to, ge=1)
    min_channels: int = Field(_USUAL.min_channels, ge=1)
    min_keep_ratio: float = Field(_USUAL.min_keep_ratio, ge=0, le=1)
    seed: int = Field(_USUAL.seed, ge=0)

    @field_validator("criterion")
    @classmethod
    def _needs_no_data(cls, name: str) -> str:
        if known_criterion(name) not in WITHOUT_DATA:
            raise ValueError(
                f"it needs data, which a network alone does not bring; take {', '.join(WITHOUT_DATA)}, score with "
                f"secateur.Evidence in Python, or prune a run folder of `secateur train`"
            )
        return name

    @property
    def floors(self) -> Floors:
        """Below what no group falls."""
        return Floors(self.round_to, self.min_channels, self.min_keep_ratio)


def cut_recipe(settings: Mapping[str, Any]) -> CutRecipe:
    """The recipe of settings by dotted keys, such as ``pruning.round_to``.

    Raises:
        BudgetError: nothing says how much to keep.
        RecipeError: a key is unknown or needs data, or a value does not fit.
    """
    values = {key.removeprefix("pruning."): value for key, value in settings.items()}
    for key, name in zip(settings, values, strict=True):
        if not key.startswith("pruning.") or name not in CutRecipe.model_fields:
            raise RecipeError(
                f"{key} cannot be set for a network that comes without data; what can, all of pruning: "
                f"{', '.join(CutRecipe.model_fields)}. For rounds and recovery, prune a run folder of `secateur train`."
            )
    if "keep_ratio" not in values:
        raise BudgetError(
            "give --macs-keep or --params-keep, such as --macs-keep 0.25: no recipe says how much to keep."
        )
    try:
        return CutRecipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"pruning.{first['loc'][0]}: {first['msg']} (given: {first['input']!r}).") from error


def choose(model: nn.Module, graph: ChannelGraph, recipe: CutRecipe) -> PruningPlan:
    """Score the units of ``graph`` and plan what stays; ``model`` is untouched.

    Raises:
        BudgetError: the budget cannot be reached; the message names the nearest one.
        EvidenceError: weights are not finite.
    """
    floors = recipe.floors
    return allocate(
        graph,
        CRITERIA[recipe.criterion](recipe.seed).score(model, graph),
        BUDGETS[recipe.budget](recipe.keep_ratio),
        round_to=floors.round_to,
        min_channels=floors.min_channels,
        min_keep_ratio=floors.min_keep_ratio,
    )


def at_floor(graph: ChannelGraph, plan: PruningPlan, floors: Floors) -> list[GroupId]:
    """The groups that lose units and could lose no more."""
    return [g.id for g in graph.groups if g.id in plan.kept and len(plan.kept[g.id]) == floors.kept(g)]


def prune(
    opened: OpenedModel,
    recipe: CutRecipe,
    out: Path,
    *,
    command: list[str],
    group_norm: GroupNormMode = GroupNormMode.WHOLE,
    overwrite: bool = False,
    console: Console | None = None,
) -> Record:
    """Cut a network by its weights, prove the cut, and write it to ``out``; ``opened.model`` is untouched.

    ``out`` appears when everything is in it: ``architecture.json`` and ``model.safetensors``, from which `load` was
    seen to give the proved network back, ``prune.json`` and ``run.json``.

    Args:
        opened: the network; one that was cut before is cut further.
        recipe: criterion, budget and floors.
        out: the folder to write.
        command: for the record of commands in ``run.json``.
        group_norm: what leaves of a GroupNorm at a time, see `secateur.trace`.
        overwrite: ``out`` may be a run folder, whose place is taken.
        console: where progress is shown.

    Returns:
        What ``prune.json`` says. ``dense`` is the network as it was given; ``rounds`` is empty, since none recovered.

    Raises:
        InputError: ``out`` is taken or holds the network itself, or nothing says how to build the network again.
        BudgetError: the budget cannot be reached; the message names the nearest one.
        GraphError: the network cannot be traced.
        ProofError: the removal was not exact; nothing is written.
        CheckError: the folder would not give the proved network back; nothing is written.
    """
    spec = opened.spec
    if spec is None:
        raise InputError(
            f"{opened.name} builds its network from objects that no JSON holds, so that no folder could give it back; "
            f"write plain values into its configuration, or name the builder and give --kwargs and --weights."
        )
    require_free(out, overwrite=overwrite)
    for source in (Path(opened.name), opened.weights):
        if source is not None and source.exists() and source.resolve().is_relative_to(out.resolve()):
            raise InputError(f"{out} holds the network that is to be pruned; give another --out.")
    with waiting("trace", console):
        graph = trace(opened.model, torch.zeros(opened.input_shape), group_norm=group_norm)
    started = time.perf_counter()
    plan = choose(opened.model, graph, recipe)
    scoring_seconds = time.perf_counter() - started
    with waiting("remove and prove", console):
        small, proof = remove_with_proof(opened.model, graph, plan)
    record = _record(opened, graph, plan, recipe, proof, scoring_seconds) | {"group_norm": group_norm.value}
    with waiting("save and load again", console), whole_folder(out, overwrite=overwrite) as folder:
        RunFolder(folder).begin(_facts(opened, out, recipe), command, resume=False, overwrite=False)
        composed = plan if opened.plan is None else opened.plan.then(plan)
        save(small, folder, spec=spec, plan=composed, input_shape=opened.input_shape)
        _require_same(load(folder), small, graph, spec.builder)
        write_record(folder / "prune.json", record)
    return record


def export(
    folder: Path,
    *,
    formats: Sequence[str],
    command: list[str],
    input_shape: str = "",
    cases: int = 3,
    console: Console | None = None,
) -> Record:
    """Write the network in ``folder``, saved without a recipe, as files that need no secateur; see `export_checked`.

    Args:
        folder: that `prune` or `secateur.save` wrote; the files go to ``export/`` in it.
        formats: names in `secateur.deploy.checked.FORMATS`.
        command: for the record of commands.
        input_shape: of one sample, in the place of the one it was saved with.
        cases: seeded normal inputs on which the files are compared with PyTorch.
        console: where progress is shown.
    """
    opened = open_model(str(folder), input_shape=input_shape)
    generator = torch.Generator().manual_seed(_SEED)
    inputs = [torch.randn(1, *opened.input_shape[1:], generator=generator) for _ in range(cases)]
    with waiting(f"export {', '.join(formats)}", console):
        record = export_checked(
            opened.model,
            inputs,
            folder / "export",
            formats=formats,
            threads=BenchRecipe().threads,
            facts={"inputs": "random inputs", "seed": _SEED, "input_shape": list(inputs[0].shape)},
        )
    if (folder / "run.json").is_file():
        RunFolder(folder).note(command)
    return record


def _record(
    opened: OpenedModel, graph: ChannelGraph, plan: PruningPlan, recipe: CutRecipe, proof: Proof, seconds: float
) -> Record:
    return {
        **removal_record(graph, graph.keep(plan.kept)),
        "model": opened.name,
        "weights": None if opened.weights is None else str(opened.weights),
        "criterion": recipe.criterion,
        "criterion_settings": CRITERIA[recipe.criterion](recipe.seed).settings(),
        "budget": {"kind": recipe.budget, "keep_ratio": recipe.keep_ratio},
        "reached": dict(plan.reached),
        "round_to": recipe.round_to,
        "min_channels": recipe.min_channels,
        "min_keep_ratio": recipe.min_keep_ratio,
        "distillation": None,
        "at_floor": at_floor(graph, plan, recipe.floors),
        "proof": proof.to_record(),
        "rounds": [],
        "scoring": {"samples": 0, "zero_gradients": 0, "seconds": seconds},
    }


def _facts(opened: OpenedModel, out: Path, recipe: CutRecipe) -> Record:
    """What ``run.json`` starts with."""
    return {
        "name": out.resolve().name,
        "role": "pruned",
        "parent": None,
        "model": opened.name,
        "weights": None if opened.weights is None else str(opened.weights),
        "seed": recipe.seed,
        "input_shape": list(opened.input_shape),
    }


def _require_same(again: nn.Module, small: nn.Module, graph: ChannelGraph, builder: str) -> None:
    """Raise unless the network from the folder says what the proved one says, in eval mode."""
    inputs = random_inputs(graph.patch, like=small)
    try:
        pairs = list(zip(_outputs(small, inputs), _outputs(again, inputs), strict=True))
        wrong = [f"an output differs by {_distance(*pair):.3g}" for pair in pairs if not _distance(*pair) <= _SAME]
    except Exception as error:  # a user's forward may raise anything
        wrong = [next(iter(str(error).strip().splitlines()), type(error).__name__)]
    if wrong:
        raise CheckError(
            f"the folder would not give the proved network back ({wrong[0]}), so nothing was written. {builder} must "
            f"build the same network from the same arguments."
        )


def _distance(before: Tensor, after: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((before - after).abs().max() / before.abs().max().clamp_min(1e-30))


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return [leaf.double() for leaf in tree_leaves(model.eval()(*inputs)) if isinstance(leaf, Tensor)]
