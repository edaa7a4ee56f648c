"""nnU-Net's trained-model folders: ``plans.json``, ``dataset.json``, ``fold_x/checkpoint_*.pth``."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from secateur.errors import InputError, RecordError
from secateur.nets.checkpoint import put_weights_, read_checkpoint
from secateur.nets.spec import ModelSpec
from secateur.nets.trained import TrainedNetwork, read_json

_PLANS, _DATASET = "plans.json", "dataset.json"
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_UNETS = {  # plans older than nnU-Net 2.5 name only the class
    "PlainConvUNet": ("dynamic_network_architectures.architectures.unet.PlainConvUNet", "n_conv_per_stage"),
    "ResidualEncoderUNet": (
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "n_blocks_per_stage",
    ),
}


def is_nnunet(path: Path) -> bool:
    """Whether ``path`` is a trained-model folder of nnU-Net, one of its folds, or a checkpoint in one."""
    return _root(path) is not None


def load_nnunet(path: Path, *, deep_supervision: bool = False) -> TrainedNetwork:
    """Rebuild a trained nnU-Net.

    Args:
        path: the trained-model folder (its first fold and final checkpoint are taken), a fold folder, or a
            checkpoint in one. Checkpoints are pickles: see `secateur.nets.checkpoint.read_checkpoint`.
        deep_supervision: return the outputs of all resolutions, as in nnU-Net's training, not only the full one.

    Returns:
        The network, the shape of one patch, and the spec that builds it from the plans' own arguments.

    Raises:
        InputError: ``path`` is none of these, or the extra ``nnunet`` is missing.
        RecordError: a file is missing, unreadable, or does not fit the others.
    """
    root = _root(path)
    if root is None:
        raise InputError(f"{path} is not a trained-model folder of nnU-Net: it has no {_PLANS} and {_DATASET}.")
    plans, dataset = read_json(root / _PLANS), read_json(root / _DATASET)
    file = _checkpoint(path, root)
    checkpoint = read_checkpoint(file)
    try:
        name = checkpoint["init_args"]["configuration"]
        configuration = _configuration(plans, name)
        architecture = configuration.get("architecture") or _from_old_plans(configuration)
        channels, classes = _input_channels(dataset, configuration), _output_channels(dataset)
        spec = ModelSpec(
            "secateur.nets.nnunet:build_nnunet",
            {
                "network": architecture["network_class_name"],
                "arguments": architecture["arch_kwargs"],
                "imported": architecture["_kw_requires_import"],
                "input_channels": channels,
                "num_classes": classes,
                "deep_supervision": deep_supervision,
            },
        )
        shape = (1, channels, *(int(side) for side in configuration["patch_size"]))
        weights = checkpoint["network_weights"]
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{root}: {_PLANS}, {_DATASET} and {file.name} are not those of an nnU-Net (missing: {error}); "
            f"give the folder that nnU-Net trained into."
        ) from error
    model = spec.build().eval()
    put_weights_(model, weights, file)
    return TrainedNetwork(model, shape, spec, file)


def build_nnunet(
    network: str,
    arguments: Mapping[str, Any],
    imported: Sequence[str],
    *,
    input_channels: int,
    num_classes: int,
    deep_supervision: bool,
) -> nn.Module:
    """Build a network as nnU-Net's plans describe it, without nnU-Net.

    Args:
        network: dotted name of its class, of the package dynamic-network-architectures or any other.
        arguments: of that class, classes by their dotted names.
        imported: the ``arguments`` that are such names.
        input_channels: of the image.
        num_classes: logits per voxel.
        deep_supervision: return the outputs of all resolutions.

    Raises:
        InputError: a package that the plans name is not installed.
    """
    values = {key: _locate(value) if key in imported and value else value for key, value in arguments.items()}
    model = _locate(network)(
        input_channels=input_channels, num_classes=num_classes, deep_supervision=deep_supervision, **values
    )
    assert isinstance(model, nn.Module), "plans name a network"
    return model


def _root(path: Path) -> Path | None:
    """The trained-model folder that ``path`` lies in, at most two levels up."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / _PLANS).is_file() and (folder / _DATASET).is_file():
            return folder
    return None


def _checkpoint(path: Path, root: Path) -> Path:
    if path.is_file() and path.suffix == ".pth":
        return path
    folds = [path] if path != root else sorted(fold for fold in root.glob("fold_*") if fold.is_dir())
    for fold in folds:
        for name in _CHECKPOINTS:
            if (fold / name).is_file():
                return fold / name
    raise RecordError(f"{path} has no {' or '.join(_CHECKPOINTS)} in a folder fold_*; train a fold first.")


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits from others."""
    own = plans["configurations"][name]
    return {**(_configuration(plans, own["inherits_from"]) if "inherits_from" in own else {}), **own}


def _from_old_plans(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture in the words of today's plans."""
    known = configuration["UNet_class_name"]
    if known not in _UNETS:
        raise RecordError(f"the plans name the network {known!r}; of old plans only {', '.join(_UNETS)} are known.")
    network, depth = _UNETS[known]
    stages, dims = len(configuration["n_conv_per_stage_encoder"]), len(configuration["patch_size"])
    first, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return {
        "network_class_name": network,
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(first * 2**stage, most) for stage in range(stages)],
            "conv_op": f"torch.nn.Conv{dims}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            depth: configuration["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _input_channels(dataset: Mapping[str, Any], configuration: Mapping[str, Any]) -> int:
    """Images, and in a cascade the one-hot labels of the stage before."""
    images = len(dataset["channel_names"] if "channel_names" in dataset else dataset["modality"])
    return images + (len(_labels(dataset) - {0}) if configuration.get("previous_stage") else 0)


def _output_channels(dataset: Mapping[str, Any]) -> int:
    """One logit per label; with regions, one per region that is not background."""
    regions = [value for name, value in dataset["labels"].items() if name != "ignore"]
    if any(isinstance(value, list) and len(value) > 1 for value in regions):
        return sum(value not in (0, [0]) for value in regions)
    return len(_labels(dataset))


def _labels(dataset: Mapping[str, Any]) -> set[int]:
    values = [value for name, value in dataset["labels"].items() if name != "ignore"]
    return {int(label) for value in values for label in (value if isinstance(value, list) else [value])}


def _locate(name: str) -> Any:  # a class of the plans' choice
    """The class of that dotted name."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the plans need {name}, which cannot be imported ({error}); run `pip install secateur[nnunet]`, or "
            f"install the package that defines it."
        ) from error
