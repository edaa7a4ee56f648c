"""The polyp task: one binary mask a colonoscopy frame."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from secateur.data.cases import Case, CaseId, ImageArray, MaskArray
from secateur.data.dataset import PolypSet, to_input
from secateur.data.sources import DataRecipe, load_cases
from secateur.data.synthetic import SyntheticCase
from secateur.deploy.parity import classes
from secateur.errors import DataError, InputError
from secateur.metrics.aggregate import summarize
from secateur.metrics.lesions import has_false_lesion, lesion_ious, lost_lesions, seen_lesions
from secateur.metrics.overlap import overlap
from secateur.metrics.surface import hd95
from secateur.records import Record
from secateur.tasks.inference import device_of, inference
from secateur.train.objective import distillation_loss

_COLOUR = np.array((0, 220, 255), dtype=np.uint8)  # cyan: far from the reds of mucosa


@final
@dataclass(frozen=True)
class PolypTask:
    """Loss, sets, prediction and metrics for networks that map ``(N, 3, S, S)`` to logits ``(N, 1, S, S)``.

    Attributes:
        size: side S in pixels of the network's input.
    """

    name: ClassVar[str] = "polyp"
    score: ClassVar[str] = "dice"
    paired: ClassVar[tuple[str, ...]] = ("dice",)
    constants: ClassVar[Record] = {}
    size: int

    def with_constants(self, constants: Record) -> "PolypTask":
        """Return this task: there is nothing to choose."""
        return self

    def tuned(self, dense: nn.Module, cases: Iterable[Case]) -> "PolypTask":
        """Return this task: there is nothing to choose."""
        return self

    def load_cases(self, data: DataRecipe) -> dict[str, list[Case]]:
        """See `secateur.data.sources.load_cases`."""
        return load_cases(data)

    def require(self, model: nn.Module) -> None:
        """Refuse a network that does not map a frame to one logit per pixel.

        Raises:
            InputError: says what it maps a frame to.
        """
        with inference(model):
            _logits(model, torch.zeros(1, 3, self.size, self.size, device=device_of(model)))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return soft Dice loss plus binary cross-entropy of each sample.

        Args:
            logits: ``(N, 1, H, W)``.
            target: ``(N, 1, H, W)``, 0 or 1.

        Returns:
            float32 ``(N,)``. Samples do not see each other. The Dice loss is 1 - (2 sum(p t) + 1) / (sum(p) +
            sum(t) + 1) (after Milletari 2016, without squares), where the added pixel keeps an empty frame
            finite. The cross-entropy is the mean over pixels.
        """
        from monai.losses import DiceLoss

        logits, target = logits.float(), target.float()
        dice: Tensor = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")(logits, target)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return dice.flatten() + entropy.mean(dim=(1, 2, 3))

    agreement = staticmethod(distillation_loss)
    labels = staticmethod(classes)

    def training_set(self, cases: Iterable[Case], *, augment: bool = True, seed: int = 0) -> PolypSet:
        """Read ``cases`` for training (another view each epoch) or, without ``augment``, for `validate`."""
        return PolypSet(cases, size=self.size, augment=augment, seed=seed)

    def predict(self, model: nn.Module, image: ImageArray) -> MaskArray:
        """Return the predicted mask of an RGB image ``(H, W, 3)`` at its own size, bool ``(H, W)``.

        The model runs in eval mode where its parameters are, and gets its modes back; then `to_mask`.

        Raises:
            InputError: the network has not one output channel.
        """
        with inference(model):
            logits = _logits(model, to_input(image, self.size).to(device_of(model)))
            return to_mask(logits, image.shape[:2])

    def validate(self, model: nn.Module, frames: PolypSet, *, batch_size: int = 16) -> float:
        """Return the mean Dice over ``frames``, at the network's size: quick, to choose a checkpoint by.

        `evaluate` gives the numbers to report. A frame without a polyp in truth and prediction counts 1.
        """
        scores = []
        with inference(model):
            for image, target in DataLoader(frames, batch_size=batch_size):
                found = _logits(model, image.to(device_of(model))).cpu() > 0
                truth = target > 0
                both = (found & truth).sum(dim=(1, 2, 3))
                total = found.sum(dim=(1, 2, 3)) + truth.sum(dim=(1, 2, 3))
                scores.append(torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0))
        return float(torch.cat(scores).mean())

    def evaluate(
        self,
        model: nn.Module,
        cases: Iterable[Case],
        *,
        split: str,
        dense_predictions: Path | None = None,
        predictions: Path | None = None,
    ) -> Record:
        """Measure every case at its own size and return the record of `evaluation.json`.

        A polyp is an 8-connected component of the truth. It is lost if the dense network's prediction has a
        component with an IoU of 0.5 or more with it, and the prediction of ``model`` none of 0.1 or more. A
        frame has a false polyp if a component of the prediction, of 0.05 % of the frame or more, shares no
        pixel with the truth. Definitions in full: `secateur.metrics`.

        Args:
            model: network to measure.
            cases: frames to measure on; wrap them to show progress.
            split: name of the part of the data that they are.
            dense_predictions: the ``predictions`` of the network before the cut; None if ``model`` is that network.
            predictions: folder for `<id>.png`, `<id>_truth.png` and `<id>_image.jpg` of every case; None
                writes nothing.

        Raises:
            DataError: no cases, a case cannot be read, or a dense prediction is absent or of another size.
            InputError: the network has not one output channel.
        """
        results, synthetic = [], False
        for case in cases:
            image, truth = case.read()
            found = self.predict(model, image)
            dense = None if dense_predictions is None else _read_prediction(dense_predictions, case.id, truth.shape)
            results.append(_measure(case.id, found, truth, dense=dense))
            synthetic |= isinstance(case, SyntheticCase)
            if predictions is not None:
                _save(predictions, case.id, image=image, truth=truth, found=found)
        if not results:
            raise DataError(f"the split {split!r} has no case to evaluate; give it at least one.")
        head = {"task": self.name, "split": split, "n_cases": len(results), "synthetic": synthetic}
        return {**head, "input_size": self.size, **_summary(results)}

    def to_input(self, image: ImageArray, size: int) -> Tensor:
        """See `secateur.data.dataset.to_input`."""
        return to_input(image, size)

    def draw(self, image: ImageArray, output: Tensor) -> ImageArray:
        """The `overlay` of the mask that the logits ``(1, 1, S, S)`` give."""
        return overlay(image, to_mask(output, image.shape[:2]))


