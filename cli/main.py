"""The command `geodtr-export`: one file a group of commands, heavy imports inside the call that needs them."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from geodtr import __version__
from geodtr.cli.build import bench, parity
from geodtr.cli.build import build_engine as building
from geodtr.cli.build import calibrate as calibration
from geodtr.cli.build import export as engines
from geodtr.cli.console import messages
from geodtr.cli.deploy import doctor, gallery, localize
from geodtr.cli.deploy import embed as flight
from geodtr.cli.train import data, demo, models
from geodtr.cli.train import evaluate as evaluation
from geodtr.cli.train import train as training
from geodtr.runtime.errors import UserError
from geodtr.runtime.installation import naming_extras

_UNREACHABLE = (errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors for a path that cannot be examined, valid or not."""

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
for module in (
    data,
    training,
    models,
    evaluation,
    calibration,
    building,
    engines,
    parity,
    bench,
    doctor,
    gallery,
    flight,
    localize,
):
    module.add_to(app)


def _print_version(asked: bool) -> None:
    """A callback, for `root` itself is not called where no command is given."""
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take a cross-view geo-localisation model from training to a vehicle, and prove that nothing was lost on the way.

    Exit codes: 0 done, 1 a gate was not met, 2 wrong usage or input, 3 a gate is undecided.
    """
    del show_version


def main() -> None:
    """The installed command: this process's arguments and signals."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    run(sys.argv[1:])


def run(arguments: Sequence[str]) -> NoReturn:
    """Run one command line and exit; a user's mistake is one message and exit code 2, never a traceback."""
    try:
        with naming_extras():
            sys.exit(app(list(arguments)))
    except UserError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in _UNREACHABLE:
            raise
        _fail(f"{error.filename} cannot be reached: {error.strerror}. Check the path, and whether you may read it.")


def _fail(text: str, code: int = 2) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        sys.exit(code)  # one of the processes that torchrun started speaks for all
    messages.print("Error:", style="bold red", end=" ")
    messages.print(text, soft_wrap=True)
    sys.exit(code)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Leave through every open `with`, so that nothing half-written stays behind; a second signal must not cut that."""
    del frame
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    messages.print("Interrupted.")
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
