"""The command `embed`: all sources, a table of rows and images, unreadable images named, no partial output."""

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image
from tiny_bundle import SIZE, write_bundle
from tiny_gallery import descriptors_of, pixels_of
from videos import write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(70):
        Image.fromarray(pixels_of(f"{number:02}.png")).save(tmp_path / "images" / f"{number:02}.png")
    return tmp_path / "images"


def table(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(count: int) -> list[str]:
    return [f"{number:02}.png" for number in range(count)]


def test_a_folder_is_embedded_with_a_table_of_its_rows(
    bundle: Path, folder: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "made" / "d.npy"
    done = cli("embed", bundle, folder, "--branch", "aerial", "--out", out, "--threads", "1")
    assert done.code == 0
    assert "70 descriptors" in done.err
    descriptors = np.load(out)
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(descriptors, descriptors_of(names(70)), atol=1e-5)
    rows = table(out)
    assert [Path(row["name"]).name for row in rows] == names(70)
    assert [row["row"] for row in rows] == [str(number) for number in range(70)]


@pytest.mark.parametrize("how", [("--batch", 1), ("--batch", 7), ("--latency-budget", 500)])
def test_the_batch_size_does_not_change_the_output(
    bundle: Path, folder: Path, tmp_path: Path, cli: Callable[..., Outcome], how: tuple[object, ...]
) -> None:
    assert cli("embed", bundle, folder, "--branch", "ground", "--out", tmp_path / "d.npy", *how).code == 0
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), descriptors_of(names(70)), atol=1e-5)


def test_bad_images_are_left_out_and_listed(
    bundle: Path, folder: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    (folder / "05.png").write_bytes(b"no image")
    (folder / "33.png").write_bytes((folder / "33.png").read_bytes()[:60])
    out = tmp_path / "d.npy"
    assert "--on-error skip" in cli("embed", bundle, folder, "--branch", "aerial", "--out", out).err
    done = cli("embed", bundle, folder, "--branch", "aerial", "--out", out, "--on-error", "skip")
    assert done.code == 0
    assert "2 images are left out" in done.err
    rows = table(out)
    good = [row for row in rows if not row["left_out"]]
    assert [row["row"] for row in good] == [str(number) for number in range(68)]
    np.testing.assert_allclose(np.load(out), descriptors_of([Path(row["name"]).name for row in good]), atol=1e-5)
    bad = {Path(row["name"]).name: row["left_out"] for row in rows if row["left_out"]}
    assert bad.keys() == {"05.png", "33.png"}
    assert "cannot be decoded" in bad["33.png"]
    assert all(row["row"] == "" for row in rows if row["left_out"])


def test_a_video_is_embedded_frame_by_frame(bundle: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    video, out = write_video(tmp_path / "drive.avi"), tmp_path / "d.npy"
    done = cli("embed", bundle, video, "--branch", "ground", "--out", out, "--every", "10")
    assert done.code == 0
    assert np.load(out).shape == (3, SIZE)
    assert [(row["name"], row["time"]) for row in table(out)] == [
        (f"{video}#0", "0.000"),
        (f"{video}#10", "1.000"),
        (f"{video}#20", "2.000"),
    ]


def test_a_truncated_video_stops_the_run_or_is_listed(
    bundle: Path, tmp_path: Path, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    video, out = write_video(tmp_path / "drive.avi"), tmp_path / "d.npy"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert "breaks off after" in refused("embed", bundle, video, "--branch", "ground", "--out", out)
    assert cli("embed", bundle, video, "--branch", "ground", "--out", out, "--on-error", "skip").code == 0
    assert "breaks off after" in table(out)[-1]["left_out"]
    assert len(np.load(out)) == len(table(out)) - 1


def test_impossible_inputs_are_refused_and_nothing_is_written(
    bundle: Path, folder: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = ("--branch", "aerial", "--out", tmp_path / "d.npy")
    assert "--limit" in refused("embed", bundle, "camera:0", *out)
    assert "does not exist" in refused("embed", bundle, tmp_path / "gone.png", *out)
    assert "None of 2 images" in refused("embed", bundle, "a.png", "b.png", *out, "--on-error", "skip")
    assert "lists nothing" in refused("embed", bundle, f"@{_empty(tmp_path)}", *out)
    assert "one of them" in refused("embed", bundle, folder, *out, "--batch", 4, "--latency-budget", 10)
    assert "one image takes" in refused("embed", bundle, folder, *out, "--latency-budget", 1e-6)
    assert "does not end in .npy" in refused("embed", bundle, folder, "--branch", "aerial", "--out", tmp_path / "d.csv")
    (tmp_path / "d.csv").write_text("mine")
    assert "d.csv exists" in refused("embed", bundle, folder, *out)


def _empty(folder: Path) -> Path:
    (folder / "list.txt").write_text("")
    return folder / "list.txt"


def test_a_full_disk_leaves_nothing(bundle: Path, folder: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(disk)]
    if subprocess.run(small, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        done = cli("embed", bundle, folder, "--branch", "aerial", "--out", disk / "d.npy")
        assert done.code == 2
        assert "No space is left" in done.err
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", ["localize", "gallery add"])
def test_the_number_of_threads_is_an_option(
    bundle: Path, folder: Path, tmp_path: Path, cli: Callable[..., Outcome], command: str
) -> None:
    gallery = tmp_path / "g"
    assert cli("gallery", "build", bundle, folder, "--out", gallery, "--threads", 1).code == 0
    if command == "localize":
        done = cli("localize", folder / "03.png", "--bundle", bundle, "--gallery", gallery, "--threads", 1)
        assert "03.png" in done.out
    else:
        done = cli("gallery", "add", bundle, gallery, folder, "--threads", 1)
    assert done.code == 0
