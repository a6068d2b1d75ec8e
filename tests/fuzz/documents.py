"""Documents and settings: manifests, galleries' documents, presets, --set; and tables of every kind."""

import json
from pathlib import Path

import numpy as np
from hostile import CELLS, VALUES, changed_json, changed_table, changed_text, damaged
from hypothesis import strategies as st
from kinds import Kind, command, of_file
from tiny_world import TinyWorld, make_world

from geodtr import Localizer
from geodtr.runtime.errors import DataError
from geodtr.runtime.images.altitudes import HIGHEST, read_altitudes
from geodtr.runtime.images.frames import Frame, decode_frame, open_frames
from geodtr.runtime.localization.known_images import read_known_images
from geodtr.runtime.localization.output.gis import geojson, gpx
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import check_tiles
from geodtr.runtime.tracking.odometry import Odometry, follow_odometry, read_odometry
from geodtr.runtime.tracking.run import track_odometry

ODOMETRY = (
    "time_unix_s,speed_m_s,yaw_rate_deg_s,image\n1700000000,10,0,street.png\n1700000001,10,2,\n1700000002,9,-2,\n"
)
TILES = "file,lat,lon,heading,metres_per_pixel,id,more\na.png,1,2,3,4,x,y\nb.png,1,2,3,4,z,\n"
EDGES = "file,south,west,north,east\na.png,48.0,8.0,48.001,8.0015\nb.png,48.0,8.0,48.001,8.0015\n"
_PLACES = ("above_left", "above_right", "below_right", "below_left")
_SQUARE = "48.001,8.0,48.001,8.0015,48.0,8.0015,48.0,8.0"
CORNERS = f"file,{','.join(f'{corner}_lat,{corner}_lon' for corner in _PLACES)}\na.png,{_SQUARE}\nb.png,{_SQUARE}\n"
KNOWN = "ground,lat,lon\na.png,48.0,8.0\nb.png,48.1,8.1\n"
ALTITUDES = "file,altitude\na.png,80\nb.png,\n"
PAIRS = "ground,aerial,lat,lon,heading\na.png,a.png,1,2,3\nb.png,b.png,1,2,3\n"


def locate(tiny: TinyWorld) -> None:
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        localizer.locate(tiny.panorama(1))


def manifest(root: Path) -> Kind:
    tiny = make_world(root, 2)
    file = tiny.bundle / "manifest.json"

    def read() -> None:
        command("inspect", tiny.bundle)
        locate(tiny)

    return of_file(file, _document(file), read)


def gallery_document(root: Path) -> Kind:
    tiny = make_world(root, 2)
    file = tiny.gallery / "gallery.json"

    def read() -> None:
        command("gallery", "info", tiny.gallery)
        locate(tiny)

    return of_file(file, _document(file), read)


def _document(file: Path) -> st.SearchStrategy[bytes]:
    content = file.read_bytes()
    return changed_json(content.decode()).map(str.encode) | damaged(content, len(content))


def preset(root: Path) -> Kind:
    from geodtr.training.memory import check_memory
    from geodtr.training.parallel.distributed import Ranks
    from geodtr.training.presets import __file__ as presets
    from geodtr.training.presets.load import load_preset

    file = root / "preset.toml"
    text = (Path(presets).parent / "world-geodtr-plus.toml").read_text()
    file.write_text(text)
    ranks = Ranks()
    words = [word for word in text.replace("=", " ").split() if word.isidentifier()]
    inputs = changed_text(text, words) | damaged(text.encode(), len(text))
    return of_file(file, inputs, lambda: check_memory(load_preset(str(file)), ranks))


