"""Which sparse networks a sweep over compression ratios compares, as frozen data."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from secateur.recipes.sweep import Share

Compression = Annotated[float, Field(ge=1, allow_inf_nan=False)]

_SUBSETS = ("repeated_compressions", "random_compressions", "small_compressions", "branch_compressions")


class RatioSweepRecipe(BaseModel):
    """Scopes x compression ratios x seeds of one task, and the rows beside them.

    Everything else about a cell (recovery, rounds, which layers, ...) is the recipe's ``sparsity``, the same for all.

    Attributes:
        scopes: how masks are chosen; see `secateur.recipes.sparsity.SparsityRecipe`.
        compressions: weights before / weights left. 1 removes nothing and recovers like the others: what the further
            training alone is worth.
        seeds: one dense training each. All compressions are made from the first.
        repeated_compressions: those that are made from the other dense networks too; None means all.
        random_compressions: those at which random masks with the same number of weights per layer stand beside, for
            the first seed.
        small_compressions: those beside which, for the first seed, a dense network with as many parameters as are left,
            thinner in every layer, is trained from fresh weights for as many epochs as dense training and recovery
            took together.
        branches: parts of the network by module name, such as ``semantic``, and
        branch_compressions: the ratios at which each of them alone, for the first seed, loses weights layer by layer.
        structured_keep_ratios: shares of the MACs to which the same dense network is cut by whole filters, as the
            recipe's ``pruning`` says: what makes it fast.
        before_recovery: whether to measure every cut before its recovery too, which takes as long as measuring it
            after.
        elsewhere: further data whose test split, which nothing is trained or chosen on, is evaluated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: tuple[Literal["layer", "network"], ...] = Field(("layer", "network"), min_length=1)
    compressions: tuple[Compression, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    repeated_compressions: tuple[Compression, ...] | None = None
    random_compressions: tuple[Compression, ...] = ()
    small_compressions: tuple[Compression, ...] = ()
    branches: tuple[str, ...] = ()
    branch_compressions: tuple[Compression, ...] = ()
    structured_keep_ratios: tuple[Share, ...] = ()
    before_recovery: bool = True
    elsewhere: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        for name in type(self).model_fields:
            values = getattr(self, name)
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{name} names one value twice: {', '.join(map(str, values))}")
        if bool(self.branches) != bool(self.branch_compressions):
            raise ValueError("branches and branch_compressions go together; give both or neither")
        for name in _SUBSETS:
            unknown = set(getattr(self, name) or ()) - set(self.compressions)
            if unknown:
                raise ValueError(f"{name} has {min(unknown):g}, which is not among compressions {self.compressions}")
        return self
