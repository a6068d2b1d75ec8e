"""The images of a rig's cameras are joined into the panorama that its model takes; gaps and wrong files are named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image
from rigs import FOCAL, SIDE, angles, angles_of, expected, kalibr, rays_of, shots, turn
from tiny_world import TinyWorld, make_world

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.rig import Rig, joined_frames, read_rig
from geodtr.runtime.spec import Images


def difference(rig: Rig, images: list[Images]) -> float:
    joined = rig.join(images, ["a"] * len(images))
    return float(np.abs(joined.astype(int) - expected(rig)).max())


@pytest.mark.parametrize("write", [kalibr, angles])
def test_a_rig_sees_what_a_panorama_sees(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    rig = read_rig(write(tmp_path / "rig.yaml"), 6.0, 512)
    assert rig.size == (1024, 171)
    assert (rig.missing, rig.gaps) == (0, "")
    assert difference(rig, shots()) < 6


@pytest.mark.parametrize(
    ("model", "fisheye", "distortion"),
    [("radtan", False, (-0.1, 0.02, 0.001, 0.0)), ("equidistant", True, (0.02, -0.01, 0.003, 0.0))],
)
def test_lenses_are_undone(tmp_path: Path, model: str, fisheye: bool, distortion: tuple[float, ...]) -> None:
    rig = read_rig(kalibr(tmp_path / "rig.yaml", model=model, distortion=distortion), 6.0, 512)
    assert difference(rig, shots(distortion=distortion, fisheye=fisheye)) < 8


def test_pitch_and_roll_turn_a_camera(tmp_path: Path) -> None:
    level = read_rig(angles(tmp_path / "rig.yaml"), 6.0, 512)
    upside_down = read_rig(angles(tmp_path / "down.yaml", more=", roll: 180"), 6.0, 512)
    images = shots()
    turned = upside_down.join([np.ascontiguousarray(image[::-1, ::-1]) for image in images], ["a"] * 4)
    assert np.abs(turned.astype(int) - level.join(images, ["a"] * 4)).mean() < 3
    # A camera that looks up sees the horizon low in its image.
    up = read_rig(angles(tmp_path / "up.yaml", more=", pitch: 20"), 6.0, 512)
    low = np.zeros((SIDE, SIDE, 3), np.uint8)
    low[int(SIDE / 2 + FOCAL * np.tan(np.radians(20))) - 8 :][:16] = 200
    joined = up.join([low] * 4, ["a"] * 4)[:, up.size[0] // 2, 0]
    assert abs(int(joined.argmax()) - up.size[1] / 2) < 25
    assert joined[0] == 0


def test_a_gap_is_named_and_a_large_one_refused(tmp_path: Path) -> None:
    three = (0.0, 95.0, -95.0)
    rig = read_rig(kalibr(tmp_path / "gap.yaml", three), 6.0, 512)
    assert 0.15 < rig.missing < 0.2
    assert "from -180° to -145° and 145° to 180° clockwise from ahead" in rig.gaps
    joined = rig.join(shots(three), ["a"] * 3)
    assert (joined[80, 2] == joined[80, -3]).all()
    with pytest.raises(ConfigError, match=r"leaves 4\d% of a panorama of 1024x171 pixels unseen, from"):
        read_rig(kalibr(tmp_path / "two.yaml", (0.0, 180.0)), 6.0, 512)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("T_cn_cnm1", "T_other", "cam1 has T_cn_cnm1 None; a transform of 4 x 4"),
        ("[0.0, 1.0, 0.0, 0.0]", "[0.0, 2.0, 0.0, 0.0]", "no rotation and translation"),
        ("cam2:", "cam7:", "lacks cam2"),
        (f"[{FOCAL}, {FOCAL}", "[0, 0", "focal lengths of 0 and 0"),
    ],
)
def test_wrong_camchains_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = kalibr(tmp_path / "rig.yaml")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        read_rig(path, 6.0, 512)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: 3", "no rig of several cameras"),
        ("cameras: [3]", "camera 0 is 3"),
        ("cameras: [{camera: one.yaml, yaw: x}]", "angles ['x'"),
        ("cameras: [{camera: nowhere.yaml, yaw: 0}]", "nowhere.yaml does not exist"),
        ("cameras: []", "has 0 cameras"),
        ("[", "neither YAML"),
    ],
)
def test_wrong_lists_of_cameras_are_named(tmp_path: Path, text: str, message: str) -> None:
    kalibr(tmp_path / "one.yaml", (0.0,))
    (tmp_path / "rig.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_rig(tmp_path / "rig.yaml", 6.0, 512)
    assert message in str(raised.value)


def test_moments_must_be_whole(tmp_path: Path) -> None:
    rig, images = read_rig(kalibr(tmp_path / "rig.yaml"), 6.0, 512), shots()
    good = [[Frame(f"{row}#{number}", image, number / 10) for number in range(2)] for row, image in enumerate(images)]
    joined = list(joined_frames(good, rig))
    assert [(frame.name, frame.time) for frame in joined] == [("0#0", 0.0), ("0#1", 0.1)]
    with pytest.raises(DataError, match=r"cam3 ends before moment 1"):
        list(joined_frames([*good[:3], good[3][:1]], rig))
    with pytest.raises(DataError, match=r"frames of this moment are 7\.00 s apart"):
        list(joined_frames([*good[:3], [Frame("late", images[3], 7.0)]], rig))
    wrong, _ = joined_frames([*good[:3], [Frame("small", images[3][:99], 0.0), good[3][1]]], rig)
    assert isinstance(wrong.image, ImageError)
    assert "small has 240x99 pixels" in str(wrong.image)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"), 4)


def test_localize_joins_folders(
    tiny: TinyWorld, cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    """The panorama of tile 9, cut into the views of eight cameras, is found."""
    yaws = tuple(45.0 * number for number in range(8))
    rig = kalibr(tmp_path / "rig.yaml", yaws)
    panorama = np.asarray(Image.fromarray(tiny.panorama(9)).resize((1024, 256)))
    rays, folders = rays_of(), list[Path]()
    for number, yaw in enumerate(yaws):
        azimuth, rise = (part * 512 / np.pi for part in angles_of(rays @ turn(yaw).T))
        x, y = np.rint(azimuth + 511.5).astype(int) % 1024, np.clip(np.rint(127.5 - rise), 0, 255).astype(int)
        folders.append(tmp_path / f"cam{number}")
        folders[-1].mkdir()
        Image.fromarray(panorama[y, x]).save(folders[-1] / "0.png")
    more = ("--bundle", tiny.bundle, "--gallery", tiny.gallery, "--rig", rig, "--json")
    outcome = cli("localize", *folders, *more)
    assert outcome.code == 0, outcome.err
    (answer,) = (json.loads(line) for line in outcome.out.splitlines())
    assert answer["candidates"][0]["tile"] == "009.png"
    assert answer["candidates"][0]["score"] > 0.8
    assert "8 cameras, and 7 sources are given" in refused("localize", *folders[:7], *more)
    assert "--rig and --fov do not go together" in refused("localize", *folders, *more, "--fov", 360)
    assert "--view nadir and --rig do not go together" in refused(
        "localize", *folders, *more, "--view", "nadir", "--frame-metres", "60,100"
    )
