"""Folders of small images, for tests of the origin of their positions."""

from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder

AS_FOUND = FolderOptions()
LATITUDES = st.floats(-90, 90).map(lambda value: round(value, 6))
LONGITUDES = st.floats(-180, 180).map(lambda value: round(value, 6))


def write_folder(root: Path, *names: str) -> Path:
    """Write a small image under each of these names."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name)
    return root


def places_of(root: Path, options: FolderOptions = AS_FOUND) -> dict[str, tuple[float | None, float | None]]:
    """Each tile's position by its id."""
    return {tile.id: (tile.lat, tile.lon) for tile in open_folder(root, options).tiles}
