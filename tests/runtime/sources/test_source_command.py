"""`gallery preview` takes every kind of source, reports its tiles, and draws them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from maps import UTM, picture, write_map
from PIL import Image
from rasterio import Affine
from tiny_bundle import write_bundle
from tiny_world import state_imagery
from trees import vigor

from geodtr.runtime.installation import install_hint
from geodtr.runtime.spec import Imagery
from geodtr.training.data.references import reference_tiles
from geodtr.training.data.spec import read_test_set

Cli = Callable[..., Outcome]


@pytest.fixture
def ortho(tmp_path: Path) -> Path:
    return write_map(tmp_path / "ortho.tif", picture(300, 300), UTM, Affine(0.5, 0, 600_000, 0, -0.5, 5_330_000))


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    root = tmp_path / "tiles"
    root.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16)).save(root / f"48.{1000 + number},11.5000.png")
    return root


def test_a_map_is_measured_and_drawn(cli: Cli, ortho: Path, tmp_path: Path) -> None:
    out = tmp_path / "coverage.png"
    result = cli("gallery", "preview", ortho, "--tile-metres", 50, "--overlap", 20, "--out", out, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["coverage"]["tiles"] == 25
    assert report["coverage"]["spacing_metres"] == pytest.approx(25, rel=0.03)
    assert "EPSG:32632" in report["notes"][0]
    with Image.open(out) as drawn:
        assert min(drawn.size) > 500


def test_a_folder_is_measured_without_a_picture(cli: Cli, tiles: Path) -> None:
    result = cli("gallery", "preview", tiles)
    assert result.code == 0, result.err
    assert "names" in result.err
    assert "11.1 m" in result.out


def test_options_reach_their_source(cli: Cli, tiles: Path, ortho: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("file,lat,lon\n48.1001,11.5000.png,1,2\n".replace("48.1001,11.5000.png", '"48.1001,11.5000.png"'))
    for options, found in (
        ((tiles, "--positions", "none"), 0),
        ((tiles, "--positions", listed), 1),
        ((tiles, "--pattern", "{lat},{lon}"), 4),
        ((ortho, "--tile-metres", 50, "--stride", 25), 25),
        ((ortho, "--tile-metres", 50, "--overlap", 0), 9),
        ((ortho, "--tile-metres", 75, "--bands", "1", "--tile-pixels", 32, "--max-empty", 0), 4),
    ):
        result = cli("gallery", "preview", *options, "--json")
        assert result.code == 0, result.err
        assert json.loads(result.out)["coverage"]["positioned"] == found


def test_map_tiles_are_previewed(cli: Cli, tmp_path: Path) -> None:
    for x in (4, 5):
        (tmp_path / "map/3" / str(x)).mkdir(parents=True)
        for y in (2, 3):
            Image.new("RGB", (16, 16)).save(tmp_path / "map/3" / str(x) / f"{y}.png")
    result = cli("gallery", "preview", tmp_path / "map", "--zoom", 3, "--tms", "--merge", 2, "--step", 1, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["coverage"]["tiles"] == 1


def test_positions_across_the_180th_meridian_are_printed_within_180_degrees(cli: Cli, tmp_path: Path) -> None:
    fiji = write_map(tmp_path / "fiji.tif", picture(300, 300), "EPSG:32601", Affine(10, 0, 169_000, 0, -10, 1_000_000))
    result = cli("gallery", "preview", fiji, "--tile-metres", 500, "--json")
    assert result.code == 0, result.err
    frame = json.loads(result.out)["coverage"]["frame"]
    assert -180 <= frame["east"] < 0 < frame["west"] <= 180


def test_options_for_empty_places_reach_their_source(cli: Cli, tmp_path: Path) -> None:
    pixels = picture(200, 200)
    pixels[:, :, :100] = 0
    ortho = write_map(tmp_path / "black.tif", pixels, UTM, Affine(0.5, 0, 600_000, 0, -0.5, 5_330_000))
    kept = [
        json.loads(cli("gallery", "preview", ortho, "--tile-metres", 25, *options, "--json").out)["coverage"]["tiles"]
        for options in ((), ("--nodata", 0))
    ]
    assert kept == [16, 8]
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("48.1000,11.5000.png", "48.2000,11.5000.png", "notes.png"):
        Image.new("RGB", (16, 16)).save(folder / name)
    result = cli("gallery", "preview", folder, "--skip-unpositioned", "--json")
    assert json.loads(result.out)["coverage"]["tiles"] == 2
    assert "1 of 3 images are left out" in result.err


def test_where_no_image_has_a_position_none_is_left_to_skip_to(refused: Callable[..., str], tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "notes.png")
    assert "would leave all 1 out" in refused("gallery", "preview", tmp_path, "--skip-unpositioned")


def test_sources_that_are_none_come_with_a_hint(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "map/3/4").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "map/3/4/5.png")
    assert f"{tmp_path / 'map'} --zoom 3" in refused("gallery", "preview", tmp_path / "map/3")
    address = "https://tiles.example.org/{z}/{x}/{y}.png"
    assert f"{address} is an address" in (hint := refused("gallery", "preview", address))
    assert "MBTiles" in hint
    (tmp_path / "map.gpkg").write_bytes(b"SQLite format 3")
    assert "gdal_translate" in refused("gallery", "preview", tmp_path / "map.gpkg")


def test_a_folder_of_sheets_comes_with_a_hint(cli: Cli, refused: Callable[..., str], tmp_path: Path) -> None:
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    write_map(sheets / "a.tif", picture(100, 100), UTM, Affine(0.5, 0, 600_000, 0, -0.5, 5_330_000))
    assert "gdalbuildvrt" in refused("gallery", "preview", sheets, "--tile-metres", 50)
    assert "gdalbuildvrt" in cli("gallery", "preview", sheets).err


def test_a_name_that_begins_with_a_dash_comes_with_a_hint(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_map(Path("-map.tif"), picture(100, 100), UTM, Affine(0.5, 0, 600_000, 0, -0.5, 5_330_000))
    result = cli("gallery", "preview", "-map.tif", "--tile-metres", 50)
    assert result.code == 2
    assert "./-map.tif" in result.err
    assert cli("gallery", "preview", "./-map.tif", "--tile-metres", 50).code == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "--tile-metres"),
        (("--bands", "1,2,3"), "--tile-metres"),
        (("--tile-metres", 0), "above 0"),
        (("--tile-metres", 50, "--overlap", 50), "--overlap is 50"),
        (("--tile-metres", 50, "--overlap", 5, "--stride", 5), "state the same"),
        (("--tile-metres", 50, "--bands", "red"), "--bands is 'red'"),
        (("--tile-metres", 50, "--bands", "1,2"), "2 bands"),
        (("--tile-metres", 50, "--stretch", "1,2,3"), "two numbers"),
        (("--zoom", 3), "is a map file, and the options are for a folder of map tiles"),
        (("--zoom", 3, "--pattern", "{lat}"), "--zoom: map tiles"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(
    refused: Callable[..., str], ortho: Path, options: tuple[object, ...], expected: str
) -> None:
    assert expected in refused("gallery", "preview", ortho, *options)


def test_existing_outputs_and_other_formats_are_refused_first(
    refused: Callable[..., str], tiles: Path, tmp_path: Path
) -> None:
    assert ".png" in refused("gallery", "preview", tiles, "--out", tmp_path / "a.jpg")
    (tmp_path / "a.png").touch()
    assert "exists" in refused("gallery", "preview", tiles, "--out", tmp_path / "a.png")
    missing = refused("gallery", "preview", tiles, "--positions", "none", "--out", tmp_path / "b.png")
    assert "none of 4 tiles has a position" in missing


def test_without_matplotlib_a_picture_is_refused_and_figures_are_printed(
    cli: Cli, refused: Callable[..., str], tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = refused("gallery", "preview", tmp_path / "gone", "--out", tmp_path / "a.png")
    assert install_hint("plots") in message
    assert json.loads(cli("gallery", "preview", tiles, "--json").out)["coverage"]["positioned"] == 4


def test_a_data_sets_tiles_take_their_positions_from_names(cli: Cli, tmp_path: Path) -> None:
    names = [f"satellite_41.{n:03d}_-87.500.png" for n in range(4)]
    root = vigor(tmp_path / "vigor", [("Chicago", "p,41.0005,-87.5,.jpg", names)], extra=["other.png"])
    spec = f"vigor:{root}#same-test"
    result = cli("gallery", "preview", spec, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["coverage"]["positioned"] == 4
    source = reference_tiles(read_test_set(spec))
    assert source.tiles[0].id == f"Chicago/satellite/{names[0]}"
    assert (source.tiles[0].lat, source.tiles[0].lon) == (41.0, -87.5)
    assert source.read(source.tiles[0]).pixels.shape == (640, 640, 3)


def test_a_data_set_takes_no_options(refused: Callable[..., str], tmp_path: Path) -> None:
    root = vigor(tmp_path / "vigor", [("Chicago", "p,41,-87.5,.jpg", ["a.png", "b.png", "c.png", "d.png"])])
    assert "leave the options out" in refused("gallery", "preview", f"vigor:{root}", "--zoom", 3)


def trained_on(metres: float, folder: Path) -> Path:
    """A bundle that states the ground size of its training tiles."""
    bundle = write_bundle(folder / "bundle")
    state_imagery(bundle, "aerial", Imagery(tile_metres=metres))
    return bundle


def test_preview_recommends_what_the_bundle_was_trained_on(cli: Cli, ortho: Path, tmp_path: Path) -> None:
    bundle = trained_on(40, tmp_path)
    advised = cli("gallery", "preview", ortho, "--bundle", bundle, "--json")
    assert advised.code == 0, advised.err
    assert "--tile-metres 40 --overlap 20; for --track, --overlap 32" in advised.err
    report = json.loads(advised.out)
    assert report["sizes"][0]["tile_metres"] == pytest.approx(40, rel=0.01)
    assert report["coverage"]["spacing_metres"] <= 20.5
    assert "trained on tiles" not in advised.err
    other = cli("gallery", "preview", ortho, "--tile-metres", 60, "--bundle", bundle)
    assert "trained on tiles of 40 m, and these cover 60 m" in other.err
    assert "Tile centres are" in other.err
    assert "60.0 m" in other.out


def test_building_a_gallery_of_another_ground_size_warns(cli: Cli, ortho: Path, tmp_path: Path) -> None:
    bundle, out = trained_on(40, tmp_path), tmp_path / "map"
    built = cli("gallery", "build", bundle, ortho, "--tile-metres", 75, "--out", out)
    assert built.code == 0, built.err
    assert "trained on tiles of 40 m, and these cover 75 m" in built.err
    assert "Recommended: --tile-metres 40" in built.err
    assert "trained on" not in cli("gallery", "add", bundle, out, ortho, "--tile-metres", 40, "--id-prefix", "b/").err
    (tmp_path / "xyz/18/139500").mkdir(parents=True)
    Image.new("RGB", (256, 256)).save(tmp_path / "xyz/18/139500/91000.png")
    other = cli("gallery", "build", bundle, tmp_path / "xyz", "--out", tmp_path / "other").err
    assert "Recommended: tiles of 40 m that overlap by 20 m" in other
    assert "--tile-metres" not in other


def test_a_bundle_that_states_no_ground_size_recommends_nothing(cli: Cli, ortho: Path, tmp_path: Path) -> None:
    refused = cli("gallery", "preview", ortho, "--bundle", write_bundle(tmp_path / "bundle"))
    assert refused.code == 2
    assert "--set aerial.imagery.tile_metres=60" in refused.err
