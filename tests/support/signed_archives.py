"""Signed archives of a small world, and a device that has the first of them."""

import shutil
import time
from pathlib import Path

import pytest
from tiny_world import TinyWorld, make_world

from geodtr.runtime.archive import install, pack
from geodtr.runtime.archive.install import current, unpack
from geodtr.runtime.archive.keys import new_key
from geodtr.runtime.gallery.folder.writer import FolderWriter


@pytest.fixture(scope="session")
def packed_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("packed"), 3)


@pytest.fixture(scope="session")
def archives(packed_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and two archives, of which `second.tar` was made later and holds a tile less."""
    root = tmp_path_factory.mktemp("archives")
    new_key(root / "key")
    pack_next(packed_world.bundle, packed_world.gallery, root, "first")
    changed = root / "changed"
    shutil.copytree(packed_world.gallery, changed)
    with FolderWriter(changed) as writer:
        writer.remove(["000.png"])
    pack_next(packed_world.bundle, changed, root, "second")
    return root


@pytest.fixture
def device(archives: Path, tmp_path: Path) -> Path:
    """A device that has the first archive."""
    unpack(archives / "first.tar", tmp_path / "device", [archives / "key.pub"])
    return tmp_path / "device"


def pack_next(bundle: Path, gallery: Path | None, root: Path, name: str) -> None:
    """Write the archive `name`.tar with the key in the folder `root`, newer than all before."""
    time.sleep(1.01)  # an archive's time is in whole seconds
    pack.pack(bundle, gallery, root / "key", root / f"{name}.tar", note=name)


def note_of(device: Path) -> str | None:
    """The note of the current version, of which every file is read."""
    return install.verify(device).index.note if current(device) else None
