"""``secateur evaluate``: every case of a split, measured."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from secateur.cli.options import Data, Json


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    data: Data = None,
    marking: Annotated[
        Literal["labels", "binary"] | None,
        typer.Option(help="Of nuclei in --data: labels, or binary, of which every component counts as one."),
    ] = None,
    before_recovery: Annotated[bool, typer.Option(help="Measure the network as its last cut left it.")] = False,
    json: Json = None,
) -> None:
    """Measure every case: Dice, IoU, precision, recall, HD95, lost polyps; of nuclei AJI, PQ, their fates.

    Of a pruned network also what the dense one had found and the cut lost.
    """
    from secateur import measures
    from secateur.cli.options import session, write_json
    from secateur.cli.show import show_evaluation
    from secateur.errors import InputError
    from secateur.store.runs import RunFolder

    if marking is not None and data is None:
        raise InputError("--marking says how the masks of --data are marked; give --data too.")
    run, called = RunFolder(model), session()
    record = measures.evaluate(run, called, split=split, source=data, marking=marking, before_recovery=before_recovery)
    show_evaluation(record)
    write_json(json, record)
