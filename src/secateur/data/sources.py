"""Where the cases of a run come from."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from secateur.data.cases import SPLITS, Case, CaseId
from secateur.data.folders import load_folder
from secateur.data.synthetic import SyntheticCase

SYNTHETIC = "synthetic"


class DataRecipe(BaseModel):
    """Source and input size of a run's data.

    Attributes:
        source: ``"synthetic"``, or a folder in one of the layouts of `secateur.data.folders`; a name that is not a
            folder here is looked up in the folder that the environment variable ``SECATEUR_DATA`` names.
        size: side in pixels of the square that the network sees; synthetic frames are drawn in this size.
        seed: draws the synthetic frames, or the split of a folder without `splits.json`.
        augment: show training frames in random views. Real data sets are small and need it; synthetic frames can be
            drawn in any number, and a short run learns more from new frames than from views of old ones.
        marking: how files mark nuclei: ``labels``, a number each, or ``binary``, one value for all of them, of which
            every connected component counts as one nucleus. For the nuclei task.
        train: number of synthetic frames to train on.
        val: number of synthetic frames that choose the checkpoint.
        test: number of synthetic frames that are only evaluated; enough for an interval of a few Dice points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(default=SYNTHETIC, min_length=1)
    size: int = Field(default=128, ge=32)
    seed: int = Field(default=0, ge=0)
    augment: bool = True
    marking: Literal["labels", "binary"] = "labels"
    train: int = Field(default=240, ge=1)
    val: int = Field(default=40, ge=1)
    test: int = Field(default=60, ge=1)

    @property
    def synthetic(self) -> bool:
        """Whether the frames are drawn by us, so that results say nothing about patients."""
        return self.source == SYNTHETIC


def load_cases(recipe: DataRecipe) -> dict[str, list[Case]]:
    """Return the cases of ``recipe`` by split: "train", "val" and "test", none empty.

    Synthetic frames of one split do not depend on how many the other splits have.

    Raises:
        DataError: the folder is missing or malformed; see `secateur.data.folders.load_folder`.
    """
    if not recipe.synthetic:
        return load_folder(locate(recipe.source), seed=recipe.seed)
    counts = {"train": recipe.train, "val": recipe.val, "test": recipe.test}
    return {
        split: [
            SyntheticCase(CaseId(f"synthetic-{split}-{index:04d}"), (recipe.seed, stream, index), recipe.size)
            for index in range(counts[split])
        ]
        for stream, split in enumerate(SPLITS)
    }


def locate(source: str) -> Path:
    """Where a data folder lies: as given, or else in the folder that ``SECATEUR_DATA`` names."""
    here = Path(source).expanduser()
    collection = os.environ.get("SECATEUR_DATA")
    return here if here.exists() or not collection else Path(collection) / source
