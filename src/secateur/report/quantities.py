"""The metrics that pages show: where records keep them, what they are called, and how they are written."""

from dataclasses import dataclass

from secateur.report import rounding


@dataclass(frozen=True)
class Quantity:
    """One metric per case, as a record has it.

    Attributes:
        key: in ``metrics`` and ``cases`` of ``evaluation.json``.
        name: in a sentence or on an axis.
        digits: decimals.
        lower_is_better: whether a rise is a loss.
    """

    key: str
    name: str
    digits: int = 3
    lower_is_better: bool = False

    @property
    def title(self) -> str:
        """The name at the beginning of a sentence, or in a table."""
        return self.name[0].upper() + self.name[1:]

    def text(self, value: float | None) -> str:
        """A value."""
        return rounding.score(value, self.digits)

    def change(self, value: float) -> str:
        """A difference of two values, with its sign."""
        return rounding.signed(value, self.digits)


DICE = Quantity("dice", "Dice")
POLYP_QUANTITIES = (
    DICE,
    Quantity("iou", "IoU"),
    Quantity("precision", "precision"),
    Quantity("recall", "recall"),
    Quantity("hd95_px", "HD95, px", lower_is_better=True),
)

SEMANTIC_DICE = Quantity("semantic_dice", "semantic Dice")
MSE = Quantity("distance_mse", "distance MSE", digits=4, lower_is_better=True)
CORRELATION = Quantity("distance_correlation", "distance correlation")
AJI = Quantity("aji", "AJI")
PQ = Quantity("pq", "PQ")
INSTANCE_DICE = Quantity("instance_dice", "instance Dice")
NUCLEI_QUANTITIES = (
    SEMANTIC_DICE,
    Quantity("semantic_iou", "semantic IoU"),
    MSE,
    CORRELATION,
    AJI,
    PQ,
    Quantity("dq", "DQ"),
    Quantity("sq", "SQ"),
    Quantity("f1", "F1"),
    INSTANCE_DICE,
)
