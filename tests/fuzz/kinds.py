"""What the campaign feeds: kinds of input, each with how one is drawn and how all of it is used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from geodtr import UserError


@dataclass(frozen=True, slots=True)
class Kind:
    """`inputs` draws one input; `use` reads it and everything in it, or raises UserError. `valid` is accepted."""

    inputs: st.SearchStrategy[Any]
    use: Callable[[Any], object]
    valid: Any


Maker = Callable[[Path], Kind]
"""Makes a kind, with its valid files in an empty folder."""


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """The file with other content for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def of_file(path: Path, inputs: st.SearchStrategy[bytes], read: Callable[[], object]) -> Kind:
    """Content of one file among valid ones; `read` uses it."""

    def use(content: bytes) -> None:
        with replaced(path, content):
            read()

    return Kind(inputs, use, path.read_bytes())


def command(*arguments: object) -> str:
    """Run a command of the command line in this process; what it printed. Raises UserError where it exits with 2."""
    from geodtr.cli.main import run

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert code in (0, 1, 2, 3), code
    if code == 2:
        raise UserError(err.getvalue())
    return out.getvalue()
