"""The command `geodtr-export`: one file a group of commands, heavy imports inside the call that needs them."""

import ctypes
import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from math import isfinite
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer.core import TyperCommand, TyperOption

from geodtr import __version__
from geodtr.cli.build.bench import bench
from geodtr.cli.build.build_engine import build_engine
from geodtr.cli.build.calibrate import calibrate
from geodtr.cli.build.export import export, inspect
from geodtr.cli.build.parity import parity
from geodtr.cli.console import messages
from geodtr.cli.deploy.archive import bundle
from geodtr.cli.deploy.doctor import doctor
from geodtr.cli.deploy.embed import embed
from geodtr.cli.deploy.gallery.commands import gallery
from geodtr.cli.deploy.localize.command import localize
from geodtr.cli.deploy.photos import photos
from geodtr.cli.deploy.serve import serve
from geodtr.cli.train.data import data, flight, world
from geodtr.cli.train.demo import demo
from geodtr.cli.train.evaluate import evaluate, visualize
from geodtr.cli.train.models import import_checkpoint
from geodtr.cli.train.published import published
from geodtr.cli.train.simulate import simulate
from geodtr.cli.train.train import finetune, resume, train
from geodtr.runtime.errors import ArgumentError, UserError
from geodtr.runtime.installation import naming_extras

_UNREACHABLE = (errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors for a path that cannot be examined, valid or not."""
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS)
"""Errors of the machine or its limits."""
_CALLED = {"field_of_view": "fov", "camera": "undistort", "stride_metres": "stride"}
"""What commands call an argument of Python by."""
_LARGEST = 2**32 - 1
"""Of a whole number that an option takes: the largest seed."""

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class _Command(TyperCommand):
    """A command that refuses an option given twice: the last value would silently take the place of the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            if isinstance(option, TyperOption) and not (option.multiple or option.is_flag) and given.count(option) > 1:
                raise typer.BadParameter("it is given twice, and takes one value.", ctx, option)
        return super().parse_args(ctx, args)


for function in (
    *(demo, world, flight, train, resume, finetune, import_checkpoint, evaluate, visualize, published),
    *(calibrate, build_engine, export, inspect, parity, bench),
    *(doctor, embed, photos, localize, serve, simulate),
):
    app.command()(function)
for name, group in (("data", data), ("gallery", gallery), ("bundle", bundle)):
    app.add_typer(group, name=name)
for each in (app, data, gallery, bundle):
    for command in each.registered_commands:
        command.cls = _Command


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
    """The installed command: this process's arguments, streams and signals."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    _open_streams()
    _explain_files_cut_short()
    # Pillow warns of odd metadata in images that it reads well; a user can do nothing about it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        run(sys.argv[1:])
    finally:
        # The command has ended and its files are written: a late signal would only change the exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _let_go_of_streams()


def run(arguments: Sequence[str]) -> NoReturn:
    """Run one command line and exit; a user's mistake is one message and exit code 2, never a traceback."""
    if "" in arguments:
        _fail("An argument is empty, as a variable of the shell that is not set makes it. State it, or leave it out.")
    try:
        with naming_extras():
            sys.exit(_command()(list(arguments)))
    except SystemExit as leaving:
        if leaving.code == 2:
            _mention_dashes(arguments)
        raise
    except ArgumentError as error:
        _fail(error.spelled(lambda name: _option(name, arguments)), error.exit_code)
    except UserError as error:
        _fail(str(error), error.exit_code)
    except ImportError as error:
        if os.strerror(errno.EMFILE) not in str(error):
            raise
        _fail(f"{error}. Raise the limit of open files: ulimit -n")
    except UnicodeEncodeError as error:
        if not any("\ud800" <= letter <= "\udfff" for letter in error.object):
            raise
        _fail(
            f"{error.object} is not UTF-8 and cannot be recorded in a document. Rename the file or folder, and repeat."
        )
    except OSError as error:
        named = error.filename2 or error.filename  # of a copy, where it goes
        where = "" if named is None else f"{os.fsdecode(named)}: "
        if error.errno in _EXHAUSTED:
            _fail(f"{where}{error.strerror}. Free space or raise the limit (ulimit -a shows them), and repeat.")
        if error.errno not in _UNREACHABLE:
            raise
        _fail(f"{error.filename} cannot be reached: {error.strerror}. Check the path, and whether you may read it.")


def _option(name: str, arguments: Sequence[str]) -> str:
    """The option of the given command by which a user states what Python calls `name`: the one of that name or of the
    one in _CALLED, or the only one that ends with it, as --refine-places does with `places`; `name` itself where there
    is none.
    """
    command = _command()
    for argument in arguments:
        command = getattr(command, "commands", {}).get(argument, command)
    options = {each.name: each.opts[0] for each in command.params if each.param_type_name == "option"}
    alike = [option for key, option in options.items() if key.endswith(f"_{name}")]
    return options.get(name) or options.get(_CALLED.get(name, "")) or (alike[0] if len(alike) == 1 else name)


def _mention_dashes(arguments: Sequence[str]) -> None:
    """Say how to name a file whose name begins with a dash, where an argument that was refused is one."""
    for argument in arguments:
        if argument.startswith("-") and len(argument) > 1 and os.path.lexists(argument):
            messages.print(
                f"{argument} is a file: write ./{argument}, or -- before it and after all options.", markup=False
            )


@cache
def _command() -> Any:
    """The whole command line, each of whose options refuses numbers that nothing can be done with."""
    command = typer.main.get_command(app)
    for one in _every(command):
        one.help = _paragraphs(one.help or "")
        for parameter in one.params:
            if parameter.callback is None:
                parameter.callback = _check_number
    return command


def _every(command: Any) -> Iterator[Any]:
    """The command, and all that are below it."""
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from _every(one)


def _paragraphs(text: str) -> str:
    """The text without its source's line ends within paragraphs, for a terminal breaks lines by its own width."""
    return "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))


def _check_number(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    del context
    if isinstance(value, float) and not isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.", param=parameter)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise typer.BadParameter(f"{value} is too large; at most {_LARGEST}.", param=parameter)
    return value


def _open_streams() -> None:
    """Open standard input, output and error where the process was started without them.

    Each is opened so that reading or writing it fails. Otherwise a file opened later, such as a gallery, would get its
    number, and what libraries print. Characters that the terminal's encoding lacks are printed as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY), True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain_files_cut_short() -> None:
    """End in a message where another process cuts a file that is mapped here, such as a gallery's descriptors.

    The system reports it (SIGBUS) in the middle of a library's code, which Python's own handlers would repeat without
    end. Reading copies instead would take a search three to five times as long.
    """
    ctypes.CDLL(None).signal(signal.SIGBUS, _END_CUT_SHORT)


def _end_cut_short(number: int) -> None:
    del number
    os.write(2, b"Error: A file was cut short by another process while it was read. Copy it again, and repeat.\n")
    os._exit(2)


_END_CUT_SHORT = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end_cut_short)


def _let_go_of_streams() -> None:
    """Drop what could not be written and was reported: Python would try again, and print a traceback."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _fail(text: str, code: int = 2) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        sys.exit(code)  # one of the processes that torchrun started speaks for all
    messages.print("Error:", style="bold red", end=" ")
    messages.print(text)
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
