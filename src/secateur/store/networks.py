"""Save and load networks: how to build the dense one, the plan, and the weights of what is left."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from secateur.errors import RecordError
from secateur.nets.spec import ModelSpec
from secateur.prune.plan import PruningPlan
from secateur.prune.surgery import replace_tensors_
from secateur.records import atomic_path, read_record, write_record

ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"


def save(model: nn.Module, folder: Path | str, *, spec: ModelSpec, plan: PruningPlan | None = None) -> None:
    """Write ``architecture.json`` and ``model.safetensors`` into ``folder``, from which `load` rebuilds ``model``.

    Args:
        model: the network, dense or pruned.
        folder: made where it does not exist.
        spec: how to build the dense network.
        plan: what was removed from it; composed with ``then`` where there were several removals.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(model).items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    widths = {name: norm.num_features for name, norm in _bare_norms(model).items()}
    record = {"spec": spec.to_json(), "plan": plan.to_json() if plan else None, "norm_widths": widths}
    write_record(folder / ARCHITECTURE, record)


def load(folder: Path | str) -> nn.Module:
    """Rebuild the network that `save` wrote, in eval mode on the CPU.

    The builder named in the folder is imported and called: load only folders that you trust.

    Raises:
        RecordError: files are missing, of another schema, or do not belong together.
        RecipeError: the builder cannot be imported or called.
    """
    folder = Path(folder)
    spec, plan = read_architecture(folder)
    model = spec.build().eval()
    try:
        saved = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{folder / WEIGHTS} cannot be read ({error}).") from error
    _check(folder, _tensors(model), saved, pruned=plan is not None)
    replace_tensors_(model, saved)
    widths = read_record(folder / ARCHITECTURE)["norm_widths"]
    for name, norm in _bare_norms(model).items():
        norm.num_features = widths[name]
    return model


def read_architecture(folder: Path) -> tuple[ModelSpec, PruningPlan | None]:
    """The recipe of the network in ``folder``: how to build the dense one, and what was removed."""
    record = read_record(folder / ARCHITECTURE)
    try:
        spec = ModelSpec(record["spec"]["builder"], record["spec"]["kwargs"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{folder / ARCHITECTURE} does not say how to build the network ({error}).") from error
    return spec, PruningPlan.from_json(record["plan"]) if record.get("plan") else None


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, shared ones once, by first name."""
    persistent = model.state_dict().keys()
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in named.items() if name in persistent}


def _bare_norms(model: nn.Module) -> dict[str, _NormBase]:
    """Norms that hold no tensor which would tell their width."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.weight is None and module.running_mean is None
    }


def _check(folder: Path, built: dict[str, Tensor], saved: dict[str, Tensor], *, pruned: bool) -> None:
    if built.keys() != saved.keys():
        odd = sorted(built.keys() ^ saved.keys())[:3]
        raise RecordError(
            f"{folder}: the weights and the builder disagree on the tensors {odd}; was the builder's package updated?"
        )
    for name, tensor in saved.items():
        expected = tuple(built[name].shape)
        shape = tuple(tensor.shape)
        fits = len(shape) == len(expected) and all(a <= b for a, b in zip(shape, expected, strict=True))
        if not fits or (shape != expected and not pruned):
            raise RecordError(f"{folder}: {name} has shape {shape}, the builder makes {expected}.")
