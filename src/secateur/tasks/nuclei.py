"""The nuclei task: every single nucleus of a tile, from a mask and a map of distances."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, cast, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from secateur.data.cases import SPLITS, CaseId, ImageArray
from secateur.data.distance import distance_targets
from secateur.data.instances import InstanceCase, LabelArray, Marking, load_instances
from secateur.data.nuclei_synthetic import SyntheticTile
from secateur.data.sources import DataRecipe, locate
from secateur.data.windows import NucleiSet, mirrored_to, to_tensor
from secateur.deploy.parity import Labels, classes
from secateur.deploy.runtimes import Array
from secateur.errors import CheckError, DataError, InputError
from secateur.records import Record
from secateur.tasks.inference import device_of, inference
from secateur.tasks.nuclei_record import NucleiResult, Seconds, measure, summary
from secateur.tasks.outlines import outline
from secateur.tasks.watershed import Map, Merge, Prediction, choose_constants, merge_branches
from secateur.train.objective import distillation_loss

# The mean square of the targets is 0.05 on the Kumar tiles. So weighted, answering 0 everywhere costs both branches
# about 1: the distance loss, and the Dice loss.
_DISTANCE_WEIGHT = 20.0
# Standard deviation of the blending weights over S. With MONAI's 1/8 they reach their floor before the window ends, and
# windows meet with a step along the border of a tile.
_BLEND = 0.2
_FAST = torch.channels_last  # CPUs convolve a quarter faster so
_MOST_NUCLEI = 2**16 - 1  # in a 16-bit PNG


@final
@dataclass(frozen=True)
class NucleiTask:
    """Loss, sets, prediction and metrics for networks that map ``(N, 3, H, W)`` in [0, 1] to ``(N, 2, H, W)``.

    Channel 0 of their output is the logit of nucleus against background, channel 1 the distance, see
    `distance_targets`.

    Attributes:
        size: side S in pixels of the windows that a network is trained on and slid over a tile.
        marking: how the files of a folder mark nuclei.
        merge: constants of the watershed.
        overlap: of neighbouring windows, as a share of S; blended with a Gaussian.
    """

    name: ClassVar[str] = "nuclei"
    score: ClassVar[str] = "dice_and_correlation"
    paired: ClassVar[tuple[str, ...]] = (
        "aji",
        "pq",
        "instance_dice",
        "semantic_dice",
        "distance_mse",
        "distance_correlation",
    )
    size: int
    marking: Marking = Marking.LABELS
    merge: Merge = field(default_factory=Merge)
    overlap: float = 0.25

    def load_cases(self, data: DataRecipe) -> dict[str, list[InstanceCase]]:
        """Return the cases by split; synthetic tiles are two windows wide and high.

        Raises:
            DataError: the folder is missing or malformed; see `load_instances`.
        """
        if not data.synthetic:
            folder = load_instances(locate(data.source), seed=data.seed, marking=self.marking)
            return {split: [*cases] for split, cases in folder.items()}
        counts = {"train": data.train, "val": data.val, "test": data.test}
        return {
            split: [
                SyntheticTile(CaseId(f"synthetic-{split}-{index:04d}"), (data.seed, stream, index), 2 * data.size)
                for index in range(counts[split])
            ]
            for stream, split in enumerate(SPLITS)
        }

    def require(self, model: nn.Module) -> None:
        """Refuse a network that does not map a window to the mask's logit and the distance.

        Raises:
            InputError: says what it maps a window to.
        """
        window = torch.zeros(1, 3, self.size, self.size, device=device_of(model))
        with inference(model):
            _checked(model(window), window)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy and soft Dice loss of the mask plus the squared error of the distances.

        Args:
            output: ``(N, 2, H, W)``.
            target: ``(N, 2, H, W)``: mask of 0 and 1, and distances in [0, 1].

        Returns:
            float32 ``(N,)``. Samples do not see each other. The mask's loss is that of
            `secateur.tasks.polyp.PolypTask.loss`. The distances' is 20 times the mean squared error over all pixels,
            background included, so that the two branches weigh alike (1:1, as in the dual-decoder networks of the
            authors of Mahbod et al. 2022).
        """
        from monai.losses import DiceLoss

        output, target = output.float(), target.float()
        logits, mask = output[:, :1], target[:, :1]
        dice: Tensor = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")(logits, mask)
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean(dim=(1, 2, 3))
        error = F.mse_loss(output[:, 1], target[:, 1], reduction="none").mean(dim=(1, 2))
        return dice.flatten() + entropy + _DISTANCE_WEIGHT * error

    def agreement(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return per sample ``(N,)`` `distillation_loss` of the mask plus, as in `loss`, 20 times the squared error.

        The teacher's distances are not softened: they are numbers, not logits.
        """
        mask = distillation_loss(student[:, :1], teacher[:, :1], temperature=temperature)
        error = F.mse_loss(student[:, 1], teacher[:, 1].detach(), reduction="none").mean(dim=(1, 2))
        return mask + _DISTANCE_WEIGHT * error

    def labels(self, output: Array) -> Labels:
        """Return the mask where its probability is above one half, bool ``(H, W)``, of an output ``(1, 2, H, W)``."""
        return classes(output[:, :1])

    def training_set(self, cases: Iterable[InstanceCase], *, augment: bool = True, seed: int = 0) -> NucleiSet:
        """Read ``cases`` for training (other windows and stains each epoch) or, without ``augment``, for `validate`."""
        return NucleiSet(cases, size=self.size, augment=augment, seed=seed)

    def branches(self, model: nn.Module, image: ImageArray) -> tuple[Map, Map]:
        """Return probability and distance of every pixel of an RGB image ``(H, W, 3)``, float32 ``(H, W)`` each.

        Windows slide over the image and are blended with Gaussian weights; an image smaller than a window is mirrored
        to its size. The model runs in eval mode where its parameters are, and gets its modes back.

        Raises:
            CheckError: an output is not finite.
            InputError: the network has not two output channels.
        """
        from monai.inferers import sliding_window_inference

        height, width = image.shape[:2]
        shown = to_tensor(cast(ImageArray, mirrored_to(image, self.size)))
        with inference(model):
            output = sliding_window_inference(
                shown.to(device_of(model)),
                roi_size=(self.size, self.size),
                sw_batch_size=4,
                predictor=lambda windows: _checked(model(windows.contiguous(memory_format=_FAST)), windows),
                overlap=self.overlap,
                mode="gaussian",
                sigma_scale=_BLEND,
            )
        maps = cast(Tensor, output)[0, :, :height, :width]
        if not bool(maps.isfinite().all()):
            raise CheckError(
                "the network gives numbers that are not finite, so there is nothing to measure; take a checkpoint from "
                "before its training diverged."
            )
        return maps[0].sigmoid().cpu().numpy(), maps[1].cpu().numpy()

    def predict(self, model: nn.Module, image: ImageArray) -> LabelArray:
        """Return the nuclei of an RGB image ``(H, W, 3)``, int32 ``(H, W)``; see `branches` and `merge_branches`.

        Raises:
            InputError: the network has not two output channels.
        """
        return merge_branches(*self.branches(model, image), self.merge)

    @property
    def constants(self) -> Record:
        """Those of the watershed."""
        return self.merge.model_dump()

    def with_constants(self, constants: Record) -> Self:
        """Return this task with these constants of the watershed."""
        return replace(self, merge=Merge(**constants))

    def tuned(self, dense: nn.Module, cases: Iterable[InstanceCase]) -> Self:
        """Return this task with the constants that suit ``dense`` on the validation ``cases``; see `choose_constants`.

        Raises:
            DataError: no cases, or one cannot be read.
            InputError: the network has not two output channels.
        """
        read = (case.read() for case in cases)
        predictions = (Prediction(*self.branches(dense, image), truth) for image, truth in read)
        return replace(self, merge=choose_constants(predictions))

    def validate(self, model: nn.Module, samples: NucleiSet, *, batch_size: int = 8) -> float:
        """Return the mean of both branches' scores over windows, in [-1/2, 1]: quick, to choose a checkpoint by.

        The mask scores its mean Dice per window (1 if neither truth nor prediction has a nucleus), the distances
        Pearson's correlation over all pixels inside true nuclei of all windows (0 where it is undefined, as for a
        constant answer). `evaluate` gives the numbers to report.
        """
        dices, sums = [], torch.zeros(6, dtype=torch.float64)
        with inference(model):
            for image, target in DataLoader(samples, batch_size=batch_size):
                output = _checked(model(image.to(device_of(model))), image).cpu()
                dices.append(_window_dices(output[:, 0] > 0, target[:, 0] > 0))
                inside = target[:, 0] > 0
                sums += _moments(output[:, 1][inside].double(), target[:, 1][inside].double())
        return (float(torch.cat(dices).mean()) + _correlation(sums)) / 2

    def evaluate(
        self,
        model: nn.Module,
        cases: Iterable[InstanceCase],
        *,
        split: str,
        dense_predictions: Path | None = None,
        predictions: Path | None = None,
    ) -> Record:
        """Measure every case at its own size and return the record of `evaluation.json`.

        ``metrics``: of the mask ``semantic_dice`` and ``semantic_iou``; of the distances, inside true nuclei,
        ``distance_mse`` and ``distance_correlation``; of the nuclei ``aji``, ``pq``, ``dq``, ``sq``, ``f1`` and
        ``instance_dice`` (definitions: `secateur.metrics`). ``nuclei`` counts fates
        (`secateur.metrics.fates.Fates`), and of the nuclei that the network before the cut kept, those that are lost,
        merged or split now. ``seconds`` is the mean per case of reading it, the network, the watershed and the metrics.

        Args:
            model: network to measure.
            cases: tiles to measure on; wrap them to show progress.
            split: name of the part of the data that they are.
            dense_predictions: the ``predictions`` of the network before the cut; None if ``model`` is that network.
            predictions: folder for `<id>.png`, `<id>_truth.png` (16-bit labels) and `<id>_image.jpg` of every case;
                None writes nothing.

        Raises:
            DataError: no cases, a case cannot be read, or a dense prediction is absent or of another size.
            InputError: the network has not two output channels.
        """
        results, times, synthetic = [], [], False
        for case in cases:
            result, seconds = self._measured(model, case, dense_predictions, predictions)
            results.append(result)
            times.append(seconds)
            synthetic |= isinstance(case, SyntheticTile)
        if not results:
            raise DataError(f"the split {split!r} has no case to evaluate; give it at least one.")
        head = {"task": self.name, "split": split, "n_cases": len(results), "synthetic": synthetic}
        return {**head, "input_size": self.size, "merge": self.merge.model_dump(), **summary(results, times)}

    def to_input(self, image: ImageArray, size: int) -> Tensor:
        """Return the window in the middle of ``image``, float32 ``(1, 3, size, size)``; a smaller image is mirrored."""
        return to_tensor(_middle(image, size))

    def draw(self, image: ImageArray, output: Tensor) -> ImageArray:
        """Return the window that `to_input` cut for ``output`` ``(1, 2, S, S)``, with the nuclei in it outlined."""
        nuclei = merge_branches(output[0, 0].sigmoid().numpy(), output[0, 1].numpy(), self.merge)
        return outline(_middle(image, output.shape[-1]), nuclei)

    def _measured(
        self, model: nn.Module, case: InstanceCase, dense_predictions: Path | None, predictions: Path | None
    ) -> tuple[NucleiResult, Seconds]:
        marks = [time.perf_counter()]
        image, truth = case.read()
        marks.append(time.perf_counter())
        probability, distance = self.branches(model, image)
        marks.append(time.perf_counter())
        found = merge_branches(probability, distance, self.merge)
        marks.append(time.perf_counter())
        dense = None if dense_predictions is None else _read_labels(dense_predictions, case.id, truth.shape)
        mask = probability >= self.merge.threshold
        result = measure(
            case.id, found=found, mask=mask, distance=distance, target=distance_targets(truth), truth=truth, dense=dense
        )
        marks.append(time.perf_counter())
        if predictions is not None:
            _save(predictions, case.id, image=image, truth=truth, found=found)
        return result, Seconds(*np.diff(marks).tolist())


def _checked(output: object, windows: Tensor) -> Tensor:
    expected = (len(windows), 2, *windows.shape[2:])
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"the network maps {tuple(windows.shape)} to {found}; the nuclei task needs (N, 2, H, W), a mask's logit "
            "and a distance. Build it with one of secateur.nets.nuclei."
        )
    return output.float()


def _window_dices(found: Tensor, truth: Tensor) -> Tensor:
    both = (found & truth).sum(dim=(1, 2))
    total = found.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)


def _moments(x: Tensor, y: Tensor) -> Tensor:
    """Count, sums, sums of squares and of products."""
    return torch.stack((torch.tensor(float(len(x)), dtype=x.dtype), x.sum(), y.sum(), x @ x, y @ y, x @ y))


def _correlation(moments: Tensor) -> float:
    """Pearson's r from `_moments`; 0 where one side does not vary."""
    n, x, y, xx, yy, xy = moments.tolist()
    spread = max(0.0, n * xx - x * x) * max(0.0, n * yy - y * y)
    return (n * xy - x * y) / spread**0.5 if spread > 0 else 0.0


