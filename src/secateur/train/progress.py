"""What people see while something runs: a bar on a terminal, plain lines or nothing elsewhere."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from secateur.records import Record

Item = TypeVar("Item")


@contextmanager
def watched(items: Iterable[Item], what: str, console: Console | None) -> Iterator[Iterable[Item]]:
    """Yield ``items`` with a bar named ``what`` on a terminal, which goes when the block ends, however it ends."""
    if console is None or not console.is_terminal:
        yield items
        return
    with Progress(console=console, transient=True) as bar:
        yield bar.track(items, description=what)


@contextmanager
def waiting(what: str, console: Console | None) -> Iterator[None]:
    """Show on a terminal that ``what`` is under way, and for how long, where nothing tells how much is left."""
    if console is None or not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(what, total=None)
        yield


@final
class EpochProgress:
    """A bar on a terminal, one plain line per epoch elsewhere, nothing without a console.

    Args:
        console: where to write; standard error is the place for it.
        stage: name of what is trained.
        epochs: of the whole stage.
        steps: in one epoch.
        done: epochs that an earlier process has already trained.
    """

    def __init__(self, console: Console | None, *, stage: str, epochs: int, steps: int, done: int) -> None:
        self._console = console
        self._stage = stage
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=console is None or not console.is_terminal,
            speed_estimate_period=600.0,  # seconds; long, so that the time left counts validation too
        )
        self._task = self._bar.add_task(
            stage, total=epochs * steps, completed=done * steps, epoch=done, epochs=epochs, numbers=""
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self) -> None:
        """One step is done."""
        self._bar.advance(self._task)

    def epoch(self, line: Record) -> None:
        """One epoch is done; ``line`` is its record in ``metrics.jsonl``."""
        score = next(key for key in line if key.startswith("val_"))
        name = score.removeprefix("val_").replace("_", " ").capitalize()
        numbers = f"loss {line['train_loss']:.4f}  {name} {line[score]:.4f}"
        self._bar.update(self._task, epoch=line["epoch"], numbers=numbers)
        if self._console is not None and not self._console.is_terminal:
            text = f"{self._stage}  epoch {line['epoch']}/{line['epochs']}  {numbers}  {line['seconds']:.1f} s"
            self._console.print(text, highlight=False, soft_wrap=True)
