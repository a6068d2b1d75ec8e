"""Any content of a file gives a result or one of this package's errors, which names the file.

Images, videos, EXIF, GeoTIFFs, a gallery's table and descriptors, and lists that are plain garbage have such tests
beside their readers; here are the documents and tables that stay well-formed and say what cannot be.
"""

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hostile import CELLS, changed_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maps import UTM, picture
from tiny_world import TinyWorld, make_world

from geodtr import Localizer, UserError
from geodtr.calibration.ranges import read_ranges
from geodtr.runtime.images.frames import decode_frame, open_frames
from geodtr.runtime.localization.calibration import calibrate, write_calibration
from geodtr.runtime.localization.fix import Fix
from geodtr.runtime.localization.output.gis import geojson, gpx
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import check_tiles
from geodtr.runtime.tracking.odometry import read_odometry
from geodtr.runtime.tracking.run import track_odometry
from geodtr.training.data.references import reference_tiles
from geodtr.training.data.spec import read_test_set

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
FUZZ = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
RANGES: dict[str, object] = {
    "schema": 1,
    "data": "pairs:here",
    "options": {"images": 2, "choice": "random", "seed": 0, "method": "minmax", "percentile": 99.9},
    **{
        branch: {
            "graph_sha256": "0" * 64,
            "pool_sha256": "1" * 64,
            "images": [{"file": "a.png", "sha256": "2" * 64}],
            "ranges": {"a": [-1.0, 2.0]},
            "means": {"a": [0.5, 0.25]},
        }
        for branch in BRANCHES
    },
}


@dataclass(frozen=True, slots=True)
class Reader:
    """A valid file, and a function that reads it and uses all its content."""

    file: Path
    content: bytes
    use: Callable[[], object]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    root = tmp_path_factory.mktemp("hostile")
    (root / "world").mkdir()
    tiny = make_world(root / "world", 4)
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        fixes = [Fix(1.0, 2.0, float(row), row / 90) for row in range(90)]
        calibration = calibrate(fixes, np.ones(90), np.ones(90), localizer.conditions, data="pairs:held-out")
        write_calibration(localizer.gallery, calibration)
    street = tiny.photograph(root / "street.png", 5)
    (root / "drive.csv").write_text(
        "time_unix_s,speed_m_s,yaw_rate_deg_s,image\n1700000000,10,0,street.png\n1700000001,10,2,\n1700000002,9,-2,\n"
    )
    (root / "list.txt").write_text("street.png\nstreet.png\n")
    (root / "ranges.json").write_text(json.dumps(RANGES))
    for folder in ("tiles", "pairs"):
        for name in ("a.png", "b.png"):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / name).write_bytes(street.read_bytes())
    (root / "tiles/tiles.csv").write_text(
        "file,lat,lon,heading,metres_per_pixel,id,more\na.png,1,2,3,4,x,y\nb.png,1,2,3,4,z,\n"
    )
    (root / "pairs/pairs.csv").write_text("ground,aerial,lat,lon,heading\na.png,a.png,1,2,3\nb.png,b.png,1,2,3\n")
    shape = {"width": 60, "height": 60, "count": 3, "dtype": "uint8"}
    with rasterio.open(root / "map.tif", "w", driver="GTiff", crs=UTM, **shape) as file:
        file.write(picture(60, 60))
    (root / "map.tfw").write_text("0.5\n0\n0\n-0.5\n600000\n5330000\n")
    uses: dict[Path, Callable[[], object]] = {
        tiny.bundle / "manifest.json": lambda: locate(tiny),
        tiny.gallery / "gallery.json": lambda: locate(tiny),
        tiny.gallery / "fixes.json": lambda: locate(tiny),
        root / "drive.csv": lambda: follow(tiny, root / "drive.csv"),
        root / "list.txt": lambda: [decode_frame(frame) for frame in open_frames([f"@{root / 'list.txt'}"]).frames],
        root / "ranges.json": lambda: [read_ranges(root / "ranges.json")[branch].activations for branch in BRANCHES],
        root / "tiles/tiles.csv": lambda: check_tiles("tiles", open_source(root / "tiles").tiles),
        root / "pairs/pairs.csv": lambda: check_tiles(
            "pairs", reference_tiles(read_test_set(f"pairs:{root / 'pairs'}")).tiles
        ),
        root / "map.tfw": lambda: cut(root / "map.tif"),
    }
    return {file.name: Reader(file, file.read_bytes(), use) for file, use in uses.items()}


