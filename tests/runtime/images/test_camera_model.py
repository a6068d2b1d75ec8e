"""Calibrations of OpenCV, ROS and Kalibr give one camera, and images without its distortion; bad files are named."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_world import TinyWorld, make_world

from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.images.camera_model import CameraModel, read_camera_model, undistort
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.spec import Images

WIDTH, HEIGHT = 320, 240
MATRIX = np.array([[200.0, 0, 160.5], [0, 201.0, 118.0], [0, 0, 1]])
BARREL = (-0.25, 0.06, 0.001, -0.0005, 0.0)
FISHEYE = (0.02, -0.01, 0.003, 0.0)


def opencv_file(
    path: Path, distortion: tuple[float, ...] = BARREL, matrix: Images | np.ndarray = MATRIX, dimensions: int = 2
) -> Path:
    """As OpenCV's own storage writes it: YAML or XML by the name. A vector of one dimension has a type of its own in
    OpenCV 5.
    """
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", WIDTH)
    storage.write("image_height", HEIGHT)
    storage.write("camera_matrix", matrix)
    storage.write("distortion_coefficients", np.array(distortion, ndmin=dimensions))
    storage.release()
    return path


def ros_file(path: Path, model: str = "plumb_bob", distortion: tuple[float, ...] = BARREL) -> Path:
    path.write_text(
        f"image_width: {WIDTH}\nimage_height: {HEIGHT}\ncamera_name: front\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
        f"  data: {MATRIX.ravel().tolist()}\ndistortion_model: {model}\ndistortion_coefficients:\n  rows: 1\n"
        f"  cols: {len(distortion)}\n  data: {list(distortion)}\n"
    )
    return path


def ros_message(path: Path) -> Path:
    path.write_text(
        f"header:\n  stamp: {{sec: 1, nanosec: 2}}\nheight: {HEIGHT}\nwidth: {WIDTH}\ndistortion_model: plumb_bob\n"
        f"d: {list(BARREL)}\nk: {MATRIX.ravel().tolist()}\n"
    )
    return path


def kalibr_file(path: Path, cameras: int = 1) -> Path:
    entry = (
        f"  camera_model: pinhole\n  distortion_coeffs: {list(BARREL[:4])}\n  distortion_model: radtan\n"
        f"  intrinsics: [200.0, 201.0, 160.5, 118.0]\n  resolution: [{WIDTH}, {HEIGHT}]\n  rostopic: /cam\n"
    )
    path.write_text("".join(f"cam{number}:\n{entry}" for number in range(cameras)))
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: opencv_file(folder / "a.yml"),
        lambda folder: opencv_file(folder / "a.xml"),
        lambda folder: opencv_file(folder / "a.yml", dimensions=1),
        lambda folder: opencv_file(folder / "a.xml", dimensions=1),
        lambda folder: ros_file(folder / "a.yaml"),
        lambda folder: ros_message(folder / "a.yaml"),
        lambda folder: kalibr_file(folder / "a.yaml"),
    ],
    ids=["OpenCV YAML", "OpenCV XML", "OpenCV vector YAML", "OpenCV vector XML", "ROS file", "ROS message", "Kalibr"],
)
def test_every_programs_file_gives_the_same_camera(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    camera = read_camera_model(write(tmp_path))
    assert (camera.width, camera.height, camera.lens) == (WIDTH, HEIGHT, "pinhole")
    assert camera.matrix == (200.0, 201.0, 160.5, 118.0)
    assert camera.distortion[:4] == BARREL[:4]


def test_one_of_several_cameras_is_named(tmp_path: Path) -> None:
    path = kalibr_file(tmp_path / "chain.yaml", 2)
    with pytest.raises(ConfigError, match=r"holds cam0, cam1. Name one of them: .*chain\.yaml#cam0"):
        read_camera_model(path)
    assert read_camera_model(f"{path}#cam1").width == WIDTH
    with pytest.raises(ConfigError, match="holds one camera"):
        read_camera_model(f"{ros_file(tmp_path / 'one.yaml')}#cam1")


def checker(points: Callable[[Images], np.ndarray]) -> Images:
    """A checkerboard, 4 units away, as a camera sees it whose `points` turn pixels into directions x/z, y/z."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([column, row], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    x, y = points(pixels).reshape(HEIGHT, WIDTH, 2).transpose(2, 0, 1)  # type: ignore[arg-type] # floats
    wave = np.sin(12 * x) * np.sin(12 * y)
    return np.repeat((127 + 120 * wave).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("lens", ["pinhole", "fisheye"])
def test_an_undistorted_image_is_a_pinhole_cameras(tmp_path: Path, lens: str) -> None:
    if lens == "pinhole":
        camera = read_camera_model(ros_file(tmp_path / "a.yaml"))
        seen = checker(lambda pixels: cv2.undistortPoints(pixels, MATRIX, np.array(BARREL)))
    else:
        camera = read_camera_model(ros_file(tmp_path / "a.yaml", "equidistant", FISHEYE))
        seen = checker(lambda pixels: cv2.fisheye.undistortPoints(pixels, MATRIX, np.array(FISHEYE)))
    focal = WIDTH / 2 / np.tan(np.radians(camera.field_of_view / 2))
    new = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]])
    straight = checker(lambda pixels: cv2.undistortPoints(pixels, new, np.zeros(4)))
    mended = undistort(Decoded.of(seen), camera, "a.png").pixels
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(mended[inside].astype(int) - straight[inside]).mean() < 4
    assert np.abs(seen[inside].astype(int) - straight[inside]).mean() > 15
    assert 75 < camera.field_of_view < 85


