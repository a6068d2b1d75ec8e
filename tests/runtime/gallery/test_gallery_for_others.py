"""A gallery for other programs: exported for spreadsheets, maps and data frames, and readable as it is."""

import csv
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import SIZE, MadeTiles, build, descriptors_of, made_tiles

from geodtr.runtime.errors import ConfigError, OutputExists
from geodtr.runtime.gallery.export import export_gallery
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.sources.tile import Tile


def test_a_gallery_is_exported_for_spreadsheets_maps_and_data_frames(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    put = [
        Tile("a,b", "a\n.png", 48.25, 8.5, 90.0, 0.5, {"year": 2024, "of": ["x"]}),
        Tile("ü", "b.png"),
    ]
    with open_folder(build(tmp_path / "g", MadeTiles(put))) as gallery:
        for name in ("g.csv", "g.geojson", "g.parquet"):
            export_gallery(gallery, tmp_path / name)
        with pytest.raises(OutputExists):
            export_gallery(gallery, tmp_path / "g.csv")
        with pytest.raises(ConfigError, match=r"\.geojson"):
            export_gallery(gallery, tmp_path / "g.xlsx")
    with (tmp_path / "g.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert (first["id"], first["file"], float(first["lat"]), first["heading"]) == ("a,b", "a\n.png", 48.25, "90.0")
    assert json.loads(first["more"]) == put[0].more
    assert (second["id"], second["lat"], second["metres_per_pixel"]) == ("ü", "", "")
    document = json.loads((tmp_path / "g.geojson").read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    placed, unplaced = document["features"]
    assert placed["geometry"] == {"type": "Point", "coordinates": [8.5, 48.25]}
    assert placed["properties"]["more"] == put[0].more
    assert unplaced["geometry"] is None
    table = parquet.read_table(tmp_path / "g.parquet").to_pydict()
    assert table["id"] == ["a,b", "ü"]
    assert table["lat"] == [48.25, None]
    np.testing.assert_array_equal(np.array(table["descriptor"], np.float32), descriptors_of(["a,b", "ü"]))


def test_the_folder_is_readable_with_standard_tools(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(3), "int8")
    assert sorted(file.name for file in path.iterdir()) == [
        "descriptors-1.float32",
        "descriptors-1.int8",
        "descriptors-1.scales",
        "gallery.json",
        "references.sqlite",
        "writer.lock",
    ]
    document = json.loads((path / "gallery.json").read_text())
    assert (document["source"], document["storage"], document["descriptor_size"]) == ("made", "int8", SIZE)
    rows = np.fromfile(path / "descriptors-1.float32", np.float32).reshape(3, SIZE)
    np.testing.assert_array_equal(rows, descriptors_of(["000", "001", "002"]))
    with sqlite3.connect(shutil.copy(path / "references.sqlite", tmp_path / "copy")) as database:
        assert database.execute("SELECT id, lat FROM reference WHERE slot = 1").fetchall() == [("001", 48.0001)]
