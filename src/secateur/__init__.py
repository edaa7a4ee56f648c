"""secateur: medical image segmentation networks made small and fast, with proof.

Names are imported on first use, so that ``import secateur`` and the command line's help stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.graph.group_norm import GroupNormMode as GroupNormMode
    from secateur.graph.records import ChannelGraph as ChannelGraph
    from secateur.graph.records import ChannelGroup as ChannelGroup
    from secateur.graph.records import GroupId as GroupId
    from secateur.nets.spec import ModelSpec as ModelSpec
    from secateur.prune.allocate import allocate as allocate
    from secateur.prune.budget import MacsBudget as MacsBudget
    from secateur.prune.budget import ParamsBudget as ParamsBudget
    from secateur.prune.compaction import compact as compact
    from secateur.prune.criteria.criterion import Criterion as Criterion
    from secateur.prune.criteria.norms import L1Norm as L1Norm
    from secateur.prune.criteria.norms import L2Norm as L2Norm
    from secateur.prune.criteria.random import Random as Random
    from secateur.prune.criteria.taylor import LossGradient as LossGradient
    from secateur.prune.criteria.taylor import RandomGradient as RandomGradient
    from secateur.prune.criteria.taylor import TaylorFirstOrder as TaylorFirstOrder
    from secateur.prune.criteria.taylor import TaylorMode as TaylorMode
    from secateur.prune.criteria.uniform_width import UniformWidth as UniformWidth
    from secateur.prune.evidence import Evidence as Evidence
    from secateur.prune.in_place import remove_ as remove_
    from secateur.prune.plan import PruningPlan as PruningPlan
    from secateur.prune.surgery import remove as remove
    from secateur.prune.surgery import remove_with_proof as remove_with_proof
    from secateur.prune.trial import trace as trace
    from secateur.store.networks import load as load
    from secateur.store.networks import save as save

_HOMES = {
    "ChannelGraph": "graph.records",
    "ChannelGroup": "graph.records",
    "GroupId": "graph.records",
    "GroupNormMode": "graph.group_norm",
    "ModelSpec": "nets.spec",
    "allocate": "prune.allocate",
    "MacsBudget": "prune.budget",
    "ParamsBudget": "prune.budget",
    "compact": "prune.compaction",
    "Criterion": "prune.criteria.criterion",
    "L1Norm": "prune.criteria.norms",
    "L2Norm": "prune.criteria.norms",
    "Random": "prune.criteria.random",
    "LossGradient": "prune.criteria.taylor",
    "RandomGradient": "prune.criteria.taylor",
    "TaylorFirstOrder": "prune.criteria.taylor",
    "TaylorMode": "prune.criteria.taylor",
    "UniformWidth": "prune.criteria.uniform_width",
    "Evidence": "prune.evidence",
    "PruningPlan": "prune.plan",
    "remove": "prune.surgery",
    "remove_": "prune.in_place",
    "remove_with_proof": "prune.surgery",
    "trace": "prune.trial",
    "load": "store.networks",
    "save": "store.networks",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # whatever lives under that name
    if name not in _HOMES:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(import_module(f"secateur.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
