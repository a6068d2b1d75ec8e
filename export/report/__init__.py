"""The report of a parity run: one HTML file that needs nothing else, for a screen, a phone and paper."""

from importlib.util import find_spec
from pathlib import Path

from geodtr.export.parity.result import ParityResult
from geodtr.export.plots.files import require_matplotlib
from geodtr.runtime.errors import MissingDependency
from geodtr.runtime.files import check_ending, check_new_file, check_writable, write_bytes
from geodtr.runtime.installation import install_hint


def check_report(out: Path, *, replace: bool = False) -> None:
    """Ask before the work, not after, whether a report can be written to `out`.

    Raises OutputExists when it is taken and not to be replaced, ConfigError when its name does not end in .html,
    UserError when nothing can be written there, MissingDependency without Jinja2 or matplotlib.
    """
    if not replace:
        check_new_file(out)
    check_ending(out, (".html",))
    check_writable(out)
    if find_spec("jinja2") is None:
        raise MissingDependency(f"The report is written by Jinja2, which is not installed: {install_hint('export')}")
    require_matplotlib()


def write_report(result: ParityResult, out: Path, *, replace: bool = False) -> None:
    """Write the report to `out`: durably, whole or not at all. Raises as `check_report` does."""
    check_report(out, replace=replace)
    from geodtr.export.report.page import page

    write_bytes(out, page(result).encode(), replace=replace)
