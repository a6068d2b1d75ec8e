"""A wrong argument or path gives one clear message and exit code 2: no traceback, nothing overwritten."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, Trained


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("street,aerial\na,b\n", "street,aerial"),
        ("", "(none)"),
        ("ground,aerial,lat,lon\nground/000000.png,aerial/000000.png,north,8\n", "lat is 'north'"),
        ("ground,aerial,lat,lon\nground/000000.png,aerial/000000.png,91,8\n", "within -90 and 90"),
        ("ground,aerial\n\nground/000000.png\n", "line 3"),
        ("ground,aerial,lat,lon\nground/000000.png,aerial/000000.png,8,\n", "both lat and lon"),
        ("ground,aerial\nground/000000.png,aerial/000000.png\n", "at least two"),
        ("ground,aerial\n", "holds no pairs"),
    ],
)
def test_a_wrong_csv_is_named(
    trained: Trained, pairs: Path, refused: Callable[..., str], content: str, named: str
) -> None:
    (pairs / "pairs.csv").write_text(content)
    assert named in refused("evaluate", trained.bundles["fp32"].path, "--data", f"pairs:{pairs}")


_NADIR = ("--view", "nadir", "--altitude", 80, "--fov", 70)
_MAVLINK = ("--mavlink", "udpout:127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*_NADIR, "--refine", "--refine-places", 0), "--refine-places is 0; allowed are 1 to 32"),
        ((*_NADIR, "--refine", "--min-inliers", 2), "--min-inliers is 2; allowed are 8 to 10000"),
        ((*_NADIR, "--rotations", 0), "--rotations is 0"),
        ((*_NADIR, "--size-error", 2), "--size-error is 2"),
        ((*_MAVLINK, "--track", "--uncalibrated-sigma", 15, "--mavlink-rate", 0), "--mavlink-rate is 0"),
        ((*_MAVLINK, "--max-sigma", 0), "--max-sigma is 0"),
        ((*_MAVLINK, "--uncalibrated-sigma", 70), "--uncalibrated-sigma is 70"),
        (("--threads", 100_000), "--threads is 100000"),
        (("--fov", 400), "--fov is 400; allowed are degrees above 0"),
        (
            ("--from", "equirectangular", "--fov", 90),
            "--from is equirectangular, of images that show all around",
        ),
    ],
)
def test_a_value_that_only_the_library_refuses_is_named_by_its_option(
    options: tuple[object, ...], message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert message in refused("localize", nowhere, "--bundle", nowhere, "--gallery", nowhere, *options)


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        (("localize", "nowhere"), "--top", (5, 6)),
        (("localize", "nowhere"), "--fov", (90, 90)),  # one that a dataclass declares
        (("gallery", "export", "nowhere"), "--out", ("one.csv", "two.csv")),
        (("bundle", "pack", "nowhere"), "--note", ("one", "two")),
    ],
)
def test_an_option_that_takes_one_value_is_refused_twice(
    command: tuple[str, ...], option: str, values: tuple[object, ...], refused: Callable[..., str]
) -> None:
    message = refused(*command, *(part for value in values for part in (option, value)))
    assert f"'{option}': it is given twice, and takes one value." in " ".join(message.split())


def test_options_that_take_several_values_and_flags_may_be_repeated(cli: Callable[..., Outcome]) -> None:
    assert cli("doctor", "--json", "--json").code in (0, 1)
    repeated = cli("bundle", "unpack", "nowhere.tar", "folder", "--trust", "a.pub", "--trust", "b.pub")
    assert "twice" not in repeated.err


@pytest.mark.parametrize("spec", ["somewhere", "vigor:somewhere", "pairs:nowhere", "pairs:"])
def test_a_wrong_spec_names_the_allowed_ones(trained: Trained, refused: Callable[..., str], spec: str) -> None:
    message = refused("evaluate", trained.bundles["fp32"].path, "--data", spec)
    assert "KIND:PATH" in message or "not a folder" in message


def test_one_of_the_toolkits_own_folders_in_anothers_place_is_named(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    bundle, checkpoint, image = trained.bundles["fp32"].path, trained.checkpoint, trained.test_set.pairs[0].ground
    gallery, installed = tmp_path / "gallery", tmp_path / "installed"
    for marked in (gallery / "gallery.json", installed / "current" / "bundle"):
        marked.parent.mkdir(parents=True)
        marked.touch()
    wrong: tuple[tuple[Path, Path, str], ...] = (
        (gallery, gallery, "It is a gallery: name the bundle that it was built with."),
        (checkpoint, gallery, f"geodtr-export build-engine {checkpoint} --backend"),
        (installed, gallery, f"Archives are installed there: name {installed}/current/bundle"),
        (bundle, bundle, f"It is a bundle, with which one is built: geodtr-export gallery build {bundle} SPEC"),
        (bundle, installed, f"Archives are installed there: name {installed}/current/gallery"),
    )
    for of_bundle, of_gallery, message in wrong:
        command = ("embed", of_bundle, image, "--branch", "ground", "--out", tmp_path / "e.npy")
        assert message in refused(*command if of_bundle != bundle else ("gallery", "info", of_gallery))
    assert f"{bundle} is a bundle; `geodtr-export train`" in refused("export", bundle, "--out", tmp_path / "out")
    (tmp_path / "a.tar").touch()
    archive = refused("bundle", "verify", tmp_path / "a.tar")
    assert f"geodtr-export bundle unpack {tmp_path / 'a.tar'} FOLDER" in archive


def test_an_unknown_split_of_cvusa_lists_the_splits(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "train, val" in refused("evaluate", trained.bundles["fp32"].path, "--data", f"cvusa:{tmp_path}#test")


def test_an_output_that_exists_is_left_alone(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("precious")
    bundle, data, image = trained.bundles["fp32"].path, trained.test_set.name, trained.test_set.pairs[0].ground
    for command in (
        ("world", taken, "--pairs", 1),
        ("train", "--preset", "world-tiny", "--data", data, "--out", taken),
        ("export", trained.checkpoint, "--out", taken),
        ("build-engine", trained.onnx.path, "--out", taken),
        ("gallery", "build", bundle, data, "--out", taken),
        ("demo", "--out", taken),
        ("embed", bundle, image, "--branch", "ground", "--out", taken / "mine.txt"),
    ):
        assert "exists" in refused(*command)
    assert (taken / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("train", "--preset", "world-huge", "--data", "pairs:x", "--out", "y"),
        ("world", "w", "--pairs", "0"),
        ("world", "w", "--pairs", "1", "--size", "big"),
        ("world", "w", "--pairs", "1", "--region", "moon"),
        ("build-engine", "c", "--backend", "abacus", "--out", "b"),
        ("build-engine", "c", "--precision", "fp4", "--out", "b"),
        ("evaluate", "nowhere", "--data", "pairs:nowhere"),
        ("inspect", "nowhere"),
        ("inspect", "n" * 300),
        ("evaluate", "n" * 300, "--data", "pairs:nowhere"),
        ("doctor", "n" * 300),
        ("localize", "n" * 300 + ".mp4", "--bundle", "nowhere", "--gallery", "n" * 300 + ".db"),
    ],
)
def test_wrong_usage_exits_with_2(
    refused: Callable[..., str], arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(*arguments)


def test_a_folder_whose_name_holds_a_hash_is_still_a_data_set(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome]
) -> None:
    renamed = pairs.rename(pairs.with_name("my #1 [set]"))
    result = cli("evaluate", trained.bundles["fp32"].path, "--data", f"pairs:{renamed}")
    assert result.code == 0, result.err
    assert "my #1 [set]" in result.out
