"""Paths that no file can have, loops of links, pipes and empty arguments: one message, and nobody waits."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_world import TinyWorld, make_world

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    world = make_world(tmp_path_factory.mktemp("odd"), 2)
    world.photograph(world.bundle.parent / "photo.png", 0)
    return world


@pytest.fixture
def localize(tiny: TinyWorld) -> tuple[object, ...]:
    return ("localize", tiny.bundle.parent / "photo.png", "--bundle", tiny.bundle, "--gallery", tiny.gallery)


def test_names_with_a_nul_character_are_refused(
    tiny: TinyWorld, localize: tuple[object, ...], tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "altitudes.csv").write_text("file,altitude\na\0b.png,80\n")
    nadir = ("--view", "nadir", "--fov", 70, "--altitude", tmp_path / "altitudes.csv")
    assert "line 2, holds a NUL character" in refused(*localize, *nadir)
    (tmp_path / "known.csv").write_text("ground,lat,lon\na\0b.png,48,8\n")
    calibrate = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", tmp_path / "known.csv")
    assert "line 2, holds a NUL character" in refused(*calibrate)
    (tmp_path / "rig.yaml").write_text('cameras:\n  - camera: "a\\0b.yaml"\n    yaw: 0\n')
    assert "its name holds a NUL character" in refused(*localize, "--rig", tmp_path / "rig.yaml")


def test_outputs_below_a_loop_of_links_are_refused(
    localize: tuple[object, ...], tmp_path: Path, refused: Refused
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for command in (
        (*localize, "--out", loop / "x.csv"),
        ("bundle", "key", loop / "key"),
        ("world", loop / "w", "--pairs", 1),
    ):
        assert str(loop) in refused(*command)


@pytest.mark.parametrize("path", [".", "/", ".."])
def test_a_folder_is_no_key(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.chdir(tmp_path)
    refused("bundle", "key", path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_argument_is_refused(localize: tuple[object, ...], refused: Refused) -> None:
    assert "An argument is empty" in refused("photos", "")
    assert "An argument is empty" in refused(*localize, "--out", "")


@pytest.mark.timeout(60)
def test_pipes_are_not_waited_for(tmp_path: Path, refused: Refused, tiny: TinyWorld) -> None:
    (tmp_path / "photos").mkdir()
    for pipe in (tmp_path / "a.tar", tmp_path / "photos" / "a.jpg"):
        os.mkfifo(pipe)
    (tmp_path / "key.pub").write_text("")
    for command in (
        ("bundle", "unpack", tmp_path / "a.tar", tmp_path / "device", "--trust", tmp_path / "key.pub"),
        ("photos", tmp_path / "photos" / "a.jpg"),
        ("photos", tmp_path / "photos"),
        ("gallery", "build", tiny.bundle, tmp_path / "a.tar", "--out", tmp_path / "map"),
    ):
        refused(*command)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_gallery_that_cannot_be_written_is_refused_before_images_are_localised(
    tiny: TinyWorld, tmp_path: Path, refused: Refused
) -> None:
    place = tmp_path / "map"
    place.mkdir()
    if subprocess.run(["mount", "--bind", tiny.gallery, place], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        (tmp_path / "known.csv").write_text("ground,lat,lon\nnowhere.png,48,8\n")
        message = refused("gallery", "calibrate", tiny.bundle, place, "--data", tmp_path / "known.csv")
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
    assert "fixes.json cannot be written" in message
