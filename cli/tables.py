"""Tables of figures in a terminal of any width: a figure is never cut; columns are left out instead, and named."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from geodtr.cli.console import output
from geodtr.runtime.files.foreign_text import visible

_SHORTEST_NAME = 16
"""Columns of the terminal that a name gets before a figure beside it is left out; longer names are folded."""
_GAP = 2

Cell = str | Text


class Figures:
    """A table whose first column is names and whose others are figures. `expendable`: columns in the order in which
    they are left out where the terminal is too narrow; the others follow from the right, but for the last one.
    """

    def __init__(self, columns: Sequence[str], expendable: Sequence[str] = ()) -> None:
        self._columns = tuple(columns)
        self._rows: list[tuple[tuple[Cell, ...], str | None]] = []
        named = [self._columns.index(name) for name in expendable if name in self._columns]
        others = [index for index in range(len(self._columns) - 2, 0, -1) if index not in named]
        self._expendable = [*named, *others]

    def add_row(self, *cells: Cell, style: str | None = None) -> None:
        self._rows.append((cells, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(map(cell_len, self._column(index))) + _GAP for index in range(len(self._columns))]
        left_out = list[int]()
        name = min(widths[0], _SHORTEST_NAME, options.max_width // 2)

        def figures() -> int:
            return sum(width for index, width in enumerate(widths) if index and index not in left_out)

        for index in self._expendable:
            if name + figures() > options.max_width:
                left_out.append(index)
        for index in tuple(reversed(left_out)):  # one that is narrower than those left out after it may fit
            if name + figures() + widths[index] <= options.max_width:
                left_out.remove(index)
        kept = [index for index in range(len(self._columns)) if index not in left_out]
        shown = Table(box=None, pad_edge=False, padding=(0, 1))
        for index in kept:
            header = self._columns[index]
            if index:
                shown.add_column(header, justify="right", no_wrap=True, min_width=widths[index] - _GAP)
            else:
                # Long names wrap: two truncated names could look the same.
                most = max(options.max_width - figures(), name) - _GAP
                shown.add_column(header, overflow="fold", max_width=most)
        for cells, style in self._rows:
            shown.add_row(*(cells[index] for index in kept), style=style)
        # What no leaving out has made fit runs over the edge, where the terminal breaks it.
        yield from console.render(shown, options.update(width=max(options.max_width, name + figures())))
        names = ", ".join(self._columns[index] or "notes" for index in sorted(left_out))
        if names:
            yield Text(f"not shown in {options.max_width} columns: {names}\n", "dim", end="")

    def _column(self, index: int) -> Iterator[str]:
        yield self._columns[index]
        for cells, _ in self._rows:
            cell = cells[index]
            yield cell.plain if isinstance(cell, Text) else visible(cell)


def table(title: str, columns: Sequence[str], expendable: Sequence[str] = ()) -> Figures:
    """Print a title, and give an empty table for what is below it."""
    output.print(title, style="bold", soft_wrap=True)
    return Figures(columns, expendable)
