"""Save and load networks: how to build the dense one, the plan, and the weights of what is left."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from secateur.errors import RecordError
from secateur.graph.tensors import named_tensors
from secateur.nets.spec import ModelSpec
from secateur.prune.plan import PruningPlan
from secateur.prune.surgery import count_fewer_, replace_tensors_
from secateur.records import atomic_path, read_record, write_record
from secateur.store.sparse import load_sparse, save_sparse

ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"
SPARSE_WEIGHTS = "model.sparse.safetensors"  # in its place where many numbers are zero


def save(
    model: nn.Module,
    folder: Path | str,
    *,
    spec: ModelSpec,
    plan: PruningPlan | None = None,
    input_shape: Sequence[int] | None = None,
    sparse: bool = False,
) -> None:
    """Write ``architecture.json`` and ``model.safetensors`` into ``folder``, from which `load` rebuilds ``model``.

    Args:
        model: the network, dense or pruned.
        folder: made where it does not exist.
        spec: how to build the dense network.
        plan: what was removed from it; composed with ``then`` where there were several removals.
        input_shape: of one sample with its batch dimension, ``(1, C, *space)``, so that commands need not be told.
        sparse: leave zeros out, in ``model.sparse.safetensors``; see `secateur.store.sparse`.

    Raises:
        RecipeError: the builder of a pruned network cannot be imported or called.
    """
    folder = Path(folder)
    twin = None if plan is None else _built(spec)
    resized = _resized_buffers(model, twin)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(model, resized).items()}
    if sparse:
        save_sparse(folder / SPARSE_WEIGHTS, tensors)
    else:
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary)
    (folder / (WEIGHTS if sparse else SPARSE_WEIGHTS)).unlink(missing_ok=True)
    widths = {name: norm.num_features for name, norm in _bare_norms(model).items()}
    record = {
        "spec": spec.to_json(),
        "plan": plan.to_json() if plan else None,
        "norm_widths": widths,
        "counts": {} if twin is None else _lower_counts(model, twin, tensors, widths),
        "input_shape": None if input_shape is None else list(input_shape),
    }
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
    model = _built(spec)
    saved = _saved(folder)
    _check(folder, _tensors(model, saved), saved, pruned=plan is not None)
    replace_tensors_(model, saved)
    record = read_record(folder / ARCHITECTURE)
    _set_widths_(model, record["norm_widths"])
    counts = dict(_counts(model))
    for name, count in record.get("counts", {}).items():
        if name not in counts:
            raise RecordError(f"{folder}: the builder makes nothing that counts {name}; was its package updated?")
        count_fewer_(model, name, counts[name] - count)
    return model


def read_architecture(folder: Path | str) -> tuple[ModelSpec, PruningPlan | None]:
    """The recipe of the network in ``folder``: how to build the dense one, and what was removed."""
    folder = Path(folder)
    record = read_record(folder / ARCHITECTURE)
    try:
        spec = ModelSpec(record["spec"]["builder"], record["spec"]["kwargs"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{folder / ARCHITECTURE} does not say how to build the network ({error}).") from error
    return spec, PruningPlan.from_json(record["plan"]) if record.get("plan") else None


def read_input_shape(folder: Path | str) -> tuple[int, ...] | None:
    """``(1, C, *space)`` that the network in ``folder`` was saved with; None where nobody said."""
    shape = read_record(Path(folder) / ARCHITECTURE).get("input_shape")
    return None if shape is None else tuple(int(size) for size in shape)


def _saved(folder: Path) -> dict[str, Tensor]:
    if (folder / SPARSE_WEIGHTS).is_file():
        return load_sparse(folder / SPARSE_WEIGHTS)
    try:
        # in memory of their own: where a tensor lies in the file decides by which kernels, and so how it is rounded
        return {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{folder / WEIGHTS} cannot be read ({error}).") from error


def _built(spec: ModelSpec) -> nn.Module:
    """The dense network in eval mode on the CPU; torch's random state is as before."""
    with torch.random.fork_rng(devices=()):
        return spec.build().cpu().eval()


def _tensors(model: nn.Module, also: Collection[str]) -> dict[str, Tensor]:
    """Parameters and persistent buffers, and those that are named, shared ones once, by first name."""
    wanted = {*model.state_dict(), *also}
    named = named_tensors(model)
    return {name: tensor for name, tensor in named.items() if name in wanted}


def _resized_buffers(model: nn.Module, twin: nn.Module | None) -> list[str]:
    """The buffers of other shapes than the builder makes: those are saved although they are not persistent."""
    built = {} if twin is None else dict(twin.named_buffers())
    return [name for name, buffer in model.named_buffers() if name in built and built[name].shape != buffer.shape]


def _lower_counts(
    model: nn.Module, twin: nn.Module, tensors: Mapping[str, Tensor], widths: Mapping[str, int]
) -> dict[str, int]:
    """What modules count, such as norm groups and heads, where nothing else tells of fewer; changes ``twin``."""
    if _tensors(twin, tensors).keys() == tensors.keys():  # another network is for `load` to refuse
        replace_tensors_(twin, tensors)
        _set_widths_(twin, widths)
    built = dict(_counts(twin))
    return {name: count for name, count in _counts(model) if name in built and built[name] != count}


def _counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Every integer attribute of every module, by the names that `secateur.prune.surgery.count_fewer_` takes."""
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, value in vars(module).items():
            if type(value) is int:
                yield f"{prefix}{name}", value
            elif name == "axes_lengths" and isinstance(value, dict):  # of an einops layer
                yield from ((f"{prefix}{name}[{axis}]", length) for axis, length in value.items())


def _bare_norms(model: nn.Module) -> dict[str, _NormBase]:
    """Norms that hold no tensor which would tell their width."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.weight is None and module.running_mean is None
    }


def _set_widths_(model: nn.Module, widths: Mapping[str, int]) -> None:
    for name, norm in _bare_norms(model).items():
        norm.num_features = widths[name]


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