def setting(root: Path) -> Kind:
    from geodtr.training.config import TrainConfig
    from geodtr.training.memory import check_memory
    from geodtr.training.parallel.distributed import Ranks
    from geodtr.training.presets.load import _keys, load_preset

    del root
    ranks = Ranks()
    keys = st.sampled_from([name for name, _ in _keys(TrainConfig)])
    toml = st.sampled_from(
        ["[1, 2]", "{a = 1}", '"x"', "true", "1979-05-27", "'", "[" * 100, "0x7fffffff", "1e9", "inf"]
    )
    values = CELLS | toml | st.integers(-2, 10**7).map(str) | VALUES.map(str)
    one = st.builds("{}={}".format, keys | st.text(max_size=8), values) | st.text(max_size=20)
    return Kind(
        st.lists(one, min_size=1, max_size=3),
        lambda settings: check_memory(load_preset("world-tiny", settings), ranks),
        ["recipe.epochs=2"],
    )


def tiles_csv(root: Path) -> Kind:
    return _tiles(root, TILES)


def edges_csv(root: Path) -> Kind:
    return _tiles(root, EDGES)


def corners_csv(root: Path) -> Kind:
    return _tiles(root, CORNERS)


def _tiles(root: Path, table: str) -> Kind:
    _images(root)
    file = root / "tiles.csv"
    file.write_text(table)
    return of_file(file, _table(table), lambda: check_tiles("tiles", open_source(root).tiles))


def pairs_csv(root: Path) -> Kind:
    from geodtr.training.data.references import reference_tiles
    from geodtr.training.data.spec import read_test_set

    _images(root)
    file = root / "pairs.csv"
    file.write_text(PAIRS)
    return of_file(
        file, _table(PAIRS), lambda: check_tiles("pairs", reference_tiles(read_test_set(f"pairs:{root}")).tiles)
    )


def known_images(root: Path) -> Kind:
    """Of `gallery calibrate`."""
    file = root / "known.csv"
    file.write_text(KNOWN)

    def read() -> None:
        for known in read_known_images(file, _refuse):
            assert abs(known.lat) <= 90 and abs(known.lon) <= 180

    return of_file(file, _table(KNOWN), read)


def altitudes(root: Path) -> Kind:
    _images(root)
    file = root / "frames.csv"
    file.write_text(ALTITUDES)

    def read() -> None:
        given = read_altitudes(file)
        for name in ("a.png", "b.png"):
            frame = given.of(Frame(str(root / name), root / name))
            assert frame.altitude is None or 0 < frame.altitude <= HIGHEST

    return of_file(file, _table(ALTITUDES), read)


def _refuse(reason: str) -> None:
    raise DataError(reason)


def odometry(root: Path) -> Kind:
    tiny, file = _driven(root)
    return of_file(file, _table(ODOMETRY), lambda: _follow(tiny, read_odometry(file)))


def odometry_rows(root: Path) -> Kind:
    """As they come by standard input."""
    tiny, file = _driven(root)

    def use(content: bytes) -> None:
        lines = content.decode(errors="replace").splitlines(keepends=True)
        _follow(tiny, follow_odometry(lines, "standard input", file.parent))

    return Kind(_table(ODOMETRY), use, ODOMETRY.encode())


def _driven(root: Path) -> tuple[TinyWorld, Path]:
    tiny = make_world(root, 2)
    tiny.photograph(root / "street.png", 1)
    file = root / "drive.csv"
    file.write_text(ODOMETRY)
    return tiny, file


def _follow(tiny: TinyWorld, driven: Odometry) -> None:
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        waypoints = [tracked.waypoint for tracked in track_odometry(localizer, driven)]
    assert all(point.lat is None or (np.isfinite(point.lat) and np.isfinite(point.lon or 0)) for point in waypoints)
    gpx(waypoints, track=True, unix=driven.unix)
    json.dumps(geojson(waypoints, track=True), allow_nan=False)


def image_list(root: Path) -> Kind:
    _images(root)
    file = root / "list.txt"
    file.write_text("a.png\nb.png\n")
    inputs = changed_text("a.png\nb.png\n", ["a.png", "b.png"]) | damaged(b"a.png\nb.png\n")
    return of_file(file, inputs, lambda: [decode_frame(frame) for frame in open_frames([f"@{file}"]).frames])


def _table(content: str) -> st.SearchStrategy[bytes]:
    return changed_table(content) | damaged(content.encode(), len(content))


def _images(root: Path) -> None:
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), (1, 2, 3)).save(root / name)