def locate(tiny: TinyWorld) -> None:
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        localizer.locate(tiny.panorama(5))


def follow(tiny: TinyWorld, odometry: Path) -> None:
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        driven = read_odometry(odometry)
        waypoints = [tracked.waypoint for tracked in track_odometry(localizer, driven)]
    assert all(point.lat is None or (np.isfinite(point.lat) and np.isfinite(point.lon or 0)) for point in waypoints)
    gpx(waypoints, track=True, unix=driven.unix)
    json.dumps(geojson(waypoints, track=True), allow_nan=False)


def cut(path: Path) -> None:
    source = open_geotiff(path, GeoTiffOptions(10))
    check_tiles(source.name, source.tiles)
    for tile in source.tiles[:4]:
        source.read(tile)


def read_or_refuse(reader: Reader, content: bytes, value: str = "") -> None:
    """`value`: what was put in; where that is a path from the root on, an error may begin with it instead."""
    reader.file.write_bytes(content)
    try:
        reader.use()
    except UserError as error:
        of_file = any(name in str(error) for name in (reader.file.stem, str(reader.file.parent)))
        assert of_file or (value.startswith("/") and str(error).startswith(f"{value} ")), error
    finally:
        reader.file.write_bytes(reader.content)


DOCUMENTS = ("manifest.json", "gallery.json", "fixes.json", "ranges.json")
TABLES = ("drive.csv", "tiles.csv", "pairs.csv")
LINES = ("list.txt", "map.tfw")


@pytest.mark.parametrize("name", DOCUMENTS + TABLES + LINES)
def test_the_unchanged_file_is_read(readers: dict[str, Reader], name: str) -> None:
    readers[name].use()


@pytest.mark.parametrize("name", DOCUMENTS)
@given(data=st.data())
@FUZZ
def test_a_document_with_one_value_replaced(readers: dict[str, Reader], name: str, data: st.DataObject) -> None:
    read_or_refuse(readers[name], data.draw(changed_json(readers[name].content.decode())).encode())


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize(
    "value", ["[" * 100_000, "[" * 90 + "]" * 90, "9" * 5000, '{"a": 1, "a": 2}', '"' + "x" * 100_000 + '"']
)
def test_a_document_with_a_value_beyond_limits(readers: dict[str, Reader], name: str, value: str) -> None:
    content = readers[name].content.decode()
    key = content.index(":", content.index('"'))
    end = content.index(",", key)
    read_or_refuse(readers[name], f"{content[: key + 1]}{value}{content[end:]}".encode())
    read_or_refuse(readers[name], f'{{"new": {value}, {content.lstrip()[1:]}'.encode())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_a_regular_file(readers: dict[str, Reader], name: str) -> None:
    reader = readers[name]
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
        reader.file.unlink()
        make(reader.file)
        with pytest.raises(UserError, match=reader.file.stem):
            reader.use()
        reader.file.rmdir() if reader.file.is_dir() else reader.file.unlink()
        reader.file.write_bytes(reader.content)


@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
@FUZZ
def test_a_table_with_one_cell_replaced(readers: dict[str, Reader], name: str, data: st.DataObject) -> None:
    rows = list(csv.reader(io.StringIO(readers[name].content.decode())))
    row = data.draw(st.sampled_from(rows), "row")
    row[data.draw(st.integers(0, len(row) - 1), "column")] = cell = data.draw(CELLS, "cell")
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    read_or_refuse(readers[name], out.getvalue().encode("utf-8", "replace"), cell)


@pytest.mark.parametrize("name", LINES)
@given(data=st.data())
@FUZZ
def test_a_list_with_one_line_replaced(readers: dict[str, Reader], name: str, data: st.DataObject) -> None:
    lines = readers[name].content.decode().split("\n")
    lines[data.draw(st.integers(0, len(lines) - 1), "line")] = value = data.draw(CELLS, "value")
    read_or_refuse(readers[name], "\n".join(lines).encode("utf-8", "replace"), value)


@pytest.mark.parametrize("name", DOCUMENTS + TABLES + LINES)
@given(at=st.floats(0, 1, exclude_max=True), put=st.binary(max_size=8), cut=st.booleans())
@FUZZ
def test_a_file_with_foreign_bytes_or_a_lost_end(
    readers: dict[str, Reader], name: str, at: float, put: bytes, cut: bool
) -> None:
    whole = readers[name].content
    place = int(at * len(whole))
    read_or_refuse(readers[name], whole[:place] + put + (b"" if cut else whole[place + len(put) :]))
