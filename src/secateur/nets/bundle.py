"""MONAI bundles: ``configs/`` that describe a network, ``models/model.pt`` with its weights."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from secateur.errors import InputError, RecordError
from secateur.nets.checkpoint import put_weights_, read_weights
from secateur.nets.spec import ModelSpec, searched
from secateur.nets.trained import TrainedNetwork, read_json

_CONFIGS = tuple(f"{name}.{suffix}" for name in ("inference", "train") for suffix in ("json", "yaml", "yml"))
_NETWORKS = ("network_def", "network")
_WEIGHTS = Path("models") / "model.pt"


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is the folder of a MONAI bundle."""
    return (path / "configs").is_dir() and (path / "models").is_dir()


def load_bundle(path: Path) -> TrainedNetwork:
    """Rebuild the network of a MONAI bundle, from ``network_def`` of its inference or training configuration.

    Configurations may hold Python expressions, which MONAI evaluates, and name the code that builds the network: load
    only bundles that you trust, as you would install a package. The weights are a pickle, of which only tensors
    are read: see `secateur.nets.checkpoint.read_checkpoint`.

    Returns:
        The network; the input's shape, where ``metadata.json`` gives it in numbers; the spec, where the network's
        arguments are plain values.

    Raises:
        InputError: ``path`` is not a bundle.
        RecordError: a file is missing or unreadable, or they do not fit together.
    """
    if not is_bundle(path):
        raise InputError(f"{path} is not a MONAI bundle: it has no folders configs and models.")
    config = next((path / "configs" / name for name in _CONFIGS if (path / "configs" / name).is_file()), None)
    if config is None:
        raise RecordError(f"{path / 'configs'} has none of {', '.join(_CONFIGS)}.")
    with searched(path.resolve()):  # its scripts/
        model, spec = _network(path, config)
    file = path / _WEIGHTS
    if not file.is_file():
        raise RecordError(f"{path} has no {_WEIGHTS}; download the bundle's weights, see its README.")
    put_weights_(model, read_weights(file), file)
    return TrainedNetwork(model.eval(), _input_shape(path / "configs" / "metadata.json"), spec, file)


def _network(path: Path, config: Path) -> tuple[nn.Module, ModelSpec | None]:
    from monai.bundle import ConfigParser

    try:
        parser = ConfigParser(ConfigParser.load_config_file(config))
        parser["bundle_root"] = str(path)
        name = next(name for name in _NETWORKS if isinstance(parser.get(name), dict))
        component = parser.get_parsed_content(name, instantiate=False)
        module, _, builder = str(component.resolve_module_name()).rpartition(".")
        arguments = component.resolve_args()
        parser.parse(reset=True)
        model = parser.get_parsed_content(name)
    except StopIteration:
        raise RecordError(f"{config} describes no network; it needs an entry {' or '.join(_NETWORKS)}.") from None
    except Exception as error:  # a configuration may evaluate anything
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise RecordError(f"{config}: its network cannot be built ({type(error).__name__}: {reason}).") from error
    if not isinstance(model, nn.Module):
        raise RecordError(f"{config}: {name!r} builds a {type(model).__name__}, not a network.")
    plain = _with_lists(arguments)
    return model, ModelSpec(f"{module}:{builder}", plain) if _is_json(plain) else None


def _input_shape(metadata: Path) -> tuple[int, ...] | None:
    """``(1, C, *space)`` of the first input; None where there is none, or sides are expressions such as ``16*n``."""
    if not metadata.is_file():
        return None
    inputs = read_json(metadata).get("network_data_format", {}).get("inputs", {})
    first: dict[str, Any] = next(iter(inputs.values()), {})
    shape = (1, first.get("num_channels"), *first.get("spatial_shape", ()))
    return shape if len(shape) > 2 and all(isinstance(size, int) for size in shape) else None


def _with_lists(value: Any) -> Any:  # any argument of a network
    """Lists in the place of tuples, which only expressions can make: builders take either."""
    if isinstance(value, dict):
        return {key: _with_lists(entry) for key, entry in value.items()}
    return [_with_lists(entry) for entry in value] if isinstance(value, list | tuple) else value


def _is_json(arguments: object) -> bool:
    try:
        return bool(json.loads(json.dumps(arguments)) == arguments)
    except (TypeError, ValueError):
        return False