def test_an_image_of_another_resolution_is_named(tmp_path: Path) -> None:
    camera = read_camera_model(opencv_file(tmp_path / "front.yml"))
    with pytest.raises(ImageError, match=r"b\.png has 640x480 pixels, and .*front\.yml is for 320x240"):
        undistort(Decoded(Image.new("RGB", (640, 480)), None), camera, "b.png")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no calibration"),
        ("width: 1", "lacks image_height"),
        ("[1, 2]", "holds no calibration"),
        ("a: *b", "alias"),
        ("a: {b: [}", "neither YAML"),
        ("<a><b/></a>", "lacks image_width"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type"),
        ("K: !!python/object/apply:os.system [x]", "neither YAML"),
        ("image_width: 320\nimage_height: 240\ncamera_matrix: {data: [a]}", "needed: 9 numbers"),
        ("image_width: 320\nimage_height: 240\ncamera_matrix: {data: [1, 2]}", "needed: 9 numbers"),
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"bad\.yaml.*{reason}"):
        read_camera_model(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("200.0, 0.0", "0.0, 0.0"), "focal lengths of 0 and 201"),
        (("200.0, 0.0", "-200.0, 0.0"), "focal lengths of -200"),
        (("160.5", "1605.0"), "principal point at 1605, 118"),
        (("160.5", ".nan"), "no finite numbers"),
        (("width: 320", "width: 0"), "a resolution of 0x240"),
        (("width: 320", "width: 320.5"), "whole numbers"),
        (("plumb_bob", "equidistant"), "5 distortion coefficients; a fisheye camera has 4"),
        (("plumb_bob", "fov"), "allowed: plumb_bob"),
        (("-0.25", "-0.25, 1, 1, 1, 1"), "9 distortion coefficients"),
        (("-0.25", "1e200"), "no perspective image|cannot be used"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    path = ros_file(tmp_path / "bad.yaml")
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=rf"bad\.yaml.*({reason})"):
        _ = read_camera_model(path).field_of_view


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_named(tmp_path: Path, data: st.DataObject) -> None:
    whole = ros_file(tmp_path / "a.yaml").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    (tmp_path / "a.yaml").write_bytes(whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + 1 :])
    try:
        camera = read_camera_model(tmp_path / "a.yaml")
    except ConfigError as error:
        assert "a.yaml" in str(error)
    else:
        assert isinstance(camera, CameraModel)


def test_a_missing_file_and_a_pipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_camera_model(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_camera_model(tmp_path)


def test_localize_undistorts_what_it_embeds(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    tiny: TinyWorld = make_world(tmp_path, 3)
    image = tmp_path / "front.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(image)
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    plain, mended = cli(*command), cli(*command, "--undistort", opencv_file(tmp_path / "front.yml"))
    assert mended.code == 0
    assert json.loads(plain.out)["candidates"] != json.loads(mended.out)["candidates"]
    other = cli(
        *command[:1], tiny.photograph(tmp_path / "b.png", 3), *command[2:], "--undistort", tmp_path / "front.yml"
    )
    assert other.code == 2
    assert "front.yml is for 320x240" in other.err
    both = cli(*command, "--undistort", tmp_path / "front.yml", "--fov", 90)
    assert (both.code, "--undistort and --fov do not go together" in both.err) == (2, True)


@pytest.mark.parametrize("focal_length", [1e9, 1e6])
def test_a_lens_that_sees_a_point_is_named(tmp_path: Path, focal_length: float) -> None:
    matrix = np.array([[focal_length, 0, 160.5], [0, focal_length, 118.0], [0, 0, 1]])
    camera = read_camera_model(opencv_file(tmp_path / "far.yml", (0.0,) * 5, matrix))
    with pytest.raises(ConfigError, match=r"far\.yml describes a lens .* Check its focal length, in pixels"):
        _ = camera.field_of_view
