"""The command line: one file per command; nothing heavy is imported before a command runs."""

import sys

import typer

from secateur.cli import bench, demo, doctor, evaluate, export, inspect, prune, report, sweep, train
from secateur.errors import SecateurError

_INTERRUPTED = 130  # what Typer makes of Ctrl-C

app = typer.Typer(
    name="secateur",
    help="Make medical image segmentation networks small and real-time, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("prune")(prune.prune)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("inspect")(inspect.inspect)
app.command("sweep")(sweep.sweep)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run a command. Errors that are the user's to mend end in one line on stderr, never in a traceback."""
    try:
        app()
    except SecateurError as error:
        print(f"secateur: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            print("secateur: stopped; train, prune, sweep and demo go on with --resume.", file=sys.stderr)  # noqa: T201
        raise