def to_mask(logits: Tensor, shape: tuple[int, ...]) -> MaskArray:
    """Return the mask of one image at its own size, bool ``(H, W)``.

    The logits are resized bilinearly, then cut at 0 (probability one half).

    Args:
        logits: float32 ``(1, 1, S, S)``, of `data.dataset.to_input` of the image, whatever computed them.
        shape: ``(H, W)`` of the image.
    """
    resized = F.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
    mask: MaskArray = (resized[0, 0] > 0).cpu().numpy()
    return mask


def overlay(image: ImageArray, mask: MaskArray) -> ImageArray:
    """Return a copy of ``image`` with the mask tinted and a line around it; all other pixels are as they were.

    The line lies outside of the mask, so that a polyp of a few pixels has one too and what the mask covers stays
    to be seen. It is a 250th of the shorter side thick, 2 pixels or more.

    Args:
        image: RGB ``(H, W, 3)``.
        mask: bool ``(H, W)``; an empty one changes nothing.

    Raises:
        InputError: image and mask have not the same size.
    """
    if image.shape != (*mask.shape, 3):
        raise InputError(
            f"an image of shape {image.shape} and a mask of shape {mask.shape} were given; the mask needs the image's "
            "own size: see `to_mask`."
        )
    drawn = image.copy()
    if not mask.any():
        return drawn
    width = max(2, round(min(mask.shape) / 250))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = tuple(slice(max(0, places[0] - width), places[-1] + width + 1) for places in (rows, columns))
    inside, part = mask[box], _pixels(drawn)[box]
    around = maximum_filter(inside, size=2 * width + 1, mode="constant") & ~inside
    rows_of_bytes = drawn[box].reshape(len(part), -1)
    tinted = (rows_of_bytes // 4 * 3 + np.tile(_COLOUR // 4, part.shape[1])).reshape(*part.shape, 3)
    np.copyto(part, _pixels(tinted), where=inside)
    np.copyto(part, _pixels(_COLOUR), where=around)
    return drawn


@final
@dataclass(frozen=True)
class _Result:
    """One case; ``seen`` and ``lost`` count polyps, and are None for the dense network itself."""

    id: CaseId
    metrics: Mapping[str, float]
    polyps: int
    seen: int | None
    lost: int | None
    false_polyp: bool

    def record(self) -> Record:
        values = {name: None if math.isnan(value) else value for name, value in self.metrics.items()}
        lost = {} if self.lost is None else {"polyps_lost": self.lost}
        return {"id": self.id, **values, "polyps": self.polyps, **lost, "false_polyp": self.false_polyp}


def _measure(case_id: CaseId, found: MaskArray, truth: MaskArray, *, dense: MaskArray | None) -> _Result:
    counts = overlap(found, truth)
    return _Result(
        id=case_id,
        metrics={
            "dice": counts.dice,
            "iou": counts.iou,
            "precision": counts.precision,
            "recall": counts.recall,
            "hd95_px": hd95(found, truth),
        },
        polyps=len(lesion_ious(found, truth)),
        seen=None if dense is None else int(seen_lesions(dense, truth).sum()),
        lost=None if dense is None else int(lost_lesions(found, truth, dense=dense).sum()),
        false_polyp=has_false_lesion(found, truth),
    )


def _summary(results: list[_Result]) -> Record:
    against_dense = results[0].lost is not None
    return {
        "metrics": {
            name: summarize([result.metrics[name] for result in results]).record() for name in results[0].metrics
        },
        "cases": [result.record() for result in results],
        "polyps": {
            "total": sum(result.polyps for result in results),
            "seen_by_dense": sum(result.seen or 0 for result in results) if against_dense else None,
            "lost": sum(result.lost or 0 for result in results) if against_dense else None,
        },
        "false_polyp_frames": {"count": sum(result.false_polyp for result in results), "of": len(results)},
    }


def _read_prediction(folder: Path, case_id: CaseId, shape: tuple[int, ...]) -> MaskArray:
    """Read a mask that `PolypTask.evaluate` wrote."""
    path = folder / f"{case_id}.png"
    try:
        with Image.open(path) as image:
            mask: MaskArray = np.asarray(image) > 127
    except OSError as error:
        raise DataError(f"the prediction {path} cannot be read ({error}); evaluate the dense run again.") from error
    if mask.shape != shape:
        raise DataError(
            f"the dense prediction of case {case_id} is {mask.shape[1]}x{mask.shape[0]} pixels, the case "
            f"{shape[1]}x{shape[0]}; evaluate the dense run again on the same data."
        )
    return mask


def _save(folder: Path, case_id: CaseId, *, image: ImageArray, truth: MaskArray, found: MaskArray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{case_id}_image.jpg", quality=90)
    Image.fromarray(truth.astype(np.uint8) * 255).save(folder / f"{case_id}_truth.png")
    Image.fromarray(found.astype(np.uint8) * 255).save(folder / f"{case_id}.png")


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != 1:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the network maps {tuple(images.shape)} to {found}; the polyp task needs logits (N, 1, H, W). "
            "Build it with one output channel."
        )
    return logits.float()


def _pixels(image: ImageArray) -> NDArray[np.void]:
    """View ``(..., 3)`` in C order as ``(...)``: whole pixels are picked ten times as fast as channels are."""
    pixels: NDArray[np.void] = image.view("V3")[..., 0]
    return pixels
