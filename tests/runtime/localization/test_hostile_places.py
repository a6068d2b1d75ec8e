"""A path without permissions, or with a name longer than a disk allows, gives one sentence and no traceback."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geodtr import UserError
from geodtr.runtime.errors import DataError, ImageError, OutputExists
from geodtr.runtime.files import check_new_file, check_new_folder, check_writable, new_file, new_folder
from geodtr.runtime.gallery import manifest as gallery_manifest
from geodtr.runtime.gallery.registry import holds_gallery
from geodtr.runtime.images.decode import list_images
from geodtr.runtime.images.frames import decode_frame, open_frames
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.registry import find_kind, open_source
from geodtr.runtime.sources.tiled.slippy import XyzOptions
from geodtr.runtime.sources.tiled.xyz import open_xyz

NOBODY = 65534
LONGEST = 255  # bytes of a file name, on all common file systems
ENDLESS = "n" * 300
OUTPUTS: list[Callable[[Path], object]] = [
    check_new_file,
    check_new_folder,
    check_writable,
    holds_gallery,
]
INPUTS: list[Callable[[Path], object]] = [
    find_kind,
    open_source,
    lambda place: open_source(place, FolderOptions(positions="none")),
    open_folder,
    list_images,
    lambda place: open_xyz(place, XyzOptions(zoom=3)),
    lambda place: open_geotiff(place.with_suffix(".tif"), GeoTiffOptions(tile_metres=60)),
    lambda place: [decode_frame(frame) for frame in open_frames([str(place)]).frames],
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may read, while this process has the rights of an ordinary user."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o777)
        if os.geteuid() != 0:
            yield root
            return
        assert gallery_manifest.FILE_NAME  # imported now: it could not be read later
        try:
            os.seteuid(NOBODY)
        except OSError:
            pytest.skip("root cannot lay down its rights here")
        try:
            yield root
        finally:
            os.seteuid(0)


def closed(folder: Path, mode: int = 0) -> Path:
    """A folder in it with an image and a folder, and with the permissions `mode`."""
    inner = folder / "closed"
    (inner / "3").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(inner / "a.png")
    inner.chmod(mode)
    return inner


@pytest.mark.parametrize("check", OUTPUTS)
def test_an_output_in_a_closed_folder_is_refused_before_any_work(folder: Path, check: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"closed/out cannot be written \(Permission denied\)"):
        check(closed(folder) / "out")


@pytest.mark.parametrize("check", [check_new_folder, holds_gallery])
def test_an_output_folder_that_cannot_be_listed_is_refused(folder: Path, check: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"closed cannot be written \(Permission denied\)"):
        check(closed(folder, 0o300))


@pytest.mark.parametrize("check", OUTPUTS)
@pytest.mark.parametrize("place", [ENDLESS, f"new/{ENDLESS}", f"new/{ENDLESS}/out"])
def test_an_output_whose_name_is_too_long_is_refused_before_any_work(
    tmp_path: Path, check: Callable[[Path], object], place: str
) -> None:
    with pytest.raises(UserError, match=r"nnn(/out)? cannot be written \(File name too long\)"):
        check(tmp_path / place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["{}.jsonl", "out.{}", "{}"])
@pytest.mark.parametrize("letter", ["n", "é", "🛰"])
def test_an_output_with_the_longest_allowed_name_is_written(tmp_path: Path, letter: str, form: str) -> None:
    longest = (LONGEST - len(form.format(""))) // len(letter.encode())
    file, output = tmp_path / form.format(longest * letter), tmp_path / ("x" + form.format((longest - 1) * letter))
    check_new_file(file)
    with new_file(file) as temporary:
        temporary.write_text("x")
    check_new_folder(output)
    with new_folder(output) as temporary:
        (temporary / "part").write_text("x")
    assert {path.name for path in tmp_path.iterdir()} == {file.name, output.name}
    with pytest.raises(OutputExists):
        check_new_file(file)


@pytest.mark.parametrize("use", INPUTS)
def test_an_input_in_a_closed_folder_is_named(folder: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises((DataError, ImageError), match=r"closed/in(\.tif)? cannot be read \(Permission denied\)"):
        use(closed(folder) / "in")


@pytest.mark.parametrize("use", INPUTS)
def test_an_input_whose_name_is_too_long_is_named(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises((DataError, ImageError), match=r"nnn(\.tif)? cannot be read \(File name too long\)"):
        use(tmp_path / ENDLESS)


@pytest.mark.parametrize("mode", [0, 0o300, 0o400])
@pytest.mark.parametrize("use", [find_kind, open_source, open_folder, open_xyz, list_images])
def test_an_input_folder_that_cannot_be_listed_or_searched_is_named(
    folder: Path, use: Callable[[Path], object], mode: int
) -> None:
    with pytest.raises((DataError, ImageError), match=r"closed(/\S+)? cannot be read \(Permission denied\)"):
        use(closed(folder, mode))
