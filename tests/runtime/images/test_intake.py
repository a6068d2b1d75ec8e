"""A model refuses images that it was not trained on; GPano, --fov and --from state what an image shows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_world import TinyWorld, make_world, trained_on
from xmp_photo import packet, write_photo

from geodtr import Localizer, open_bundle
from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.images.intake import Intake, describe
from geodtr.runtime.images.xmp import panorama_of, read_properties
from geodtr.runtime.spec import PANORAMAS, Imagery, Images, Preprocessing
from geodtr.training.presets import preset_names
from geodtr.training.presets.load import load_preset

PANORAMA = Imagery(projection="panorama", field_of_view=360, aspect=4.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """A world whose model states that it was trained on panoramas of 4:1."""
    return trained_on(make_world(tmp_path_factory.mktemp("tiny")), PANORAMA)


def of_size(width: int, height: int, xmp: bytes | None = None) -> Decoded:
    return Decoded(Image.new("RGB", (width, height)), None, xmp)


def turn_of(full: int, cropped: int, **more: object) -> bytes:
    return packet({"FullPanoWidthPixels": full, "CroppedAreaImageWidthPixels": cropped, **more})


@pytest.mark.parametrize(
    ("width", "height", "xmp", "reason"),
    [
        (4032, 3024, None, "4032x3024 pixels, an aspect of 1.33:1"),
        (400, 200, None, "--from equirectangular"),
        (400, 100, turn_of(1000, 400), "covers 144°"),
        (4032, 3024, packet(dji={"GimbalPitchDegree": "-90.0", "GimbalYawDegree": "12"}), "looked down"),
    ],
    ids=["a phone's photo", "a whole sphere", "a part of a turn", "a nadir frame"],
)
def test_an_image_that_a_panorama_model_was_not_trained_on_is_refused(
    width: int, height: int, xmp: bytes | None, reason: str
) -> None:
    with pytest.raises(ImageError, match=r"street\.jpg: .*360° of view, aspect 4:1.*--mismatch warn") as error:
        Intake().take(of_size(width, height, xmp), PANORAMA, "street.jpg")
    assert reason in str(error.value)
    taken = Intake(mismatch="warn").take(of_size(width, height, xmp), PANORAMA, "street.jpg")
    assert taken.doubt is not None


def test_a_field_of_view_that_the_user_states_counts_before_the_files() -> None:
    with pytest.raises(ImageError, match="covers 90°"):
        Intake(field_of_view=90).take(of_size(400, 100), PANORAMA, "a.jpg")
    assert Intake(field_of_view=360).take(of_size(400, 100, turn_of(900, 400)), PANORAMA, "a.jpg").full_turn
    for wrong in (0, -1, 361, float("nan")):
        with pytest.raises(ConfigError, match="field_of_view"):
            Intake(field_of_view=wrong)


def test_a_phones_partial_panorama_of_4_5_to_1_is_no_full_turn() -> None:
    stated = turn_of(8000, 3600, PoseHeadingDegrees="143.5")
    anything = Intake().take(of_size(450, 100, stated), Imagery(), "a.jpg")
    assert (anything.full_turn, anything.heading) == (False, None)
    assert Intake().take(of_size(450, 100), Imagery(), "a.jpg").full_turn
    assert not Intake(field_of_view=162).take(of_size(450, 100), Imagery(), "a.jpg").full_turn


def test_the_heading_in_a_full_turns_file_aligns_it(tiny: TinyWorld, tmp_path: Path) -> None:
    pixels = np.repeat(np.repeat(tiny.panorama(20, heading=90), 4, axis=0), 4, axis=1)
    image = write_photo(tmp_path / "a.jpg", pixels, turn_of(256, 256, PoseHeadingDegrees="90"))
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        located = localizer.locate(image)
        assert (located.candidates[0].row, located.heading) == (20, 90)
        plain = localizer.locate(write_photo(tmp_path / "b.jpg", pixels))
        assert (plain.heading, plain.doubt) == (None, None)
        assert plain.candidates[0].score < located.candidates[0].score


def test_an_equirectangular_image_is_cropped_to_the_models_rows(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    panorama = tiny.panorama(20)
    sphere = np.zeros((32, 64, 3), np.uint8)
    sphere[8:24] = panorama
    image = tmp_path / "sphere.png"
    Image.fromarray(sphere).save(image)
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    refused = cli(*command)
    assert refused.code == 2
    assert "--from equirectangular" in refused.err
    answer = json.loads(cli(*command, "--from", "equirectangular").out)
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        assert answer["candidates"][0]["row"] == localizer.locate(panorama).candidates[0].row == 20
    assert answer["doubt"] is None
    again = cli(*command, "--mismatch", "warn")
    assert again.code == 0
    assert "not trained on such images: it has 64x32 pixels" in again.err
    assert "an aspect of 2:1" in json.loads(again.out)["doubt"]
    assert json.loads(again.out)["uncalibrated"] is not None
    part = cli(*command[:1], tiny.photograph(tmp_path / "part.png", 3), *command[2:], "--from", "equirectangular")
    assert part.code == 2
    assert "twice as wide as high" in part.err


def test_inspect_states_what_the_model_takes(tiny: TinyWorld, cli: Callable[..., Outcome]) -> None:
    assert "trained on panoramas of 360° of view, aspect 4:1\n" in cli("inspect", tiny.bundle).out


def test_refused_images_can_be_left_out_by_name(tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    good = tiny.photograph(tmp_path / "good.png", 3)
    Image.new("RGB", (40, 30)).save(tmp_path / "phone.png")
    command = ("localize", tmp_path, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    assert cli(*command).code == 2
    skipped = cli(*command, "--on-error", "skip")
    assert [json.loads(line)["image"] for line in skipped.out.splitlines()] == [str(good)]
    assert "phone.png: it has 40x30 pixels" in skipped.err


def test_cropping_needs_to_know_the_models_rows() -> None:
    with pytest.raises(ConfigError, match="does not state the aspect"):
        Intake(shape="equirectangular").check(PANORAMAS)
    with pytest.raises(ConfigError, match=r"shape is equirectangular.*leave field_of_view and camera out"):
        Intake(shape="equirectangular", field_of_view=90)


def test_a_model_that_states_nothing_takes_everything() -> None:
    for size in ((40, 30), (400, 30), (30, 400)):
        assert Intake().take(of_size(*size), Imagery(), "a.jpg").doubt is None
    assert describe(Imagery()) == "any images"
    with pytest.raises(ImageError, match="too narrow for a full turn"):
        Intake().take(of_size(40, 30), PANORAMAS, "a.jpg")


def test_a_bundle_states_what_its_preset_was_trained_on(tiny: TinyWorld) -> None:
    config = load_preset("geodtr-cvusa")
    assert config.ground.imagery == Imagery(projection="panorama", field_of_view=360, aspect=5.5)
    assert load_preset("world-tiny").aerial.imagery.tile_metres == 60
    assert open_bundle(tiny.bundle).manifest.ground.spec.preprocessing.imagery == PANORAMA


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_states_its_images_and_the_ground_of_its_tiles(name: str) -> None:
    config = load_preset(name)
    assert config.ground.imagery.projection != "any"
    # University-1652 does not tell how much ground its tiles show.
    assert (config.aerial.imagery.tile_metres is None) is (name == "sample4geo-university")


@pytest.mark.parametrize("values", [{"aspect": 0.0}, {"field_of_view": 400.0}, {"tile_metres": float("nan")}])
def test_impossible_imagery_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Imagery(**values)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"height": 8, "width": 8, "imagery": values}, Preprocessing)


@pytest.mark.parametrize("text", ["wide", "nan", "1e999", ""])
def test_a_gpano_value_that_is_no_number_is_named(text: str, tmp_path: Path) -> None:
    image = write_photo(tmp_path / "a.jpg", np.zeros((8, 32, 3), np.uint8), packet({"FullPanoWidthPixels": text}))
    with pytest.raises(ImageError, match=r"a\.jpg: its XMP has FullPanoWidthPixels"):
        Intake().take(decode(image), PANORAMA, str(image))
    with pytest.raises(ImageError, match="at most the second"):
        panorama_of(read_properties(turn_of(100, 200)), "a.jpg")


@given(st.binary(max_size=200))
def test_no_bytes_of_xmp_stop_an_image(packet_bytes: bytes) -> None:
    assert read_properties(packet_bytes) == {} or isinstance(read_properties(packet_bytes), dict)


def test_entities_of_an_xmp_packet_are_never_expanded() -> None:
    bomb = b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]>" + turn_of(100, 100).replace(b"'100'", b"'&b;'")
    assert read_properties(bomb) == {}


def test_pixels_of_a_camera_are_checked_by_their_shape(tiny: TinyWorld) -> None:
    pixels: Images = np.zeros((30, 40, 3), np.uint8)
    with (
        Localizer.open(tiny.bundle, tiny.gallery) as localizer,
        pytest.raises(ImageError, match="The image: it has 40x30"),
    ):
        localizer.locate(pixels)


def test_embed_checks_images_as_localize_does(
    tiny: TinyWorld, cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    photo, turn = tmp_path / "photo.png", tiny.photograph(tmp_path / "turn.png", 3)
    Image.new("RGB", (64, 48)).save(photo)
    command = ("embed", tiny.bundle, photo, turn, "--branch", "ground")
    assert "photo.png: it has 64x48 pixels" in refused(*command, "--out", tmp_path / "none.npy")
    skipped = cli(*command, "--out", tmp_path / "skipped.npy", "--on-error", "skip")
    assert (skipped.code, len(np.load(tmp_path / "skipped.npy"))) == (0, 1)
    warned = cli(*command, "--out", tmp_path / "all.npy", "--mismatch", "warn")
    assert (warned.code, len(np.load(tmp_path / "all.npy"))) == (0, 2)
    assert "was not trained on such images" in " ".join(warned.err.split())