def _middle(image: ImageArray, size: int) -> ImageArray:
    tile = mirrored_to(image, size)
    rows, columns = (slice((side - size) // 2, (side - size) // 2 + size) for side in tile.shape[:2])
    return cast(ImageArray, tile[rows, columns])


def _read_labels(folder: Path, case_id: CaseId, shape: tuple[int, ...]) -> LabelArray:
    """Read nuclei that `NucleiTask.evaluate` wrote."""
    path = folder / f"{case_id}.png"
    try:
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.int32)
    except OSError as error:
        raise DataError(f"the prediction {path} cannot be read ({error}); evaluate the dense run again.") from error
    if labels.shape != shape:
        raise DataError(
            f"the dense prediction of case {case_id} is {labels.shape[1]}x{labels.shape[0]} pixels, the case "
            f"{shape[1]}x{shape[0]}; evaluate the dense run again on the same data."
        )
    return labels


def _save(folder: Path, case_id: CaseId, *, image: ImageArray, truth: LabelArray, found: LabelArray) -> None:
    if max(truth.max(), found.max()) > _MOST_NUCLEI:
        raise DataError(
            f"case {case_id} has more than {_MOST_NUCLEI} nuclei, too many for 16-bit label files; cut it into tiles."
        )
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{case_id}_image.jpg", quality=90)
    Image.fromarray(truth.astype(np.uint16)).save(folder / f"{case_id}_truth.png")
    Image.fromarray(found.astype(np.uint16)).save(folder / f"{case_id}.png")
