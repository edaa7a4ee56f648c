"""Rewinding: what is left goes back to its values from early in training, and trains again."""

from collections.abc import Mapping

from torch import Tensor, nn

from secateur.errors import PlanMismatchError
from secateur.prune.weights.masks import WeightMasks
from secateur.prune.wrappers import parameters_of, unwrapped


def rewind_(model: nn.Module, early: Mapping[str, Tensor], masks: WeightMasks) -> None:
    """Give ``model`` its state from an early epoch back, running statistics included, with the masks applied.

    Training then repeats the rest of the first training (`TrainRecipe.skip_epochs`), with a new optimizer: weight
    rewinding as in Renda, Frankle & Carbin 2020 (arXiv 2003.02389) and, for one round, Frankle et al. 2020
    (arXiv 1912.05671).

    Args:
        model: the network, or a wrapper around it.
        early: its state dict after that epoch, as `TrainRecipe.keep_epoch` keeps it.
        masks: what stays.

    Raises:
        PlanMismatchError: the state or the masks belong to another network; the network is as it was.
    """
    shapes = {name: tuple(value.shape) for name, value in early.items()}
    network = unwrapped(model, shapes)
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wrong = next((name for name in [*own, *shapes] if own.get(name) != shapes.get(name)), None)
    if wrong is not None:
        raise PlanMismatchError(
            f"the early state has {wrong!r} in the shape {shapes.get(wrong)}, this network {own.get(wrong)}; "
            f"rewind to a state of the same network."
        )
    parameters_of(network, masks.shapes)
    network.load_state_dict(early)
    masks.apply_(network)
