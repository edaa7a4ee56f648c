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
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        code = error.exit_code
        wrong = error.format_message().removesuffix(".").replace("Value error, ", "")
        if wrong:  # without a command the help has been shown instead
            _say(f"{wrong}. See `{' '.join(_named_command())} --help`.")
    except SecateurError as error:
        code = error.exit_code
        _say(str(error))
    if code == _INTERRUPTED:
        _say("stopped; train, prune, sweep and demo go on with --resume.")
    sys.exit(code)


def _named_command() -> tuple[str, ...]:
    """As far as what was typed names one."""
    known = {command.name for command in app.registered_commands}
    return ("secateur", *(name for name in sys.argv[1:2] if name in known))


def _say(message: str) -> None:
    print(f"secateur: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
