"""A gallery's table and descriptors: opened, verified, searched, and given to a writer."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hostile import damaged
from hypothesis import strategies as st
from kinds import Kind, command
from tiny_gallery import build, descriptors_of, made_tiles

from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.geodesy import Near
from geodtr.runtime.sources.tile import Tile

_TABLE = "references.sqlite"
_WRITERS: tuple[Callable[[FolderWriter], object], ...] = (
    lambda writer: writer.add([Tile("new", "new.png")], descriptors_of(["new"])),
    lambda writer: writer.remove(["003"]),
    lambda writer: writer.compact(),
)
_VALUES = st.sampled_from(
    [
        None,
        0,
        -1,
        244,
        2**31,
        2**63 - 1,
        -(2**63),
        1.5,
        1e308,
        float("inf"),
        "",
        "x",
        "\x1b[2J",
        b"",
        b"\0",
        b"[" * 9999,
    ]
)


def table(root: Path) -> Kind:
    intact = build(root / "intact", made_tiles(8), "int8")
    content = (intact / _TABLE).read_bytes()
    return Kind(damaged(content, 4096), lambda content: _use(root, {_TABLE: content}), content)


def values(root: Path) -> Kind:
    """Numbers and text that SQLite holds and no writer wrote."""
    intact = build(root / "intact", made_tiles(8), "int8")
    with closing(sqlite3.connect(intact / _TABLE)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = [
            (name, column[1])
            for name in names
            for column in database.execute(f"SELECT * FROM pragma_table_info('{name}')")
        ]

    def use(changes: list[tuple[tuple[str, str], Any]]) -> None:
        changed = root / _TABLE
        shutil.copy(intact / _TABLE, changed)
        with closing(sqlite3.connect(changed)) as database:
            for (name, column), value in changes:
                try:
                    database.execute(
                        f"UPDATE {name} SET {column} = ? WHERE rowid = (SELECT max(rowid) FROM {name})", (value,)
                    )
                except sqlite3.Error:
                    continue  # the schema's own constraints
            database.commit()
        _use(root, {_TABLE: changed.read_bytes()})

    return Kind(st.lists(st.tuples(st.sampled_from(columns), _VALUES), min_size=1, max_size=3), use, [])


def descriptors(root: Path) -> Kind:
    intact = build(root / "intact", made_tiles(8), "int8")
    files = sorted(intact.glob("descriptors-*"))
    one = st.one_of([st.tuples(st.just(file.name), damaged(file.read_bytes())) for file in files])
    return Kind(one, lambda change: _use(root, dict([change])), (files[0].name, files[0].read_bytes()))


def _use(root: Path, changes: dict[str, bytes]) -> None:
    """A copy of the gallery with other content in some files: all of it is read, then a writer comes."""
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root / "intact", copy)
    for name, content in changes.items():
        (copy / name).write_bytes(content)
    command("gallery", "verify", copy)
    with open_folder(copy) as gallery:
        list(gallery.all_tiles())
        for near in (None, Near(48.0, 8.0, 50.0)):
            gallery.search(descriptors_of(["002", "005"]), 3, near)
    kind = sum(map(len, changes.values())) % len(_WRITERS)
    with FolderWriter(copy) as writer:
        _WRITERS[kind](writer)
