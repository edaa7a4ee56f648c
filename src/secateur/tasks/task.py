"""What the pipeline asks of a clinical job: its data, loss, metrics and pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor, nn

from secateur.data.cases import ImageArray
from secateur.data.sources import DataRecipe
from secateur.deploy.parity import Labels
from secateur.deploy.runtimes import Array
from secateur.records import Record
from secateur.train.loop import TrainingSet


class TaskSet(TrainingSet, Protocol):
    """Samples for training or validation, all read when it is made."""

    def unaugmented(self, first: int | None = None) -> Self:
        """The first ``first`` samples (all by default) as they are."""


class Task(Protocol):
    """One clinical job for networks that map ``(N, 3, H, W)`` to ``(N, K, H, W)``."""

    @property
    def name(self) -> str:
        """As recipes and records call it."""

    @property
    def score(self) -> str:
        """What `validate` returns, as a key of records: ``val_<score>``."""

    @property
    def paired(self) -> tuple[str, ...]:
        """The metrics whose values per case a sweep keeps, the leading one first."""

    @property
    def constants(self) -> Record:
        """What `tuned` chooses, as JSON values."""

    def with_constants(self, constants: Record) -> Self:
        """This task with ``constants`` of `constants`; those that are absent keep their defaults."""

    def tuned(self, dense: nn.Module, cases: Iterable[Any]) -> Self:
        """This task with the constants that suit ``dense`` best on the validation ``cases``, for all its cuts too."""

    def load_cases(self, data: DataRecipe) -> dict[str, list[Any]]:  # cases of the task's own kind
        """The cases by split: "train", "val" and "test", none empty.

        Raises:
            DataError: the folder is missing or malformed.
        """

    def require(self, model: nn.Module) -> None:
        """Refuse a network that does not give the outputs of this task.

        Raises:
            InputError: says which it gives and which are needed.
        """

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """One value per sample, ``(N,)``; samples do not see each other."""

    def agreement(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """How far a student's output is from its teacher's, ``(N,)``, zero when equal; see `distillation_loss`."""

    def labels(self, output: Array) -> Labels:
        """What an output ``(1, K, H, W)`` says of every pixel, ``(H, W)``; bool where there is one class."""

    def training_set(self, cases: Iterable[Any], *, augment: bool = True, seed: int = 0) -> TaskSet:
        """Read ``cases`` for training or, without ``augment``, for `validate`."""

    def validate(self, model: nn.Module, samples: Any) -> float:  # of `training_set`
        """A quick score to choose a checkpoint by; higher is better."""

    def evaluate(
        self,
        model: nn.Module,
        cases: Iterable[Any],
        *,
        split: str,
        dense_predictions: Path | None = None,
        predictions: Path | None = None,
    ) -> Record:
        """Measure every case and return the record of `evaluation.json`.

        Args:
            model: network to measure.
            cases: wrap them to show progress.
            split: name of the part of the data that they are.
            dense_predictions: the ``predictions`` of the network before the cut; None if ``model`` is that network.
            predictions: folder for what reports show of every case; None writes nothing.
        """

    def to_input(self, image: ImageArray, size: int) -> Tensor:
        """What a network sees of ``image``, float32 ``(1, 3, size, size)``."""

    def draw(self, image: ImageArray, output: Tensor) -> ImageArray:
        """What a person is shown: ``image`` with the result of the network's ``output`` on it."""
